"""Which rows of a dataset are of a split: by {split} in its path, or by shares of its ids."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mmcontrast.data import noise
from mmcontrast.errors import UserError, choose

_STREAM = 0x51717  # keeps these hashes apart from those of other uses


def fill_path(path: str, split: str, shares: Mapping[str, float], where: str) -> str:
  """`path` with `split` in the place of {split}; "all" matches every split there is.

  Args:
    shares: split -> its share of the examples, of a path without {split}.
    where: the source, for messages.
  Raises UserError when there is no such split.
  """
  if "{split}" in path:
    if shares:
      raise UserError(f"{where}: data.source.splits: the path has {{split}} already; leave one of them out")
    return path.replace("{split}", "*" if split == "all" else split)
  if not isinstance(shares, Mapping) or not all(isinstance(share, int | float) and share > 0
                                                for share in shares.values()):  # fmt: skip
    raise UserError(f"{where}: data.source.splits: {shares!r}; give shares such as dict(train=0.9, validation=0.1)")
  if sum(shares.values()) > 1 + 1e-6:
    raise UserError(f"{where}: data.source.splits: the shares sum to {sum(shares.values()):g}, more than 1")
  if not shares and split not in ("train", "all"):
    raise UserError(f"{where}: data.split: it has no split {split!r}, only 'train' and 'all', the whole; cut it "
                    "with data.source.splits=dict(train=0.9, validation=0.1), or put {split} in the path")  # fmt: skip
  if shares:
    choose(split, (*shares, "all"), f"{where}: data.split")
  return path


def chosen(ids: np.ndarray, split: str, shares: Mapping[str, float], where: str) -> np.ndarray:
  """The rows of `split`: int64, ascending. Rows with one id are of one split, whatever rows are added.

  Args:
    ids: int [N].
    shares: as in `fill_path`; empty: all rows.
  Raises UserError when it is none.
  """
  rows = np.arange(len(ids))
  if shares and split != "all":
    place = (noise.hashed(ids, _STREAM) >> np.uint64(11)) * 2.0**-53
    # By name: a config that comes back from a checkpoint has lost the order it was written in.
    low = sum(share for name, share in shares.items() if name < split)
    rows = np.flatnonzero((low <= place) & (place < low + shares[split]))
  if not len(rows):
    raise UserError(f"{where}: split {split!r} has none of its {len(ids)} rows"
                    + ("; give it a larger share in data.source.splits" if len(ids) else ""))  # fmt: skip
  return rows
