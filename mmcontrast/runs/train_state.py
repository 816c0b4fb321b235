"""What a run carries from step to step, and a checkpoint keeps."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax


class TrainState(flax.struct.PyTreeNode):
  """Everything a run carries from step to step; the checkpoint is this and the config.

  Attributes:
    step: int32 [], optimizer steps done; also the position in the data.
    params: {"towers", "heads", "terms"}.
    batch_stats: {"towers", "heads"} of the online branch.
    opt_state: optax state.
    momentum: {"params", "batch_stats"} of the momentum branch, or None.
    queues: embedding name -> queue (keys, pointer, tags, ids).
    tables: name of a term, or of an epoch hook -> table of what it remembers of each example.
    terms: term name -> its own arrays, of those that have any (objectives.term.Memory.state).
    ema: {"params", "batch_stats"}, an average of `variables_of` the steps done, or None.
  """

  step: jax.Array
  params: Any
  batch_stats: Any
  opt_state: Any
  momentum: Any
  queues: Any
  tables: Any
  ema: Any = None
  terms: Any = flax.struct.field(default_factory=dict)
