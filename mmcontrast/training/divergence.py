"""A run that has come apart: told before its state becomes a checkpoint, with a way back that can be taken."""

from __future__ import annotations

import contextlib
import math
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmcontrast.errors import UserError
from mmcontrast.runs.checkpoint import complete_steps, load_run
from mmcontrast.runs.train_state import TrainState

_LARGEST = 1e9  # no method has such a weight; its square leaves float32 soon after
_REMEDY = "lower config.optimizer.learning_rate, or the weight of that term"


class Diverged(UserError):
  """What of which step is no longer a number to go on from."""


@contextlib.contextmanager
def with_way_back(folder: pathlib.Path) -> Iterator[None]:
  """Within it, Diverged also says what to do, by the checkpoints that the run in `folder` has after the block."""
  try:
    yield
  except Diverged as error:
    raise UserError(f"{error}; {way_back(folder)}") from error


def check_state(state: TrainState) -> None:
  """Raises Diverged when the weights of `state` are not finite, or so large that the next losses will not be."""
  largest = float(_largest_weight((state.params, state.batch_stats)))
  if not largest < _LARGEST:
    size = f"have grown to {largest:.3g}" if math.isfinite(largest) else "are not finite"
    raise Diverged(f"step {int(state.step)}: the weights {size}, and are not saved")


def way_back(folder: pathlib.Path) -> str:
  """What to do when the loss or the weights of the run in `folder` are no longer numbers to go on from."""
  steps = complete_steps(folder / "checkpoints")
  if not steps:
    return f"no checkpoint was saved before it: {_REMEDY}, and run again in the same --workdir"
  _, variables, step = load_run(folder)
  largest = float(max((np.abs(leaf).max(initial=0) for leaf in jax.tree.leaves(variables["params"])), default=0))
  if not largest < _LARGEST:
    return (
      f"the checkpoint of step {step} has weights up to {largest:.3g}, from which training cannot continue: "
      f"{_REMEDY}, "
      "and start again in another --workdir"
    )
  return (
    f"the last checkpoint is intact, of step {step} with weights up to {largest:.3g}: {_REMEDY}, in another "
    f"--workdir, since this one keeps its config; init={{'*': '{folder}:*'}} in the config continues from those "
    "weights"
  )


@jax.jit
def _largest_weight(tree: Any) -> jax.Array:
  """The largest absolute value; NaN when one is NaN."""
  leaves = [jnp.max(jnp.abs(leaf), initial=0).astype(jnp.float32) for leaf in jax.tree.leaves(tree)]
  return jnp.max(jnp.stack([jnp.float32(0), *leaves]))
