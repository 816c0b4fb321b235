"""Writes tests/golden/interop/big_vision_*: tiny towers of big_vision, random in every number, and their outputs.

    PYTHONPATH=CHECKOUT .venv/bin/python tests/golden/make_interop_big_vision.py

CHECKOUT: of github.com/google-research/big_vision (of 19 May 2025 when these were made). It needs JAX and Flax alone.
"""

import pathlib
import sys
import types

import flax
import jax
import numpy as np

for _name in ("big_vision.utils",):  # of TensorFlow; the forward pass uses nothing of it
  sys.modules[_name] = types.ModuleType(_name)
from big_vision.models import vit  # noqa: E402
from big_vision.models.proj.image_text import two_towers  # noqa: E402

HERE = pathlib.Path(__file__).parent / "interop"
SHARED = dict(width=24, depth=2, num_heads=3, mlp_dim=40)
IMAGE = dict(patch_size=(4, 4), **SHARED)
IMAGES = np.random.default_rng(0).standard_normal((2, 16, 16, 3)).astype(np.float32)
IDS = np.array([[5, 3, 7, 1, 1, 1], [4, 9, 2, 6, 8, 1]], np.int32)


def randomised(module, *inputs) -> dict:
  """Variables with a value of its own for every number: no norm's scale is left 1, no bias 0."""
  shapes, draw = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs)), np.random.default_rng(1)

  def fill(path, leaf):
    return (0.2 * draw.standard_normal(leaf.shape) + (path[-1].key == "scale")).astype(np.float32)

  return jax.tree_util.tree_map_with_path(fill, shapes)


def save(case: str, variables: dict, prefix: str = "", **outputs) -> None:
  folder = HERE / case
  folder.mkdir(parents=True, exist_ok=True)
  arrays = flax.traverse_util.flatten_dict(variables["params"], sep="/")
  np.savez(folder / "model.npz", **{prefix + name: array for name, array in arrays.items()})
  np.savez(folder / "outputs.npz", **{name: np.asarray(array) for name, array in outputs.items()})
  print(case, sum(path.stat().st_size for path in folder.iterdir()), "bytes")


def main() -> None:
  print("jax", jax.__version__, "flax", flax.__version__)
  for pool in ("tok", "gap"):
    module = vit.Model(num_classes=5, pool_type=pool, **IMAGE)
    variables = randomised(module, IMAGES)
    _, out = module.apply(variables, IMAGES)
    save(f"big_vision_{pool}", variables, images=IMAGES, pooled=out["head_input"], tokens=out["encoded"][:, -16:])
  module = two_towers.Model(
    image=dict(pool_type="map", **IMAGE),
    text=dict(vocab_size=12, **SHARED),
    out_dim=(None, 24),
    temperature_init=10.0,
    bias_init=-10.0,
  )
  variables = randomised(module, IMAGES, IDS)
  image, text, out = module.apply(variables, IMAGES, IDS)
  logits = image @ text.T * out["t"] + out["b"]
  save("big_vision_siglip", variables, "params/", images=IMAGES, ids=IDS, image=image, text=text, logits=logits)


if __name__ == "__main__":
  main()
