"""Targets: which pairs of a row and a column are positive, and by how much.

A target is a function of a tile. `facts` picks what it must know of each example from the batch
(or a queue); `weights` turns the facts of r rows and c columns into weights [r, c] >= 0. Facts
always include "position", the example's place in the batch (-1 in a queue): an example is a
positive of itself under every target. Targets carry no gradient.

kind says what the weights are:
  own   the example itself and nothing else
  set   0 or more: the example itself and others
  soft  any weight; a row is divided by its sum
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from mmcontrast.errors import UserError, choose
from mmcontrast.objectives.mixing import draw_mix
from mmcontrast.objectives.score import normalize, products, widen
from mmcontrast.optimization.schedules import extremes
from mmcontrast.registry import build

Facts = dict[str, jax.Array]


def same(rows: Facts, columns: Facts, fact: str = "position") -> jax.Array:
  """Bool [r, c]: where a fact of the row equals that of the column."""
  return rows[fact][:, None] == columns[fact][None, :]


@dataclass(frozen=True)
class Target(abc.ABC):
  """Which pairs are positive, and by how much; its fields are a config's options.

  Attributes:
    kind: what the weights are, as the module says.
    needs: what it reads of a batch beside embeddings: "id", "tags", "labels", "seed".
    embeddings: the embeddings it reads beside those of its term.
    required: the option that a config must give; "" for none.
  """

  kind: ClassVar[str]
  needs: ClassVar[tuple[str, ...]] = ()
  embeddings: ClassVar[tuple[str, ...]] = ()
  required: ClassVar[str] = ""

  def facts(self, info: Mapping[str, Any]) -> Facts:
    """What it must know of each example of a batch or queue: name -> [N, ...]."""
    return {}

  @abc.abstractmethod
  def weights(self, axis: str, rows: Facts, columns: Facts) -> jax.Array:
    """Weights [r, c] of a tile, for the rows as anchors (`axis` "row") or the columns ("column")."""


@dataclass(frozen=True)
class Identity(Target):
  """An example and itself: CLIP, SimCLR, MoCo."""

  kind: ClassVar[str] = "own"

  def weights(self, axis: str, rows: Facts, columns: Facts) -> jax.Array:
    return same(rows, columns).astype(jnp.float32)


@dataclass(frozen=True)
class SameId(Target):
  """Examples of one concept ("id"): several captions or drawings of it are all positives."""

  kind: ClassVar[str] = "set"
  needs: ClassVar[tuple[str, ...]] = ("id",)

  def facts(self, info: Mapping[str, Any]) -> Facts:
    return {"id": info["id"]}

  def weights(self, axis: str, rows: Facts, columns: Facts) -> jax.Array:
    return (same(rows, columns, "id") | same(rows, columns)).astype(jnp.float32)


@dataclass(frozen=True)
class SameLabel(Target):
  """Examples of one class: SupCon (Khosla et al. 2020). Negative labels are of no class."""

  label: str = ""
  kind: ClassVar[str] = "set"
  needs: ClassVar[tuple[str, ...]] = ("labels",)
  required: ClassVar[str] = "label"

  def facts(self, info: Mapping[str, Any]) -> Facts:
    return {"label": info["labels"][self.label]}

  def weights(self, axis: str, rows: Facts, columns: Facts) -> jax.Array:
    match = same(rows, columns, "label") & (rows["label"][:, None] >= 0)
    return (match | same(rows, columns)).astype(jnp.float32)


@dataclass(frozen=True)
class SharedLabels(Target):
  """Examples of one class, at several levels: SupCon weighted by a tree of labels (SPACE-2, He et al. 2022).

  labels: name of a label -> weight of two examples of its class, in (0, 1]; of several that match, the
    greatest weight counts. The example itself weighs 1. Negative labels are of no class.
  """

  labels: Any = None
  kind: ClassVar[str] = "set"
  needs: ClassVar[tuple[str, ...]] = ("labels",)
  required: ClassVar[str] = "labels"

  def __post_init__(self):
    if self.labels and not isinstance(self.labels, Mapping):
      raise UserError(f"labels: {self.labels!r} is not a table of weights, such as dict(subgroup=1.0, group=0.5)")
    for name, weight in (self.labels or {}).items():
      if not 0 < weight <= 1:
        raise UserError(f"labels.{name}: {weight} is not in (0, 1]; the example itself weighs 1")

  def facts(self, info: Mapping[str, Any]) -> Facts:
    return {"labels": jnp.stack([info["labels"][name] for name in self.labels], -1)}

  def weights(self, axis: str, rows: Facts, columns: Facts) -> jax.Array:
    weights = same(rows, columns).astype(jnp.float32)
    for level, weight in enumerate(self.labels.values()):
      row, column = rows["labels"][:, None, level], columns["labels"][None, :, level]
      weights = jnp.maximum(weights, jnp.where((row == column) & (row >= 0), weight, 0.0))
    return weights


@dataclass(frozen=True)
class SharedTags(Target):
  """Examples whose tag sets overlap by more than `threshold`: MCT's tag supervision.

  overlap: "count" of shared tags, "jaccard" (shared / union, 0 for two empty sets), or "any"
    (one shared tag is enough, whatever the threshold).
  weighted: whether a positive weighs as much as it overlaps, instead of 1; the example itself then
    weighs as its own tags do, and 1 without any.
  """

  overlap: str = "count"
  threshold: float = 0.0
  weighted: bool = False
  kind: ClassVar[str] = "set"
  needs: ClassVar[tuple[str, ...]] = ("tags",)

  def __post_init__(self):
    choose(self.overlap, ("count", "jaccard", "any"), "overlap")
    if self.weighted and self.overlap == "any":
      raise UserError("weighted: overlap 'any' has no size; use 'count' or 'jaccard'")

  def facts(self, info: Mapping[str, Any]) -> Facts:
    return {"tags": info["tags"]}

  def weights(self, axis: str, rows: Facts, columns: Facts) -> jax.Array:
    a, b = rows["tags"].astype(jnp.float32), columns["tags"].astype(jnp.float32)
    shared = products(a, b)
    if self.overlap == "jaccard":
      union = jnp.sum(a, 1)[:, None] + jnp.sum(b, 1)[None, :] - shared
      shared = shared / jnp.maximum(union, 1.0)
    own = same(rows, columns)
    positive = (shared > (0.0 if self.overlap == "any" else self.threshold)) | own
    weights = jnp.where(own & (shared == 0), 1.0, shared) if self.weighted else jnp.ones_like(shared)
    return jnp.where(positive, weights, 0.0)


@dataclass(frozen=True)
class SoftSimilarity(Target):
  """Similarity of other features, `(cos + 1) / 2`: CWCL (Srinivasa et al. 2023).

  of: the embedding whose features are compared, usually of a frozen tower.
  """

  of: str = ""
  kind: ClassVar[str] = "soft"
  required: ClassVar[str] = "of"

  @property
  def embeddings(self) -> tuple[str, ...]:
    return (self.of,)

  def prepare(self, x: jax.Array) -> jax.Array:
    return normalize(x)

  def weights(self, axis: str, rows: Facts, columns: Facts) -> jax.Array:
    return (products(rows["of"], columns["of"]) + 1.0) / 2.0


@dataclass(frozen=True)
class Teacher(Target):
  """A teacher's softmax, mixed with identity: `share * softmax(teacher) + (1 - share) * own`.

  query, key: the teacher's embeddings of rows and columns; lists of them for several teachers,
    whose softmaxes are averaged (MobileCLIP, arXiv:2311.17049). Without `key` the columns are the
    term's own, a queue included: ALBEF's momentum distillation (Li et al. 2021).
  temperature: the teacher's, or one of each; None for the term's own, without gradient.
  share: the weight of the teacher: a number or a schedule.
  normalized: whether the embeddings are L2-normalised first.

  The teachers' log-sum-exps ("teacher_lse") come from a first pass over their own logits.
  """

  query: str | tuple[str, ...] = ""
  key: str | tuple[str, ...] | None = None
  temperature: float | tuple[float | None, ...] | None = None
  share: Any = 1.0
  normalized: bool = True
  kind: ClassVar[str] = "soft"
  required: ClassVar[str] = "query"

  def __post_init__(self):
    count = len(self.queries)
    for name, found in (("key", self.keys), ("temperature", self.temperatures)):
      if len(found) != count and (name, self.key) != ("key", None):
        raise UserError(f"{name}: {len(found)} for {count} teachers; give one for each query")
    if self.key is None and count > 1:
      raise UserError(f"key: must be given for each of the {count} teachers; without it the columns are the term's own")
    if any(t is not None and not t > 0 for t in self.temperatures):
      raise UserError(f"temperature: {self.temperature} is not above 0")
    shares = extremes(self.share, "share")
    for share in shares:
      if not 0 <= share <= 1:
        raise UserError(f"share: {share} is not in [0, 1]; ALBEF uses 0.4")
    if shares == (0, 0):
      raise UserError("share: 0 leaves the teacher out; use target='identity', or a share above 0 (ALBEF: 0.4)")

  @property
  def queries(self) -> tuple[str, ...]:
    return (self.query,) if isinstance(self.query, str) else self.query

  @property
  def keys(self) -> tuple[str, ...]:
    """One for each teacher; none where the columns are the term's own."""
    return () if self.key is None else (self.key,) if isinstance(self.key, str) else self.key

  @property
  def temperatures(self) -> tuple[float | None, ...]:
    one = self.temperature is None or isinstance(self.temperature, (int, float))
    return (self.temperature,) * len(self.queries) if one else self.temperature

  @property
  def embeddings(self) -> tuple[str, ...]:
    return (*self.queries, *self.keys)

  def prepare(self, x: jax.Array) -> jax.Array:
    return normalize(x) if self.normalized else widen(x)

  def logits(self, rows: Facts, columns: Facts) -> list[jax.Array]:
    """Of each teacher."""
    keys = columns["teacher"] if "teacher" in columns else [jax.lax.stop_gradient(columns["x"])]
    return [products(query, key) for query, key in zip(rows["teacher"], keys)]

  def weights(self, axis: str, rows: Facts, columns: Facts) -> jax.Array:
    anchors, across = (rows, 1) if axis == "row" else (columns, 0)
    share, sums = jax.tree.map(lambda x: jnp.expand_dims(x, across), (anchors["share"], anchors["teacher_lse"]))
    soft = [jnp.exp(logits - lse) for logits, lse in zip(self.logits(rows, columns), sums)]
    return share * (sum(soft) / len(soft)) + (1.0 - share) * same(rows, columns)


