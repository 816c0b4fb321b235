"""Entity linking by embedding: which entity a mention is of, both with text and image (M3EL-style, arXiv:2412.10440).

    score = sum of w_ab * cos(mention's a, entity's b) / sum of w_ab        a, b: "text" and "image"

over the pairs of which the mention and the entity have both parts. M3EL's are three networks on features of CLIP
that are trained on mentions; here the four cosines of a joint space stand for them, and nothing is trained. An
entity is all examples of an id, each part the mean of its unit vectors; a mention is an example of a tested set, and is
linked to the entity of its id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mmcontrast.errors import UserError, choose
from mmcontrast.evaluation.embed import cosines, row_chunks, unit
from mmcontrast.evaluation.embedded_set import EmbeddedSet
from mmcontrast.evaluation.retrieval import ROUNDING

WHERE = "entity_linking"
PARTS = ("text", "image")
HITS_AT = (1, 3, 5)
METRICS = (*(f"hits@{k}" for k in HITS_AT), "mrr", "queries", "candidates")


class Parts(NamedTuple):
  """N mentions or entities: of each part unit rows [N, D], zeros where one has none, and the id of each, int [N]."""

  rows: Mapping[str, np.ndarray]
  ids: np.ndarray


def scores(mentions: Parts, entities: Parts, weights: Mapping[str, float]) -> np.ndarray:
  """float [M, E]; -1, as of what is nothing alike, where a mention and an entity have no pair of parts.

  Args:
    weights: of the pairs, "text_text", "text_image" (the mention's text and the entity's image), ...
  """
  total = np.zeros((len(mentions.ids), len(entities.ids)))
  count = np.zeros_like(total)
  for pair, weight in weights.items():
    one, other = (part.rows[name] for part, name in zip((mentions, entities), pair.split("_")))
    total += weight * (one @ other.T)
    count += weight * np.outer(one.any(1), other.any(1))
  return np.where(count > 0, total / np.where(count > 0, count, 1), -1.0)


def grouped(parts: Parts) -> Parts:
  """One of each id: of each part the mean of its unit rows."""
  ids, of = np.unique(parts.ids, return_inverse=True)
  rows = {}
  for name, each in parts.rows.items():
    total = np.zeros((len(ids), each.shape[1]), np.float32)
    np.add.at(total, of, each)
    rows[name] = unit(total)
  return Parts(rows, ids)


def ranks(mentions: Parts, entities: Parts, weights: Mapping[str, float]) -> np.ndarray:
  """int [A]: of mentions whose id is an entity's, the rank of that entity; ties, within rounding, count against it."""
  which = np.flatnonzero(np.isin(mentions.ids, entities.ids))
  place = np.searchsorted(entities.ids, mentions.ids[which])
  out = np.empty(len(which), np.int64)
  for part in row_chunks(len(which), len(entities.ids)):
    asked = which[part]
    of = scores(Parts({k: v[asked] for k, v in mentions.rows.items()}, mentions.ids[asked]), entities, weights)
    own = np.take_along_axis(of, place[part][:, None], 1)
    out[part] = np.sum(of >= own - ROUNDING, axis=1)
  return out


def evaluate(
  tests: Sequence[EmbeddedSet],
  bank: Sequence[EmbeddedSet],
  *,
  mention: str | Sequence[str] = PARTS,
  weights: Mapping[str, float] | None = None,
) -> dict[str, dict[str, float]]:
  """How often the entity of a mention is found: "entity_linking/hits@1", "entity_linking/mrr", see METRICS.

  The entities are the examples of evaluation.train_sets, of all splits, or of the sets that the run trains on.

  Args:
    mention: which parts of a mention are looked at, "text", "image" or both.
    weights: of the pairs of parts, such as dict(text_text=1.0, image_text=0.5); None: 1 each.
  Raises UserError for a run that compares no images with texts by single vectors, another part or pair, and a set none
  of whose ids is an entity's.
  """
  parts = [mention] if isinstance(mention, str) else list(mention)
  for part in parts:
    choose(part, PARTS, f"{WHERE}.mention")
  pairs = {f"{one}_{other}": 1.0 for one in parts for other in PARTS}
  given = pairs if not weights else dict(weights)
  for pair, weight in given.items():
    choose(pair, pairs, f"{WHERE}.weights")
    if not isinstance(weight, int | float) or weight < 0:
      raise UserError(f"{WHERE}.weights.{pair}: {weight!r}; give 0 or more")
  if not any(given.values()):
    raise UserError(f"{WHERE}.weights: all are 0; give one above")
  entities = grouped(_joined([_parts_of(one) for one in bank]))
  out = {}
  for test in tests:
    rank = ranks(_parts_of(test), entities, given)
    if not len(rank):
      raise UserError(f"{WHERE}: no id of {test.name!r} is one of {', '.join(one.name for one in bank)}, the entities")
    numbers = [*(np.mean(rank <= k) for k in HITS_AT), np.mean(1 / rank), len(rank), len(entities.ids)]
    out[test.name] = {f"{WHERE}/{name}": float(value) for name, value in zip(METRICS, numbers)}
  return out


def _parts_of(one: EmbeddedSet) -> Parts:
  """The first text and the first image of each example of a set."""
  if one.compare is not cosines or (one.space.joint is not None and "text" not in one.space.joint.get("image", ())):
    raise UserError(
      f"{WHERE}: needs a run with two heads of single vectors, of images and of texts; leave it out of "
      "config.evaluation.evaluators"
    )
  rows, count = {}, len(one.data.example_id)
  for part in PARTS:
    view = one.data.views.get(part)
    made = unit(one.embed(part, view.values)) if view is not None and len(view.values) else np.zeros((1, 1), np.float32)
    places = view.index[0] if view is not None and len(view.index) else np.full(count, -1)
    rows[part] = np.where(places[:, None] >= 0, made[places], 0).astype(np.float32)
  widths = max(of.shape[1] for of in rows.values())
  rows = {part: of if of.any() else np.zeros((count, widths), np.float32) for part, of in rows.items()}
  return Parts(rows, np.asarray(one.data.example_id))


def _joined(parts: Sequence[Parts]) -> Parts:
  rows = {name: np.concatenate([one.rows[name] for one in parts]) for name in PARTS}
  return Parts(rows, np.concatenate([one.ids for one in parts]))
