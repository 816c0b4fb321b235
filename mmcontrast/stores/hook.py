"""What an epoch hook is: the contract between what is computed between epochs and who calls it, training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import numpy as np

from mmcontrast.encoders.encoded import Encoded


class Examples(NamedTuple):
  """E examples of a set, in the order of their indices; NumPy arrays, the same in every process.

  Attributes:
    nodes: path -> Encoded of arrays [E, ...], raw: not normalised.
    present: path -> bool [E]: the examples whose record could be used and that have all that the path reads.
    facts: "id" int32 [E], and "labels" {name: int32 [E]}, "tags" uint8 [E, T] where the set has them.
  """

  nodes: Mapping[str, Encoded]
  present: Mapping[str, np.ndarray]
  facts: Mapping[str, Any]


Embed = Callable[[Sequence[str]], Examples]


class Update(NamedTuple):
  """What a hook writes: term -> array of its state -> new value; term -> column of its table -> value of each example
  [E]; numbers to be shown in a line; and column of the hook's own table -> value of each example [E]."""

  terms: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
  tables: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
  shown: Mapping[str, float] = MappingProxyType({})
  own: Mapping[str, Any] = MappingProxyType({})


class Hook(Protocol):
  """What HOOKS holds: dataclasses whose fields are options.

  TAKES: the fields of `Encoded` that what it embeds must have.
  ONCE: whether it runs once, before epoch `first_epoch`, and not before every `every_epochs`-th.
  labels: those of the dataset that it reads.
  vectors: what of the state of its `term` has the width of an embedding: the beginning of the names of arrays, whose
    rows are its vectors, or of columns of its table, one for each number -> the path.
  table: what it keeps itself of each example: name -> the value before it has run. A column "group" says which
    examples make a batch: each batch of a run with such a hook is of one group (data/groups.py).
  """

  TAKES: ClassVar[tuple[str, ...]] = ("pooled",)
  ONCE: ClassVar[bool] = False
  labels: tuple[str, ...] = ()
  vectors: Mapping[str, str] = MappingProxyType({})
  table: Mapping[str, float] = MappingProxyType({})

  @property
  def embeddings(self) -> tuple[str, ...]:
    """The paths that it embeds."""

  def check(self, state: Any, examples: int, of_training: bool) -> None:
    """Raises UserError, beginning with an option, where the run has not what it needs.

    Args:
      state: shapes.
      examples: of the set.
      of_training: whether the set is that which is trained on.
    """

  def __call__(self, embed: Embed, state: Any, key: jax.Array) -> Update:
    """See the module."""
