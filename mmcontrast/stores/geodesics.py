"""Distances along a graph of nearest neighbours, as coordinates: Isomap with landmarks (de Silva and Tenenbaum 2002).

On the host, between epochs; the epoch hook is `GeodesicMap`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import numpy as np

from mmcontrast.errors import UserError, nearest
from mmcontrast.stores.hook import Embed, Update


@dataclass(frozen=True)
class GeodesicMap:
  """Coordinates of all examples whose distances are about those along the graph of nearest texts, for the term module
  `geodesic_contrast`.

  Attributes:
    term: the entry of the objective whose table it writes.
    texts: the path of what is compared.
    neighbours: of a text in the graph.
    landmarks: texts from which distances are measured, each the farthest from those before it.
  """

  TAKES: ClassVar[tuple[str, ...]] = ("pooled",)
  labels: ClassVar[tuple[str, ...]] = ()

  term: str
  texts: str
  neighbours: int = 8
  landmarks: int = 64

  def __post_init__(self):
    for name, least in (("neighbours", 1), ("landmarks", 3)):
      if getattr(self, name) < least:
        raise UserError(f"{name}: {getattr(self, name)} is below {least}")

  @property
  def embeddings(self) -> tuple[str, ...]:
    return (self.texts,)

  def check(self, state: Any, examples: int, of_training: bool) -> None:
    fitting = [name for name, columns in state.tables.items() if "placed" in columns]
    if "placed" not in state.tables.get(self.term, {}):
      raise UserError(
        f"term: {self.term!r} is no entry of the objective that asks for coordinates; "
        + (nearest(self.term, fitting) if fitting else "add one with module=dict(name='geodesic_contrast', ...)")
      )
    if not of_training:
      raise UserError("set: coordinates are those of the examples that are trained on; leave it out")
    if examples <= self.neighbours:
      raise UserError(f"neighbours: {self.neighbours} of {examples} examples; give {max(1, examples - 1)} or fewer")

  def __call__(self, embed: Embed, state: Any, key: jax.Array) -> Update:
    found = embed(self.embeddings)
    valid = found.present[self.texts]
    dim = sum(name.startswith("x_") for name in state.tables[self.term])
    first = int(jax.random.bits(key) % max(int(valid.sum()), 1))
    at = np.zeros((len(valid), dim))
    at[valid] = geodesic_map(found.nodes[self.texts].pooled[valid], self.neighbours, self.landmarks, dim, first)
    columns = {f"x_{number}": at[:, number] for number in range(dim)} | {"placed": valid.astype(np.float32)}
    return Update(tables={self.term: columns}, shown={"placed": int(valid.sum())})


def geodesic_map(rows: np.ndarray, neighbours: int, landmarks: int, dim: int, first: int = 0) -> np.ndarray:
  """Coordinates [E, dim] of rows [E, D], whose distances approximate those along the graph in which each row is linked
  with its nearest by angle, both ways; the mean distance of landmarks is 1. Parts that the graph does not link are as
  far apart as the farthest that it links, and half more.

  Args:
    first: the first landmark; each other is the farthest from those before it.
  """
  from scipy.sparse.csgraph import dijkstra
  from sklearn.neighbors import kneighbors_graph

  if len(rows) <= neighbours:
    return np.zeros((len(rows), dim))
  unit = rows.astype(np.float64) / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
  graph = kneighbors_graph(unit, neighbours, mode="distance")  # chords
  graph.data = 2 * np.arcsin(np.clip(graph.data / 2, 0, 1)) + 1e-9  # angles; equal rows stay linked
  graph = graph.maximum(graph.T)
  chosen, distances = [first % len(rows)], []
  while len(distances) < min(landmarks, len(rows)):
    distances.append(dijkstra(graph, indices=chosen[-1]))
    chosen.append(int(np.argmax(np.min(distances, 0))))
  distances, chosen = np.array(distances), np.array(chosen[:-1])
  finite = distances[np.isfinite(distances)]
  distances = np.where(np.isfinite(distances), distances, 1.5 * finite.max())
  between = distances[:, chosen]
  mean = between[~np.eye(len(chosen), dtype=bool)].mean() if len(chosen) > 1 else 1.0
  squares, between = ((x / max(mean, 1e-12)) ** 2 for x in (distances, between))
  centred = -0.5 * (between - between.mean(0) - between.mean(1)[:, None] + between.mean())
  values, vectors = np.linalg.eigh(centred)
  values, vectors = values[::-1][:dim], vectors[:, ::-1][:, :dim]
  inverse = np.where(values > 1e-9, 1 / np.sqrt(np.maximum(values, 1e-9)), 0.0)
  at = -0.5 * (squares - between.mean(1)[:, None]).T @ (vectors * inverse)
  return np.pad(at, ((0, 0), (0, dim - at.shape[1])))
