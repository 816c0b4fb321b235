"""Numbers that are NaN or infinite, in weights and in embeddings: refused with their place."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from mmcontrast.errors import UserError


def not_finite(arrays: Mapping[str, np.ndarray]) -> str:
  """Says which of the named arrays holds NaN or infinity: "'a' holds NaN in 3 of 12 numbers"; "" where none does."""
  wrong = [(name, _count(array)) for name, array in arrays.items() if _count(array)]
  if not wrong:
    return ""
  name, count = wrong[0]
  kind = "NaN" if np.isnan(arrays[name]).any() else "infinity"
  more = f", and {len(wrong) - 1} more arrays are such" if len(wrong) > 1 else ""
  return f"{name!r} holds {kind} in {count:,} of {np.size(arrays[name]):,} numbers{more}"


def check_weights(arrays: Mapping[str, np.ndarray], where: str) -> None:
  """Raises UserError, naming the array, for a weight that is NaN or infinite. `where`: of what, for the message."""
  if found := not_finite(arrays):
    raise UserError(
      f"{where}: {found}: no embedding can be computed from it; take weights from before they diverged, "
      "or copy "
      "the file again"
    )


def check_rows(rows: np.ndarray, where: str, name: Callable[[int], str], variables: Mapping[str, np.ndarray]) -> None:
  """Raises UserError for embeddings that are NaN or infinite.

  Args:
    rows: [N, ...], one embedding each.
    where: what made them, for the message.
    name: index of a row -> what it is of, for the message.
    variables: the weights by name, looked at only to say whether the fault is theirs.
  """
  if np.isfinite(rows).all():
    return
  wrong = np.flatnonzero(~np.isfinite(rows).reshape(len(rows), -1).all(1))
  others = f", nor are {len(wrong) - 1} more of {len(rows)}" if len(wrong) > 1 else ""
  said = f"{where}: the embedding of {name(int(wrong[0]))} is not finite{others}"
  if found := not_finite(variables):
    raise UserError(f"{said}: of the weights {found}; take a checkpoint from before they diverged")
  raise UserError(
    f"{said}: no weight is NaN, but they are too large for what the towers compute in; take a checkpoint "
    "from before they diverged, or set dtype='float32' in config.towers where it is another"
  )


def _count(array: np.ndarray) -> int:
  """How many numbers of an array, of any type, are NaN or infinite."""
  array = np.asarray(array)
  return 0 if array.dtype.kind not in "fcV" else int(array.size - np.count_nonzero(np.isfinite(array)))
