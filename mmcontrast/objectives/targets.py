"""Targets: which pairs of a row and a column are positive, and by how much (target.py says what one is)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from mmcontrast.errors import UserError, choose
from mmcontrast.objectives.mixing import Mix, draw_mix
from mmcontrast.objectives.score import normalize, products, widen
from mmcontrast.objectives.side import Side, same
from mmcontrast.objectives.target import Target
from mmcontrast.optimization.schedules import extremes
from mmcontrast.registry import build


@dataclass(frozen=True)
class Identity(Target):
  """An example and itself: CLIP, SimCLR, MoCo."""

  kind: ClassVar[str] = "itself"

  def weights(self, axis: str, rows: Side, columns: Side) -> jax.Array:
    return same(rows.position, columns.position).astype(jnp.float32)


@dataclass(frozen=True)
class SameId(Target):
  """Examples of one concept ("id"): several captions or drawings of it are all positives."""

  kind: ClassVar[str] = "set"
  needs: ClassVar[tuple[str, ...]] = ("id",)

  def facts(self, facts: Mapping[str, Any]) -> dict[str, jax.Array]:
    return {"id": facts["id"]}

  def weights(self, axis: str, rows: Side, columns: Side) -> jax.Array:
    return (same(rows.facts["id"], columns.facts["id"]) | same(rows.position, columns.position)).astype(jnp.float32)


@dataclass(frozen=True)
class SameLabel(Target):
  """Examples of one class: SupCon (Khosla et al. 2020). Negative labels are of no class.

  labelled_only: whether examples of no class take no part, instead of being negatives and their own positives.
  """

  label: str = ""
  labelled_only: bool = False
  kind: ClassVar[str] = "set"
  needs: ClassVar[tuple[str, ...]] = ("labels",)
  required: ClassVar[str] = "label"

  @property
  def labels_read(self) -> tuple[str, ...]:
    return (self.label,)

  def facts(self, facts: Mapping[str, Any]) -> dict[str, jax.Array]:
    return {"label": facts["labels"][self.label]}

  def known(self, facts: Mapping[str, Any]) -> jax.Array | None:
    return facts["labels"][self.label] >= 0 if self.labelled_only else None

  def weights(self, axis: str, rows: Side, columns: Side) -> jax.Array:
    label = rows.facts["label"]
    match = same(label, columns.facts["label"]) & (label[:, None] >= 0)
    return (match | same(rows.position, columns.position)).astype(jnp.float32)


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

  @property
  def labels_read(self) -> tuple[str, ...]:
    return tuple(self.labels)

  def facts(self, facts: Mapping[str, Any]) -> dict[str, jax.Array]:
    return {"labels": jnp.stack([facts["labels"][name] for name in self.labels], -1)}

  def weights(self, axis: str, rows: Side, columns: Side) -> jax.Array:
    weights = same(rows.position, columns.position).astype(jnp.float32)
    for level, weight in enumerate(self.labels.values()):
      row, column = rows.facts["labels"][:, None, level], columns.facts["labels"][None, :, level]
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

  @property
  def bounded(self) -> bool:
    """A count of shared tags has no bound."""
    return not (self.weighted and self.overlap == "count")

  def facts(self, facts: Mapping[str, Any]) -> dict[str, jax.Array]:
    return {"tags": facts["tags"]}

  def weights(self, axis: str, rows: Side, columns: Side) -> jax.Array:
    a, b = rows.facts["tags"].astype(jnp.float32), columns.facts["tags"].astype(jnp.float32)
    shared = products(a, b)
    if self.overlap == "jaccard":
      union = jnp.sum(a, 1)[:, None] + jnp.sum(b, 1)[None, :] - shared
      shared = shared / jnp.maximum(union, 1.0)
    itself = same(rows.position, columns.position)
    positive = (shared > (0.0 if self.overlap == "any" else self.threshold)) | itself
    weights = jnp.where(itself & (shared == 0), 1.0, shared) if self.weighted else jnp.ones_like(shared)
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

  def features(self, axis: str) -> tuple[str, ...]:
    return (self.of,)

  def prepare(self, x: jax.Array) -> jax.Array:
    return normalize(x)

  def weights(self, axis: str, rows: Side, columns: Side) -> jax.Array:
    (row,), (column,) = rows.facts["features"], columns.facts["features"]
    return (products(row, column) + 1.0) / 2.0


@dataclass(frozen=True)
class Teacher(Target):
  """A teacher's softmax, mixed with identity: `share * softmax(teacher) + (1 - share) * identity`.

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
    for name, values in (("key", self.keys), ("temperature", self.temperatures)):
      if len(values) != count and (name, self.key) != ("key", None):
        raise UserError(f"{name}: {len(values)} for {count} teachers; give one for each query")
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
    of_all = self.temperature is None or isinstance(self.temperature, (int, float))
    return (self.temperature,) * len(self.queries) if of_all else self.temperature

  @property
  def embeddings(self) -> tuple[str, ...]:
    return (*self.queries, *self.keys)

  def prepare(self, x: jax.Array) -> jax.Array:
    return normalize(x) if self.normalized else widen(x)

  @property
  def knows_every_column(self) -> bool:
    """Without keys of its own it compares those of the term, queued ones too."""
    return self.key is None

  @property
  def schedules(self) -> dict[str, Any]:
    return {} if isinstance(self.share, (int, float)) else {"share": self.share}

  def features(self, axis: str) -> tuple[str, ...]:
    return self.queries if axis == "row" else self.keys

  def teacher_scales(self, scale: Any) -> list[Any]:
    return [scale if t is None else 1.0 / t for t in self.temperatures]

  def logits(self, rows: Side, columns: Side) -> list[jax.Array]:
    keys = columns.facts.get("features") or [jax.lax.stop_gradient(columns.x)]
    return [products(query, key) for query, key in zip(rows.facts["features"], keys)]

  def weights(self, axis: str, rows: Side, columns: Side) -> jax.Array:
    anchors, across = (rows, 1) if axis == "row" else (columns, 0)
    facts = {name: anchors.facts[name] for name in ("teacher_weight", "teacher_lse")}
    facts = jax.tree.map(lambda x: jnp.expand_dims(x, across), facts)
    soft = [jnp.exp(logits - lse) for logits, lse in zip(self.logits(rows, columns), facts["teacher_lse"])]
    weight = facts["teacher_weight"]
    return weight * (sum(soft) / len(soft)) + (1.0 - weight) * same(rows.position, columns.position)


