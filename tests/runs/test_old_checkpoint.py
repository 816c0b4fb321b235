"""A checkpoint that was written before terms were kinds still loads, and its run goes on where it was."""

import contextlib
import functools
import json
import pathlib
import shutil
import sys

import jax
import numpy as np
import pytest
from tiny import tiny_batch

from mmcontrast.runs.checkpoint import Checkpoints, load_run
from mmcontrast.training.step import init_state

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
sys.path.append(str(GOLDEN))
EXPECTED = json.loads((GOLDEN / "checkpoint_format_2" / "expected.json").read_text())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A copy of the run's folder: whoever opens checkpoints may write there."""
  return shutil.copytree(GOLDEN / "checkpoint_format_2", tmp_path_factory.mktemp("old") / "run")


def sums(params):
  return {jax.tree_util.keystr(path, simple=True, separator="/"): float(np.abs(np.asarray(leaf, np.float64)).sum())
          for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]}  # fmt: skip


def test_it_loads(run):
  config, variables, step = load_run(run)
  assert step == 2 and set(config["objective"]) >= {"tokens", "weighted", "remembered", "uniform"}
  assert sums(variables["params"]) == EXPECTED["parameters"]


def test_its_next_step_is_the_one_it_had(run):
  """Queues, tables, momentum branch and optimizer are as they were, and the loss of every term is."""
  from make_checkpoint import config, program

  method, step, place = program()
  like = jax.eval_shape(functools.partial(init_state, method), tiny_batch())
  like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), like)
  with contextlib.closing(Checkpoints(run, config()["checkpoint"])) as checkpoints:
    state = checkpoints.restore(like)
  assert int(state.step) == 2 and state.queues and state.tables and not state.terms
  metrics = step(state, tiny_batch(seed=2))[1]
  assert set(EXPECTED["metrics"]) <= set(metrics)
  for name, value in EXPECTED["metrics"].items():
    np.testing.assert_allclose(metrics[name], value, rtol=2e-4, atol=2e-5, err_msg=name)
