"""Labels of which training knows a share only: what the discovery of classes starts from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmcontrast.data import noise
from mmcontrast.errors import UserError, choose, nearest

_STREAM = noise.stream("known_labels")
SHARES = {"classes": 1.0, "examples": 1.0}
"""The options of a label and their defaults: the shares of its classes, and of their examples, that are known."""


def check(settings: Mapping[str, Any]) -> None:
  """Raises UserError unless data.known_labels says shares of labels."""
  for label, shares in settings["known_labels"].items():
    where = f"data.known_labels.{label}"
    if not isinstance(shares, Mapping):
      raise UserError(f"{where}: {shares!r} is not a table of shares, such as dict(classes=0.5, examples=0.5)")
    for key, share in shares.items():
      if key not in SHARES:
        raise UserError(f"{where}: no option {key!r}; {nearest(key, SHARES)}")
      if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise UserError(f"{where}.{key}: {share!r} is not in (0, 1]; 1 is all")


def check_names(settings: Mapping[str, Any], label_names: Mapping[str, Any]) -> None:
  """Raises UserError for a label that the data do not have."""
  for label in settings["known_labels"]:
    choose(label, label_names, "data.known_labels")


def hide(
  settings: Mapping[str, Any], label_names: Mapping[str, Any], labels: Mapping[str, np.ndarray], index: np.ndarray
) -> dict[str, np.ndarray]:
  """The labels int32 [N] of the examples `index` [N] by name, those that are not known as -1.

  Known are the first of the classes, as many as the share says (one at least), and of their examples the share, drawn
  by their index alone: whatever the seed and the epoch.
  """
  found = dict(labels)
  for label, shares in settings["known_labels"].items():
    classes = max(1, round(shares.get("classes", 1) * len(label_names[label])))
    drawn = (noise.hashed(_STREAM, index) >> np.uint64(11)) * 2.0**-53
    known = (labels[label] < classes) & (drawn < shares.get("examples", 1))
    found[label] = np.where(known, labels[label], -1).astype(labels[label].dtype)
  return found
