"""Retrieval between two versions of a model: queries of the new one in the index of the old one, and the other way.

An index of an old model is dear to make again. A new model that can search it has, beside its own space, vectors in
the old one: heads "into_old", as config methods/xbt trains them (XBT, arXiv:2405.14715). Of each way, image to text and
text to image, the table is

    old_to_old   old queries, old index         what there was
    new_to_old   new queries, old index         nothing is embedded again
    old_to_new   old queries, new index         old clients, an index that is embedded again into the old space
    new_to_new   new queries, new index         all is embedded again, in the new model's own space

and, of recall@1, "update_gain": (new_to_old - old_to_old) / (new_to_new - old_to_old), how much of what a new index
would bring the new queries bring alone (Shen et al., arXiv:2003.11942, eq. 5); 0 where the new model is no better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmcontrast.errors import UserError
from mmcontrast.evaluation.embed import way_of
from mmcontrast.evaluation.embedded_set import EmbeddedSet
from mmcontrast.evaluation.retrieval import of_nodes

WHERE = "cross_version"
_HEADS = ("old", "new", "into_old")
PAIRS = {  # name -> which heads the queries have, and which the index
  "old_to_old": ("old", "old"),
  "new_to_old": ("into_old", "old"),
  "old_to_new": ("old", "into_old"),
  "new_to_new": ("new", "new"),
}


def update_gain(old: float, across: float, new: float) -> float:
  """(across - old) / (new - old), of old with old, new with old and new with new; 0 where new is not above old."""
  return (across - old) / (new - old) if new > old else 0.0


def check(options: Mapping[str, Any]) -> None:
  """Raises UserError unless the options name the heads of two modalities, the same two of each version."""
  where = f"evaluation.evaluators.{WHERE}"
  for name in _HEADS:
    heads = options.get(name) or {}
    heads = heads.to_dict() if hasattr(heads, "to_dict") else heads
    if not isinstance(heads, Mapping) or len(heads) != 2 or not all(isinstance(one, str) for one in heads.values()):
      raise UserError(
        f"{where}.{name}: give the heads of two modalities, such as dict(image='image_joint', text='text_joint')"
      )
    if set(heads) != set(options["old"].keys()):
      raise UserError(f"{where}.{name}: is of {' and '.join(heads)}, and old of {' and '.join(options['old'])}")


def node_pairs(options: Mapping[str, Any]) -> list[tuple[str, str]]:
  """The pairs of nodes that are compared, for the check of a model."""
  return [pair for ways in _ways(options).values() for pair in ways.values()]


def metric_names(options: Mapping[str, Any], metrics: Sequence[str]) -> list[str]:
  """What `evaluate` gives of a set, the metrics of retrieval being `metrics`."""
  ways = _ways(options)
  names = [f"{way}_{name}/{metric}" for way, pairs in ways.items() for name in pairs for metric in metrics]
  return names + [f"{way}_{WHERE}/update_gain" for way in ways]


def evaluate(
  tests: Sequence[EmbeddedSet],
  bank: Sequence[EmbeddedSet],
  *,
  old: Mapping[str, str] | None = None,
  new: Mapping[str, str] | None = None,
  into_old: Mapping[str, str] | None = None,
) -> dict[str, dict[str, float]]:
  """Retrieval over the whole of each set: "image_to_text_new_to_old/recall@1", ...; `bank` is not used.

  Args:
    old: modality -> head, of two modalities: the old model's space.
    new: likewise, the new model's space.
    into_old: likewise, the new model's heads in the old space.
  """
  del bank
  options = {"old": old, "new": new, "into_old": into_old}
  check(options)
  out: dict[str, dict[str, float]] = {}
  for test in tests:
    found = out[test.name] = {}
    for way, pairs in _ways(options).items():
      for name, (query, gallery) in pairs.items():
        found |= {f"{way}_{name}/{metric}": value for metric, value in of_nodes(test, query, gallery, WHERE).items()}
      recalls = [found[f"{way}_{name}/recall@1"] for name in ("old_to_old", "new_to_old", "new_to_new")]
      found[f"{way}_{WHERE}/update_gain"] = update_gain(*recalls)
  return out


def _ways(options: Mapping[str, Any]) -> dict[str, dict[str, tuple[str, str]]]:
  """ "image_to_text" -> "new_to_old" -> (the node of the queries, that of the index); and the other way."""
  one, other = options["old"].keys()
  return {
    way_of(query, gallery): {
      name: (options[mine][query], options[theirs][gallery]) for name, (mine, theirs) in PAIRS.items()
    }
    for query, gallery in ((one, other), (other, one))
  }