@dataclass(frozen=True)
class Mixed(Target):
  """Queries mixed with those of a partner in the batch: the keys of both are positives (M3CoL, arXiv:2409.17777).

  The query becomes `w * x + (1 - w) * x[partner]` before its score, and its target is `w` on the key of its example and
  `1 - w` on its partner's, or 1 where they are the same one.

  alpha: w is drawn from Beta(alpha, alpha).
  probability: of an example's being mixed at all.
  stream: terms with the same number draw the same partners and weights.
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

  def mix(self, facts: Mapping[str, Any]) -> Mix:
    """Drawn, or facts["mix"] where that is known: (partner [N], weight [N])."""
    if "mix" in facts:
      return Mix(*facts["mix"])
    return draw_mix(facts["seed"], facts.get("valid"), self.alpha, self.probability, self.stream)

  def facts(self, facts: Mapping[str, Any]) -> dict[str, jax.Array]:
    return facts["mix"]._asdict()

  def weights(self, axis: str, rows: Side, columns: Side) -> jax.Array:
    weight = rows.facts["weight"][:, None]
    return weight * same(rows.position, columns.position) + (1.0 - weight) * same(
      rows.facts["partner"], columns.position
    )

  def check(self, term: Any, where: str) -> None:
    if term.on_both_sides:
      raise UserError(
        f"{where}.target: 'mixed' mixes the queries, and keys that are queries too would not be; "
        f"name other keys than {list(term.on_both_sides)}"
      )


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
