"""A run that comes apart: what is saved of it, and the way back that is named."""

import contextlib

import jax.numpy as jnp
import numpy as np
import pytest
from test_checkpoint import CONFIG, OPTIONS, state_of

from mmcontrast.errors import UserError
from mmcontrast.runs.checkpoint import Checkpoints
from mmcontrast.training.divergence import Diverged, check_state, way_back


def save(folder, weight):
  state = state_of(3).replace(params={"kernel": jnp.full((2, 2), weight)})
  with contextlib.closing(Checkpoints(folder, OPTIONS)) as checkpoints:
    checkpoints.save(state, CONFIG)


@pytest.mark.parametrize(
  "weight, words",
  [
    (1e38, r"step 3: the weights have grown to 1e\+38, and are not saved"),
    (np.nan, "weights are not finite"),
    (-1e20, "have grown to 1e"),
    (np.inf, "weights are not finite"),
  ],
)
def test_weights_that_nothing_goes_on_from_are_no_checkpoint(weight, words):
  check_state(state_of(3))
  for part in ("params", "batch_stats"):
    with pytest.raises(Diverged, match=words) as error:
      check_state(state_of(3).replace(**{part: {"kernel": jnp.array([0.0, weight], jnp.float32)}}))
    assert isinstance(error.value, UserError)


def test_the_way_back_can_be_taken(tmp_path):
  assert way_back(tmp_path) == (
    "no checkpoint was saved before it: lower config.optimizer.learning_rate, or the "
    "weight of that term, and run again in the same --workdir"
  )
  save(tmp_path / "sound", 0.5)
  text = way_back(tmp_path / "sound")
  assert "intact, of step 3 with weights up to 0.5" in text and "another --workdir" in text
  assert f"init={{'*': '{tmp_path / 'sound'}:*'}}" in text
  save(tmp_path / "old", 1e38)  # as checkpoints were, that nothing looked at
  assert "weights up to 1e+38, from which training cannot continue" in way_back(tmp_path / "old")
  assert "intact" not in way_back(tmp_path / "old")
