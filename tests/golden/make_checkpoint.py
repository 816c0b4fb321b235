"""Writes checkpoint_format_2: a run of two steps as it was written before terms were kinds, and what its third
step gave. It is kept to be read by whatever comes later; running this again would make it one of today's.

    PYTHONPATH=. python tests/golden/make_checkpoint.py FOLDER
"""

import contextlib
import functools
import json
import pathlib
import sys

import jax
import numpy as np

from mmcontrast.parallel import sharding
from mmcontrast.runs.checkpoint import Checkpoints
from mmcontrast.training.program import make_method
from mmcontrast.training.step import init_state, train_step


def config():
  """A term of every kind there was: queue, tags, prototypes, a table, tokens with and without weights, regularizers."""
  from tiny import five_terms, tiny_config

  c = tiny_config()
  c["heads"] |= {
    f"{tower}_{kind}": dict(tower=tower, name=f"token_{kind}", dim=8)
    for tower in ("image", "text")
    for kind in ("linear", "weighted")
  }
  c["objective"] = {name: five_terms()[name] for name in ("image_tags", "image_to_text", "text_to_image")} | dict(
    classes=dict(
      query="image[0]/image_joint",
      key="image[1]/image_joint",
      prototypes=4,
      target=dict(name="same_label", label="group"),
    ),
    remembered=dict(
      query="image[0]/image_joint",
      key="text[0]/text_joint",
      criterion="compositional",
      direction="both",
      temperature=dict(init=0.1, learned=True),
    ),
    tokens=dict(query="text[0]/text_linear", key="image[0]/image_linear", score="token_max"),
    weighted=dict(query="text[0]/text_weighted", key="image[0]/image_weighted", score="token_weighted"),
    uniform=dict(regularizer="uniformity", embeddings=("image[0]/image_ssl", "image[1]/image_joint"), weight=0.1),
    align=dict(regularizer="alignment", embeddings=("image[0]/image_joint", "text[0]/text_joint"), weight=0.1),
  )
  return c


def program():
  """(method, the step jitted on one device, where the state lives)."""
  from tiny import tiny_spec

  method = make_method(config(), tiny_spec())
  mesh = sharding.make_mesh({"data": 1}, jax.devices()[:1])
  return method, jax.jit(functools.partial(train_step, method, mesh)), sharding.replicated(mesh)


def main(folder):
  from tiny import tiny_batch

  method, step, place = program()
  state = jax.jit(functools.partial(init_state, method), out_shardings=place)(tiny_batch())
  for number in range(2):
    state = step(state, tiny_batch(seed=number))[0]
  with contextlib.closing(Checkpoints(folder, config()["checkpoint"])) as checkpoints:
    checkpoints.save(state, config(), None)
  metrics = {name: float(value) for name, value in step(state, tiny_batch(seed=2))[1].items()}
  sums = {
    jax.tree_util.keystr(path, simple=True, separator="/"): float(np.abs(np.asarray(leaf, np.float64)).sum())
    for path, leaf in jax.tree_util.tree_flatten_with_path(state.params)[0]
  }
  pathlib.Path(folder, "expected.json").write_text(json.dumps({"metrics": metrics, "parameters": sums}, indent=1))


if __name__ == "__main__":
  sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
  main(pathlib.Path(sys.argv[1]))
