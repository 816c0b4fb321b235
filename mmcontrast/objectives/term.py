"""What every kind of term is: the contract between an objective and those who train, check, describe or export it.

A kind is a class like those in pairwise.py, regularizers.py and module_term.py, and a line in parse.py. Whoever holds
terms asks them what follows, and never of what kind they are.
"""

from __future__ import annotations

import abc
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import jax

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.objectives.comparison import Comparison, LossMatrix

Parameters = Mapping[str, Mapping[str, Any]]
"""Term -> what it has learned."""


class Memory(NamedTuple):
  """What a term remembers from step to step; none of it is differentiated.

  Attributes:
    queue: of the embedding that it is `queued` (stores.queue), shared by terms; None without.
    rows: its `table`'s rows [N] for the examples of the batch.
    state: its own arrays, as `init` made them and `loss` returned them since; {} without.
  """

  queue: Mapping[str, Any] | None = None
  rows: Mapping[str, jax.Array] = MappingProxyType({})
  state: Mapping[str, Any] = MappingProxyType({})


class Now(NamedTuple):
  """The step at which a loss is taken.

  Attributes:
    step: steps done, int32 []; 0 where nothing trains.
    scheduled: the values now of the term's `schedules`.
    matrix: options of `global_matrix.reduce_tiles`: mesh, impl, size, precision.
  """

  step: Any
  scheduled: Mapping[str, Any]
  matrix: Mapping[str, Any]


class Outcome(NamedTuple):
  """What a term's loss is: a scalar, its metrics by name, and what it remembers now (`Memory.rows`, `.state`)."""

  loss: jax.Array
  metrics: Mapping[str, Any] = MappingProxyType({})
  rows: Mapping[str, jax.Array] = MappingProxyType({})
  state: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Run:
  """The rest of a run, which terms are checked against.

  Attributes:
    heads: head -> modality of its tower, or the name of a tower that reads others.
    batch_size: of the global batch.
    tag_count: tags that the dataset has.
    labels: the labels that it has, and the names of their classes where these are known.
    token_heads: heads that give an embedding for each token.
    weighted_heads: those of them that give a weight for each token too.
    head_dims: head -> length of its vectors, of the heads where it is known.
    made: head -> the fields of `Encoded` that it fills; of a head that is not in it, token_heads and weighted_heads
      say.
    towers: tower -> the modality that it encodes.
    reads: tower -> the towers that it reads instead.
    examples: how many the dataset has; None where that is not known.
    facts: set of views -> what batches say of its views, by config.data.facts.
    words: pieces of the tokenizer; None without texts.
    views: set of views -> how many.
    token_ids: "pad", "bos" and "eos" of texts, -1 where they have none.
  """

  heads: Mapping[str, str]
  batch_size: int
  tag_count: int = 0
  labels: Collection[str] = ()
  token_heads: Collection[str] = ()
  weighted_heads: Collection[str] = ()
  head_dims: Mapping[str, int] = field(default_factory=dict)
  examples: int | None = None
  made: Mapping[str, Collection[str]] = field(default_factory=dict)
  towers: Mapping[str, str] = field(default_factory=dict)
  reads: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
  facts: Mapping[str, Collection[str]] = field(default_factory=dict)
  words: int | None = None
  token_ids: Mapping[str, int] = field(default_factory=dict)
  views: Mapping[str, int] = field(default_factory=dict)

  def fields(self, head: str) -> frozenset[str]:
    """The fields of `Encoded` that a head fills."""
    if head in self.made:
      return frozenset(self.made[head])
    weights = {"weights"} if head in self.weighted_heads else set()
    return frozenset({"tokens", "mask"} | weights if head in self.token_heads else {"pooled"})


