"""Zero-shot accuracy of corrupted pictures: named corruptions of five strengths (protocols/corruptions.py)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmcontrast.errors import UserError, choose
from mmcontrast.evaluation import class_names
from mmcontrast.evaluation.embed import cosines, unit
from mmcontrast.evaluation.embedded_set import EmbeddedSet, labels_of
from mmcontrast.evaluation.protocols import names_of
from mmcontrast.evaluation.protocols.corruptions import CORRUPTIONS, STRENGTHS, USUAL, corrupted
from mmcontrast.evaluation.zero_shot import USUAL_LABEL, USUAL_TEMPLATES, class_embeddings, zero_shot
from mmcontrast.modalities import stacked

PROTOCOL = "corruptions-v1"
_AT_A_TIME = 1024  # pictures


def evaluate(
  tests: Sequence[EmbeddedSet],
  bank: Sequence[EmbeddedSet],
  *,
  label: str | Sequence[str] | None = None,
  templates: Sequence[str] = USUAL_TEMPLATES,
  names: str | class_names.Names | None = None,
  corruptions: str | Sequence[str] = USUAL,
  strengths: Sequence[int] = STRENGTHS,
) -> dict[str, dict[str, float]]:
  """Top-1 accuracy of all labelled pictures as they are (LABEL_clean), under each corruption, the mean over strengths
  (LABEL_gaussian_noise), and the mean over corruptions (LABEL_corrupted); `bank` is not used.

  Args:
    label: as of zero_shot.
    templates: as of zero_shot.
    names: as of zero_shot.
    corruptions: of CORRUPTIONS, fourteen; the nine usual ones where none are named.
    strengths: 1 to 5.
  Raises UserError as zero_shot, and for another corruption or strength.
  """
  del bank
  wanted = [choose(one, CORRUPTIONS, "robustness.corruptions") for one in names_of(corruptions)]
  for one in strengths:
    choose(str(one), map(str, STRENGTHS), "robustness.strengths")
  out: dict[str, dict[str, float]] = {test.name: {} for test in tests}
  for test in tests:
    if test.compare is not cosines or "text" not in (test.space.joint or {"image": ("text",)}).get("image", ()):
      raise UserError(
        "robustness: this run has no two heads that compare pictures with prompts by vectors; leave it out"
      )
    test.check("image", "robustness")
    things = test.data.things["image"]
    for name in labels_of(label, USUAL_LABEL, test.data.label_names):
      choose(name, test.data.label_names, f"robustness.label: labels of {test.name!r}")
      labels = test.labels(name, "robustness.label", things)
      known = np.flatnonzero(labels >= 0)
      if not len(known):
        raise UserError(f"robustness.label: no image of {test.name!r} has a {name!r}")
      called = class_names.choose(names, test.data.label_names[name], name)
      classes = class_embeddings(test.embed, called, templates)
      found = {"clean": zero_shot(test.joint("image")[known], classes, labels[known])["top1"]}
      for corruption in wanted:
        each = [_accuracy(test, known, labels[known], classes, corruption, strength) for strength in strengths]
        found[corruption] = float(np.mean(each))
      found["corrupted"] = float(np.mean([found[one] for one in wanted]))
      out[test.name] |= {f"robustness/{name}_{key}": value for key, value in found.items()}
  return out


def _accuracy(
  test: EmbeddedSet, places: np.ndarray, labels: np.ndarray, classes: np.ndarray, corruption: str, strength: int
) -> float:
  values, right = test.data.things["image"].values, []
  for start in range(0, len(places), _AT_A_TIME):
    at = places[start : start + _AT_A_TIME]
    rows = test.embed("image", stacked([corrupted(values[one], corruption, strength, int(one)) for one in at]))
    right.append(zero_shot(unit(rows), classes, labels[start : start + _AT_A_TIME])["top1"] * len(at))
  return float(np.sum(right) / len(places))
