"""Schedules against closed forms, and the errors a config can cause."""

import jax
import numpy as np
import optax
import pytest

from mmcontrast.errors import UserError
from mmcontrast.optimization.schedules import make_schedule


def values(spec, steps, total=100, steps_per_epoch=10):
  schedule = make_schedule(spec, total, steps_per_epoch)
  return [float(schedule(step)) for step in steps]


def test_a_number_is_constant_and_float32():
  schedule = make_schedule(3, 10)
  assert schedule(7) == 3 and schedule(7).dtype == np.float32
  assert values({"name": "constant", "value": 0.5}, [0, 99]) == [0.5, 0.5]


def test_warmup_cosine_is_optax():
  ours = make_schedule({"name": "warmup_cosine", "peak": 2.0, "end": 0.1, "warmup_steps": 10}, 100)
  theirs = optax.warmup_cosine_decay_schedule(0.0, 2.0, 10, 100, 0.1)
  for step in (0, 1, 9, 10, 11, 55, 99, 100, 150):
    np.testing.assert_allclose(ours(step), theirs(step), rtol=1e-6)


def test_cosine_gives_byols_decay():
  schedule = make_schedule({"name": "cosine", "init": 0.996, "end": 1.0}, 1000)
  np.testing.assert_allclose(schedule(300), 0.996824429495, rtol=1e-7)
  assert schedule(1000) == 1


def test_cosine_may_start_at_zero():
  np.testing.assert_allclose(values({"name": "cosine", "init": 0.0, "end": 1.0}, [0, 50, 100]), [0, 0.5, 1], atol=1e-6)


def test_begin_and_length_of_a_ramp():
  spec = {"name": "linear", "init": 0.0, "end": 1.0, "begin_epochs": 2, "steps": 40}
  assert values(spec, [0, 20, 30, 60, 90]) == [0, 0, 0.25, 1, 1]


def test_warmup_constant_and_fractional_epochs():
  spec = {"name": "warmup_constant", "peak": 1.0, "warmup_epochs": 0.5}
  np.testing.assert_allclose(values(spec, [0, 1, 5, 80]), [0, 0.2, 1, 1], rtol=1e-6)


def test_traced_steps():
  schedule = make_schedule({"name": "warmup_linear", "peak": 1.0, "warmup_steps": 10}, 110)
  np.testing.assert_allclose(jax.vmap(schedule)(np.array([5, 10, 60, 110])), [0.5, 1, 0.5, 0])


@pytest.mark.parametrize(
  "spec, says",
  [
    ({"name": "warmup_cosin", "peak": 1}, "'warmup_cosine'"),
    ({"name": "cosine", "init": 1, "peek": 1}, "'peek'"),
    ({"name": "warmup_cosine", "peak": 1, "warmup_step": 1}, "'warmup_steps'"),
    ({"name": "warmup_cosine", "peak": 1, "warmup_steps": 100}, "do not fit"),
    ({"name": "warmup_cosine", "peak": 1, "warmup_steps": 1, "warmup_epochs": 1}, "not both"),
    ({"name": "warmup_cosine"}, "needs 'peak'"),
    ({"name": "cosine", "init": "big"}, "must be a number"),
    ({"name": "cosine", "init": 1, "steps": -1}, "at least 0"),
    ({"peak": 1}, "needs a name"),
    ("cosine", "a number or a mapping"),
  ],
)
def test_errors_are_one_line_that_names_the_place(spec, says):
  with pytest.raises(UserError, match=r"^optimizer\.learning_rate") as error:
    make_schedule(spec, 100, 10, "optimizer.learning_rate")
  assert says in str(error.value) and "\n" not in str(error.value)


def test_epochs_need_their_length():
  with pytest.raises(UserError, match="'warmup_steps'"):
    make_schedule({"name": "warmup_cosine", "peak": 1, "warmup_epochs": 1}, 100)