class Term(abc.ABC):
  """One weighted entry of the objective, over the global batch; what a kind does not have it leaves as it is here.

  Attributes:
    name: its key in `config.objective`.
    weight: a number or a schedule.
    embeddings: paths of all that its loss is given, such as "image[0]/image_joint".
    reads: those without which an example is of no use to it.
    compared: those whose vectors it is about: all but what its target alone reads.
    queued: the embedding whose queue it also sees, of `queue_length` keys.
    table: what it remembers of each example: name -> the value of one that was not seen yet.
    writes_table: whether its loss writes the table; else an epoch hook does.
    widths: at how many of the first numbers of its vectors it trains them (matryoshka.py); (): at all only.
  """

  name: str
  weight: Any
  queued: ClassVar[str | None] = None
  queue_length: ClassVar[int] = 0
  writes_table: ClassVar[bool] = True
  widths: ClassVar[tuple[int, ...]] = ()

  @property
  @abc.abstractmethod
  def embeddings(self) -> tuple[str, ...]:
    """See the class."""

  @property
  def reads(self) -> tuple[str, ...]:
    return self.embeddings

  @property
  def compared(self) -> tuple[str, ...]:
    return self.embeddings

  @property
  def table(self) -> Mapping[str, float]:
    return {}

  @abc.abstractmethod
  def loss(
    self, nodes: Mapping[str, Encoded], parameters: Parameters, memory: Memory, facts: Mapping[str, Any], now: Now
  ) -> Outcome:
    """The loss over the global batch, unweighted.

    Plain sums over the batch are sums over all devices: gradients are taken outside of any shard_map.

    Args:
      nodes: of `embeddings`.
      parameters: of all terms, as one may use another's.
      facts: of the batch: "valid", "present", "id", "tags", "labels", "seed", "weight" (terms.evaluate), and of views
        "views": {"image[0]": {"box": [N, 4]}}.
    """

  def check(self, run: Run) -> None:  # noqa: B027 (most kinds can do without)
    """Raises UserError where the run does not give what the term needs, before anything compiles."""

  @property
  def wants(self) -> Mapping[str, tuple[str, ...]]:
    """Fields of `Encoded` that an embedding must have and that only its shapes tell (`Encoded.fields`): path -> names,
    such as "grid" or "losses/balance"."""
    return {}

  @property
  def schedules(self) -> Mapping[str, tuple[Any, str]]:
    """Its numbers that may follow a schedule, weight aside: name -> (schedule, where it is configured)."""
    return {}

  @property
  def spaces(self) -> tuple[str, ...]:
    """The embeddings whose shapes `init` must know."""
    return ()

  def init(self, key: jax.Array | None, shapes: Mapping[str, Encoded]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(what it learns, its state) before the first step. `key` is for those who draw at random."""
    return {}, {}

  def new_keys(self, nodes: Mapping[str, Encoded]) -> jax.Array:
    """What goes into the queue of `queued`: [N, D], without gradient."""
    raise NotImplementedError

  def after_step(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """What it has learned, after the optimizer's step: where it must stay within bounds, moved back."""
    return parameters

  def after_cut(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Its state, cut to narrower embeddings (matryoshka.py): where it must stay within bounds, moved back."""
    return state

  @property
  def compares(self) -> Comparison | None:
    """What it compares, and by which score; None of what compares nothing."""
    return None

  def scale(self, parameters: Parameters, scheduled: Mapping[str, Any]) -> Any:
    """One over the temperature of its scores now, of what all terms have learned and of what it schedules; 1 where it
    has none. Not of a term that `scales_by_batch`."""
    return 1.0

  @property
  def scales_by_batch(self) -> bool:
    """Whether its temperature is a function of the batch's scores, and so unknown before its loss."""
    return False

  def logit_scale(self, parameters: Parameters) -> tuple[float, float | None] | None:
    """(scale, bias or None) of its logits, from numbers; None where it has none, or a schedule or the batch says
    them."""
    return None

  def matrices(self, nodes: Mapping[str, Encoded], size: int) -> list[LossMatrix]:
    """The matrices that its loss goes over, from the shapes of `embeddings` and of the global batch."""
    return []
