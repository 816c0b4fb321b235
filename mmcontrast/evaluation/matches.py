"""Which query matches which candidate, in memory that grows with their number and not with their product."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Sequence

import numpy as np
from scipy import sparse


@dataclasses.dataclass(frozen=True)
class Matches:
  """Q queries (rows) and G candidates (columns); a row and a column match when their groups share a concept.

  Attributes:
    rows: int [Q], the group of each query; columns: int [G], that of each candidate.
    of_rows: sparse [row groups, concepts], of_columns: sparse [column groups, concepts].
  """

  rows: np.ndarray
  columns: np.ndarray
  of_rows: sparse.csr_array
  of_columns: sparse.csr_array

  @property
  def shape(self) -> tuple[int, int]:
    return len(self.rows), len(self.columns)

  @property
  def T(self) -> Matches:
    return Matches(self.columns, self.rows, self.of_columns, self.of_rows)

  @functools.cached_property
  def _by_concept(self) -> sparse.csr_array:
    return self.of_columns.T.tocsr()

  def dense(self, rows: np.ndarray | slice) -> np.ndarray:
    """bool [len(rows), G], of these rows only."""
    groups, place = np.unique(self.rows[rows], return_inverse=True)
    shared = (self.of_rows[groups] @ self._by_concept).toarray() > 0  # [groups, column groups]
    return shared[place][:, self.columns]

  def toarray(self) -> np.ndarray:
    """bool [Q, G]: for small ones."""
    return self.dense(slice(None))

  def answerable(self) -> np.ndarray:
    """int [A]: the rows that match anything."""
    there = np.asarray(self.of_columns.sum(axis=0) > 0).astype(np.int32)
    return np.flatnonzero((self.of_rows @ there)[self.rows] > 0)


def matches_of(
  row_concept: np.ndarray,
  column_concept: np.ndarray,
  row_group: np.ndarray | None = None,
  column_group: np.ndarray | None = None,
) -> Matches:
  """Rows and columns of one concept match; those of one group share their concepts.

  Args:
    row_concept: int [Q]; column_concept: int [G].
    row_group: int [Q], equal for rows that a model sees as the same; None: all differ. column_group: int [G].
  """
  row_concept, column_concept = np.asarray(row_concept), np.asarray(column_concept)
  concepts, concept = np.unique(np.concatenate([row_concept, column_concept]), return_inverse=True)

  def side(concept: np.ndarray, group: np.ndarray | None) -> tuple[np.ndarray, sparse.csr_array]:
    group = np.arange(len(concept)) if group is None else np.unique(group, return_inverse=True)[1]
    shape = int(group.max(initial=-1)) + 1, len(concepts)
    has = sparse.csr_array((np.ones(len(group), np.int32), (group, concept)), shape=shape)
    has.data[:] = 1  # that a group has a concept twice says nothing more
    return group, has

  (rows, of_rows), (columns, of_columns) = side(concept[: len(row_concept)], row_group), side(
    concept[len(row_concept) :], column_group)  # fmt: skip
  return Matches(rows, columns, of_rows, of_columns)


def as_matches(positives: Matches | np.ndarray | sparse.csr_array) -> Matches:
  """`positives` bool [Q, G] in any form: every row and column is a group, and every column a concept."""
  if isinstance(positives, Matches):
    return positives
  of_rows = sparse.csr_array(positives).astype(np.int32)
  each = sparse.csr_array(sparse.eye_array(of_rows.shape[1], dtype=np.int32))
  return Matches(np.arange(of_rows.shape[0]), np.arange(of_rows.shape[1]), of_rows, each)


def groups(values: Sequence[str] | np.ndarray) -> np.ndarray:
  """int64 [N]: equal for values that are equal: texts, or rows of an array [N, ...] such as token ids or images.

  Numbers of 64 bits made of the values only, so that those of different sets can be compared.
  """
  return np.array([_digest(value) for value in values], np.int64)


def _digest(value: str | np.ndarray) -> int:
  if isinstance(value, str):
    data = value.encode(errors="surrogatepass")
  else:  # two plain pictures may have the same bytes, and other sides
    array = np.ascontiguousarray(value)
    data = array.tobytes() + repr(array.shape).encode() * (array.ndim > 1)
  return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), signed=True)