@dataclass(frozen=True)
class Mixed(Target):
  """Queries mixed with those of a partner in the batch: both own keys are positives (M3CoL, arXiv:2409.17777).

  The query becomes `share * x + (1 - share) * x[partner]` before its score, and its target is
  `share` on its own key and `1 - share` on its partner's, or 1 where they are the same one.

  alpha: shares are drawn from Beta(alpha, alpha).
  probability: of an example's being mixed at all.
  stream: terms with the same number draw the same partners and shares.
  """

  alpha: float = 0.15
  probability: float = 0.5
  stream: int = 0
  kind: ClassVar[str] = "soft"
  needs: ClassVar[tuple[str, ...]] = ("seed",)

  def __post_init__(self):
    if not self.alpha > 0:
      raise UserError(f"alpha: {self.alpha} is not above 0; M3CoL uses 0.15")
    if not 0 <= self.probability <= 1:
      raise UserError(f"probability: {self.probability} is not in [0, 1]; M3CoL uses 0.5")
    if self.probability == 0:
      raise UserError("probability: 0 mixes nothing; use target='identity', or a probability above 0 (M3CoL: 0.5)")

  def draw(self, info: Mapping[str, Any]) -> tuple[jax.Array, jax.Array]:
    """(partner [N], own share [N]) of the batch, or those of info["mix"]."""
    if "mix" in info:
      return info["mix"]
    return draw_mix(info["seed"], info.get("valid"), self.alpha, self.probability, self.stream)

  def facts(self, info: Mapping[str, Any]) -> Facts:
    partner, share = self.draw(info)
    return {"partner": partner, "share": share}

  def weights(self, axis: str, rows: Facts, columns: Facts) -> jax.Array:
    share = rows["share"][:, None]
    partners = rows["partner"][:, None] == columns["position"][None, :]
    return share * same(rows, columns) + (1.0 - share) * partners


TARGETS: dict[str, type[Target]] = {
  "identity": Identity,
  "same_id": SameId,
  "same_label": SameLabel,
  "shared_labels": SharedLabels,
  "shared_tags": SharedTags,
  "soft_similarity": SoftSimilarity,
  "teacher": Teacher,
  "mixed": Mixed,
}


_EXAMPLES = {
  "label": "the name of a label of the dataset",
  "labels": "names of labels of the dataset and their weights, such as dict(subgroup=1.0, group=0.5)",
  "of": "the path of an embedding, such as 'image[0]/frozen'",
  "query": "the path of the teacher's row embedding, such as 'image[0]/joint@momentum'",
}


def build_target(config: str | Mapping[str, Any], where: str) -> Target:
  """Makes a target from a name or {"name": ..., options}; raises UserError naming `where`."""
  target = build(TARGETS, config, where)
  if target.required and not getattr(target, target.required):
    raise UserError(f"{where}.{target.required}: must be given; {_EXAMPLES[target.required]}")
  return target
