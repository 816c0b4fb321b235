"""Multi-label tagging without training: how near a picture is to the text of each tag.

Protocol `tags_by_text-v1`: the tags of a picture are told by the cosine between it and the embedding of their names, as
M3PT matches tags (arXiv:2306.10079). Mean average precision as that of `tagging`, which trains on features; both stand
side by side.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmcontrast.errors import UserError
from mmcontrast.evaluation.embed import cosines
from mmcontrast.evaluation.embedded_set import EmbeddedSet
from mmcontrast.evaluation.tagging import mean_average_precision
from mmcontrast.evaluation.zero_shot import USUAL_TEMPLATES, class_embeddings, classified

PROTOCOL = "tags_by_text-v1"
METRICS = ("map_macro", "map_micro", "tags", "tags_left_out")


def evaluate(
  tests: Sequence[EmbeddedSet],
  bank: Sequence[EmbeddedSet],
  *,
  templates: Sequence[str] = USUAL_TEMPLATES,
  test_splits: Sequence[str] = ("validation", "test"),
) -> dict[str, dict[str, float]]:
  """mAP (fractions) of the tags of each set by the cosines of their names; `bank` is not used.

  Args:
    templates: texts with "{}" for the tag.
    test_splits: only pictures of these, as `tagging` tests; all of a set that has none of them.
  Raises UserError for a set without tags or pictures, and a run that does not compare them with texts by vectors.
  """
  del bank
  out = {}
  for test in tests:
    if test.compare is not cosines:
      raise UserError("tags_by_text: this run compares tokens and has no single vectors; leave it out")
    if not (modality := classified(test.space, list(test.data.things))):
      raise UserError("tags_by_text: this run has no two heads that compare texts with anything; leave it out")
    test.check(modality, "tags_by_text")
    things = test.data.things[modality]
    tags = test.tags("tags_by_text", things)
    names = [str(name) for name in test.data.tag_names]
    tested = np.isin(things.of_examples(np.asarray(test.data.split), ""), list(test_splits))
    tested = tested if tested.any() else np.ones(len(tags), bool)
    scores = test.joint(modality)[tested] @ class_embeddings(test.embed, names, templates).T
    found = mean_average_precision(tags[tested], scores)
    out[test.name] = {f"tags_by_text/{metric}": found[metric] for metric in METRICS}
  return out
