"""A checkpoint that was written before terms were kinds still loads, and its run goes on where it was."""

import contextlib
import json
import pathlib
import shutil
import sys
import types

import jax
import numpy as np
import pytest
from tiny import CAPTIONS, SIZE, tiny_batch, tiny_spec

from mmcontrast.errors import UserError
from mmcontrast.folders import at
from mmcontrast.inference import Inference
from mmcontrast.models.model import build_model
from mmcontrast.parallel.sharding import put_batch
from mmcontrast.runs.checkpoint import Checkpoints, load_run
from mmcontrast.training.program import make_plans
from mmcontrast.training.resume import check_workdir
from mmcontrast.training.starting_state import restored_state

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
  """As `train` goes on: the run is the same one, though a config has more keys now; queues, tables, momentum branch
  and optimizer are as they were, and the loss of every term is."""
  from make_checkpoint import config

  folder = at(run, "--workdir")
  plans = make_plans(config(), lambda run: tiny_spec(), jax.devices()[:1])
  assert check_workdir(folder, plans, {"": folder}) == ({"": 2}, [])
  (plan,) = plans.values()
  with contextlib.closing(Checkpoints(folder, plan.config["checkpoint"])) as checkpoints:
    state = restored_state(plan, checkpoints, data_changed=False)
  assert int(state.step) == 2 and state.queues and state.tables and not state.terms
  metrics = plan.program.step(state, put_batch(tiny_batch(seed=2), plan.mesh))[1]
  assert set(EXPECTED["metrics"]) <= set(metrics)
  for name, value in EXPECTED["metrics"].items():
    np.testing.assert_allclose(metrics[name], value, rtol=2e-4, atol=2e-5, err_msg=name)


def test_another_run_is_still_refused(run):
  from make_checkpoint import config

  other = config()
  other["objective"]["uniform"]["weight"] = 0.2
  plans = make_plans(other, lambda run: tiny_spec(), jax.devices()[:1])
  with pytest.raises(UserError, match=r"objective\.uniform\.weight"):
    check_workdir(at(run, "--workdir"), plans, {"": at(run, "--workdir")})


def test_it_is_evaluated_and_embedded(run):
  """What `evaluate`, `embed` and `search` do with it: its config has none of the keys that came later."""
  config, variables, step = load_run(run)
  evaluation = {**config["evaluation"], "image": "image_joint", "text": "text_joint"}
  tokenizer = types.SimpleNamespace(encode=lambda texts, length: np.array([[1, 3 + len(t), 2, 0, 0, 0] for t in texts]))
  model = build_model(config, CAPTIONS)
  found = Inference({**config, "evaluation": evaluation}, model, variables, tokenizer, step)
  images = np.random.default_rng(0).integers(0, 255, (2, SIZE, SIZE, 3)).astype(np.uint8)
  for rows in (found.encode_image(images), found.encode_text(["a", "bcd"])):
    assert rows.shape == (2, 8)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
  by_tokens = {**config["evaluation"], "image": "image_linear", "text": "text_linear"}
  found = Inference({**config, "evaluation": by_tokens}, model, variables, tokenizer, step)
  assert found.compare("text_to_image", found.embed("text", ["a"]), found.embed("image", images)).shape == (1, 2)
