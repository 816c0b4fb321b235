"""What tests of every format do: run what was read, and compare it with what the other package gave."""

import pathlib
import re

import jax
import numpy as np

from mmcontrast.encoders import Encoded, build_encoder
from mmcontrast.interop.pretrained import Pretrained, model_config, variables
from mmcontrast.modalities.real_tokens import real_tokens
from mmcontrast.modalities.views import Inputs
from mmcontrast.models.model import build_model

GOLDEN = pathlib.Path(__file__).parent.parent / "golden" / "interop"


def outputs(pretrained: Pretrained, images: np.ndarray | None, ids: np.ndarray | None) -> dict[str, np.ndarray]:
  """{"image", "text": rows [B, D] of the joint space, not normalised; "logits": [images, texts]}, of what is given."""
  config = model_config(pretrained.towers, pretrained.heads, pretrained.text)
  model, tokens = build_model(config), config["data"]["token_ids"]

  @jax.jit
  def run(weights, images, ids):
    found = {}
    for kind, values in (("image", images), ("text", ids)):
      if values is not None:
        mask = real_tokens(values, tokens["pad"], tokens["eos"]) if kind == "text" else None
        encoded = model.encode(weights, kind, Inputs(values, mask))[0]
        found[kind] = model.project(weights, f"{kind}_joint", encoded)[0].pooled
    return found

  rows = {kind: np.asarray(array) for kind, array in run(variables(pretrained.arrays), images, ids).items()}
  if len(rows) == 2 and pretrained.logit_scale is not None:
    image, text = (one / np.linalg.norm(one, axis=-1, keepdims=True) for one in (rows["image"], rows["text"]))
    rows["logits"] = pretrained.logit_scale * image @ text.T + (pretrained.logit_bias or 0)
  return rows


def encode_images(pretrained: Pretrained, images: np.ndarray) -> Encoded:
  """What the image tower makes of images [B, H, W, 3], normalised."""
  tower = build_encoder(pretrained.towers["image"])
  params = variables(pretrained.arrays)["params"]["towers"]["image"]
  return jax.jit(lambda params, x: tower.apply({"params": params}, x, train=False))(params, images)


def encode_texts(pretrained: Pretrained, ids: np.ndarray, mask: np.ndarray) -> Encoded:
  """What the text tower makes of ids [B, L], of which `mask` [B, L] says the real ones."""
  tower = build_encoder(pretrained.towers["text"])
  params = variables(pretrained.arrays)["params"]["towers"]["text"]
  return jax.jit(lambda params, *x: tower.apply({"params": params}, *x, train=False))(params, ids, mask)


def assert_same_arrays(found: Pretrained, expected: Pretrained) -> None:
  """The same paths, shapes and bits."""
  assert found.arrays.keys() == expected.arrays.keys()
  for path, array in expected.arrays.items():
    assert found.arrays[path].shape == array.shape and found.arrays[path].tobytes() == array.tobytes(), path


def assert_outputs(pretrained: Pretrained, file: pathlib.Path) -> None:
  """`pretrained` gives what the other package did: embeddings to 1e-4, logits to 1e-3."""
  golden = np.load(file)
  found = outputs(pretrained, golden["images"], golden["ids"])
  for name, tolerance in (("image", 1e-4), ("text", 1e-4), ("logits", 1e-3)):
    np.testing.assert_allclose(found[name], golden[name], rtol=0, atol=tolerance, err_msg=name)
    assert golden[name].std() > 0.1  # or else the tolerance says nothing


def assert_same_file(one: pathlib.Path, other: pathlib.Path, without: str = "") -> None:
  """Two files of weights have the same names, shapes and bits; names of `one` that fit `without` are left out."""
  from safetensors.numpy import load_file

  a, b = load_file(one), load_file(other)
  a = {name: array for name, array in a.items() if not re.fullmatch(without, name)}
  assert a.keys() == b.keys()
  for name, array in a.items():
    assert array.shape == b[name].shape and array.dtype == b[name].dtype and array.tobytes() == b[name].tobytes(), name
