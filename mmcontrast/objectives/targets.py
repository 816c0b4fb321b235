"""Targets: which pairs of a row and a column are positive, and by how much.

A target is a function of a tile. `facts` picks what it must know of each example from the batch
(or a queue); `weights` turns the facts of r rows and c columns into weights [r, c] >= 0. Facts
always include "position", the example's place in the batch (-1 in a queue): an example is a
positive of itself under every target. Targets carry no gradient.

kind says what the weights are:
  own   the example itself and nothing else
  set   0 or 1: the example itself and others
  soft  any weight; a row is divided by its sum
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from mmcontrast.errors import UserError, choose, nearest
from mmcontrast.objectives.scores import normalize, products, widen

Facts = dict[str, jax.Array]


def same(rows: Facts, columns: Facts, fact: str = "position") -> jax.Array:
  """Bool [r, c]: where a fact of the row equals that of the column."""
  return rows[fact][:, None] == columns[fact][None, :]


@dataclass(frozen=True)
class Identity:
  """An example and itself: CLIP, SimCLR, MoCo."""

  kind: ClassVar[str] = "own"
  needs: ClassVar[tuple[str, ...]] = ()
  embeddings: ClassVar[tuple[str, ...]] = ()
  required: ClassVar[str] = ""

  def facts(self, info: Mapping[str, Any]) -> Facts:
    return {}

  def weights(self, axis: str, rows: Facts, columns: Facts) -> jax.Array:
    return same(rows, columns).astype(jnp.float32)


@dataclass(frozen=True)
class SameId(Identity):
  """Examples of one concept ("id"): several captions or drawings of it are all positives."""

  kind: ClassVar[str] = "set"
  needs: ClassVar[tuple[str, ...]] = ("id",)

  def facts(self, info: Mapping[str, Any]) -> Facts:
    return {"id": info["id"]}

  def weights(self, axis: str, rows: Facts, columns: Facts) -> jax.Array:
    return (same(rows, columns, "id") | same(rows, columns)).astype(jnp.float32)


@dataclass(frozen=True)
class SameLabel(Identity):
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
class SharedTags(Identity):
  """Examples whose tag sets overlap by more than `threshold`: MCT's tag supervision.

  overlap: "count" of shared tags, "jaccard" (shared / union, 0 for two empty sets), or "any"
  (one shared tag is enough, whatever the threshold).
  """

  overlap: str = "count"
  threshold: float = 0.0
  kind: ClassVar[str] = "set"
  needs: ClassVar[tuple[str, ...]] = ("tags",)

  def __post_init__(self):
    choose(self.overlap, ("count", "jaccard", "any"), "overlap")

  def facts(self, info: Mapping[str, Any]) -> Facts:
    return {"tags": info["tags"]}

  def weights(self, axis: str, rows: Facts, columns: Facts) -> jax.Array:
    a, b = rows["tags"].astype(jnp.float32), columns["tags"].astype(jnp.float32)
    shared = products(a, b)
    if self.overlap == "jaccard":
      union = jnp.sum(a, 1)[:, None] + jnp.sum(b, 1)[None, :] - shared
      shared = shared / jnp.maximum(union, 1.0)
    threshold = 0.0 if self.overlap == "any" else self.threshold
    return ((shared > threshold) | same(rows, columns)).astype(jnp.float32)


@dataclass(frozen=True)
class SoftSimilarity(Identity):
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
class Teacher(Identity):
  """A teacher's softmax, mixed with identity: `share * softmax(teacher) + (1 - share) * own`.

  query, key: the teacher's embeddings of rows and columns. Without `key` the columns are the
  term's own, a queue included: ALBEF's momentum distillation (Li et al. 2021).
  temperature: the teacher's; None for the term's own, without gradient.
  share: the weight of the teacher.
  normalized: whether the embeddings are made unit length first.

  The teacher's log-sum-exp ("teacher_lse") comes from a first pass over its own logits.
  """

  query: str = ""
  key: str | None = None
  temperature: float | None = None
  share: float = 1.0
  normalized: bool = True
  kind: ClassVar[str] = "soft"
  required: ClassVar[str] = "query"

  @property
  def embeddings(self) -> tuple[str, ...]:
    return (self.query,) if self.key is None else (self.query, self.key)

  def prepare(self, x: jax.Array) -> jax.Array:
    return normalize(x) if self.normalized else widen(x)

  def logits(self, rows: Facts, columns: Facts) -> jax.Array:
    keys = columns["teacher"] if "teacher" in columns else jax.lax.stop_gradient(columns["x"])
    return products(rows["teacher"], keys)

  def weights(self, axis: str, rows: Facts, columns: Facts) -> jax.Array:
    lse = rows["teacher_lse"][:, None] if axis == "row" else columns["teacher_lse"][None, :]
    soft = self.share * jnp.exp(self.logits(rows, columns) - lse)
    return soft + (1.0 - self.share) * same(rows, columns)


Target = Identity
TARGETS: dict[str, type[Target]] = {
  "identity": Identity,
  "same_id": SameId,
  "same_label": SameLabel,
  "shared_tags": SharedTags,
  "soft_similarity": SoftSimilarity,
  "teacher": Teacher,
}


_EXAMPLES = {
  "label": "the name of a label of the dataset",
  "of": "the path of an embedding, such as 'image[0]/frozen'",
  "query": "the path of the teacher's row embedding, such as 'image[0]/joint@momentum'",
}


def build_target(config: str | Mapping[str, Any], where: str) -> Target:
  """Makes a target from a name or {"name": ..., options}; raises UserError naming `where`."""
  target = build(TARGETS, config, where)
  if target.required and not getattr(target, target.required):
    raise UserError(f"{where}.{target.required}: must be given; {_EXAMPLES[target.required]}")
  return target


def build(registry: Mapping[str, type], config: str | Mapping[str, Any], where: str) -> Any:
  """Makes one of `registry` from a name or {"name": ..., options}."""
  options = {"name": config} if isinstance(config, str) else dict(config.items())
  kind = registry[choose(options.pop("name", None), registry, where)]
  fields = [field.name for field in dataclasses.fields(kind)]
  for option in options:
    if option not in fields:
      raise UserError(f"{where}: no option {option!r}; {nearest(option, fields)}")
  try:
    return kind(**options)
  except UserError as error:
    raise UserError(f"{where}.{error}") from None
