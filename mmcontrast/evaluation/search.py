"""Search: the items of a gallery that are nearest to a text or an image."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mmcontrast.errors import UserError
from mmcontrast.evaluation.embed import Embed, unit


class Found(NamedTuple):
  """The nearest first: index into the gallery int [k], cosine float32 [k]."""

  index: np.ndarray
  cosine: np.ndarray


def search(embed: Embed, query: str | np.ndarray, gallery: np.ndarray, k: int = 10) -> Found:
  """The `k` rows of `gallery` nearest to `query` by cosine; the first of equals first.

  Args:
    embed: the model: embed(kind, values) -> [N, D] in the joint space.
    query: a text, or an image, uint8 [H, W, 3].
    gallery: float [G, D], embeddings of images or of captions in the joint space.
    k: how many, at most G.

  Raises:
    UserError: an empty text, an image of another shape, an empty gallery, k < 1.
  """
  if k < 1:
    raise UserError(f"search: the number of results must be 1 or more, not {k}")
  if not len(gallery):
    raise UserError("search: the gallery is empty")
  if isinstance(query, str):
    if not query.strip():
      raise UserError('search: the query is empty; say what to look for, e.g. "red heart"')
    row = embed("text", [query])
  else:
    query = np.asarray(query)
    if query.ndim != 3 or query.shape[-1] != 3 or query.dtype != np.uint8:
      raise UserError(
        f"search: an image query is uint8 [H, W, 3], not {query.dtype} {list(query.shape)}"
      )
    row = embed("image", query[None])
  cosine = unit(gallery) @ unit(row)[0]
  index = np.argsort(-cosine, kind="stable")[:k]
  return Found(index, cosine[index])
