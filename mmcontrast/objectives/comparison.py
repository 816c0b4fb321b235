"""What a term of any kind says of itself to those who evaluate, export or describe it."""

from __future__ import annotations

from typing import NamedTuple

from mmcontrast.objectives.score import Score


class Comparison(NamedTuple):
  """Embeddings that a term compares: each query with each key, or with all keys together where the score joins them.

  name: of the term; query, key: paths of embeddings, such as "image[0]/image_joint".
  """

  name: str
  query: tuple[str, ...]
  key: tuple[str, ...]
  score: Score


class LossMatrix(NamedTuple):
  """A matrix that a term's loss goes over.

  rows, columns: its shape; kind: what is compared ("batch", "queue", "prototypes", ...); dim: numbers of a column;
  cells: numbers that a tile holds for each pair.
  """

  rows: int
  columns: int
  kind: str
  dim: int
  cells: int
