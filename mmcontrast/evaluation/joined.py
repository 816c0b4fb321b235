"""Scores of a term that joins the keys of an example (gram_volume, multilinear, mean_of_keys), to evaluate and search.

Such a term never trains the cosine of two embeddings: its queries choose among examples, each with all of its keys,
so that is how they are searched. Keys and queries are rows of any length; a score prepares them as in training.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mmcontrast.evaluation.embed import row_chunks

if TYPE_CHECKING:
  from mmcontrast.objectives.embedding_path import EmbeddingPath
  from mmcontrast.objectives.multiway_scores import TupleScore


class JoinedTerm(NamedTuple):
  """A term whose keys are joined: `query` and `keys` are paths such as text[1]/text_joint taken apart."""

  name: str
  score: TupleScore
  query: EmbeddingPath
  keys: tuple[EmbeddingPath, ...]

  @property
  def words(self) -> str:
    """ "image[0] with text[0] and text[1]"."""
    first, *keys = (f"{path.views}[{path.view}]" for path in (self.query, *self.keys))
    return f"{first} with {' and '.join(keys)}"

  @property
  def ways(self) -> dict[str, tuple[int, bool]]:
    """What retrieval by it is called -> (the place, among query and keys, of what is compared with all others; whether
    it is what is searched for).

    Where the score is the same whichever of its vectors is called the query, and each is of another modality, each has
    its turn.
    """
    paths = (self.query, *self.keys)
    modalities = [path.modality for path in paths]
    names = {f"{self.name}_query_to_keys": (0, False), f"{self.name}_keys_to_query": (0, True)}
    in_turn = self.score.symmetric and len(set(modalities)) == len(paths)
    for place, one in enumerate(modalities[1:], start=1) if in_turn else ():
      others = "_and_".join(other for other in modalities if other != one)
      names |= {f"{self.name}_{one}_to_{others}": (place, False), f"{self.name}_{others}_to_{one}": (place, True)}
    return names


def joined_terms(objective: Mapping[str, Any]) -> list[JoinedTerm]:
  """The terms of `config.objective` that join keys; none of most runs."""
  from mmcontrast.objectives.embedding_path import parse_embedding
  from mmcontrast.objectives.terms import comparisons, parse_terms

  compared = comparisons(parse_terms(objective)) if objective else []
  return [JoinedTerm(one.name, one.score, parse_embedding(one.query[0]), tuple(map(parse_embedding, one.key)))
          for one in compared if one.score.joins]  # fmt: skip


def columns(score: TupleScore, keys: Sequence[np.ndarray]) -> np.ndarray:
  """One column an example of its keys, float [N, D] each: what `scores` takes, [N, ...].

  Where a column has parts (`score.column`), it is an array [N] with a field for each.
  """
  joined = jax.tree.map(np.asarray, _join(score, tuple(np.asarray(key, np.float32) for key in keys)))
  if score.column is None:
    return joined
  parts = joined._asdict()
  out = np.empty(len(parts[joined._fields[0]]), [(name, part.dtype, part.shape[1:]) for name, part in parts.items()])
  for name, part in parts.items():
    out[name] = part
  return out


def scores(score: TupleScore, queries: np.ndarray, joined: np.ndarray) -> np.ndarray:
  """float32 [Q, N]: the score of each query, float [Q, D], with each of the `columns` of N examples.

  Computed in tiles: except for the result, memory does not grow with Q x N.
  """
  queries = np.asarray(_prepare(score, np.asarray(queries, np.float32)))
  out = np.empty((len(queries), len(joined)), np.float32)
  if not out.size:
    return out
  cells = score.cells(queries[0], _parts(score, joined[0]))
  for rows in row_chunks(len(queries), cells * min(len(joined), _TILE)):
    for part in row_chunks(len(joined), 1, _TILE):
      out[rows, part] = _scores(score, queries[rows], _parts(score, joined[part]))
  return out


_TILE = 1 << 16  # examples a tile


def _parts(score: TupleScore, joined: np.ndarray) -> Any:
  """Columns as `columns` gave them -> as the score takes them."""
  return joined if score.column is None else score.column(*(joined[name] for name in score.column._fields))


@functools.partial(jax.jit, static_argnums=0)
def _join(score: TupleScore, keys: tuple[jax.Array, ...]) -> Any:
  return score.join([score.prepare_key(key) for key in keys])


@functools.partial(jax.jit, static_argnums=0)
def _prepare(score: TupleScore, x: jax.Array) -> jax.Array:
  return score.prepare(x)


@functools.partial(jax.jit, static_argnums=0)
def _scores(score: TupleScore, rows: jax.Array, joined: Any) -> jax.Array:
  return score.tile(*jax.tree.map(jnp.asarray, (rows, joined)))
