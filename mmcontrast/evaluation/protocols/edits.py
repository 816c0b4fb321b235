"""Whether a model tells a true caption from its edits, and which of two images a caption of the same words is of.

SugarCrepe (arXiv:2306.14610) and ARO (arXiv:2210.01936): a picture, its caption and one or more edits; right where the
true caption scores above every edit. Winoground (arXiv:2204.03162): two pictures and two captions of the same words.
Equal scores count against the model: a model that does not see the order of words has equal scores for captions of the
same words, and would be right in all of them where ties were won.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mmcontrast.errors import UserError
from mmcontrast.evaluation.embed import row_chunks, unit

ROUNDING = 1e-6  # cosines closer than this are equal in float32


def true_first(images: np.ndarray, captions: np.ndarray) -> np.ndarray:
  """bool [B]: whether the first of C captions, the true one, scores above all others.

  Args:
    images: float [B, D]; captions: float [B, C, D], the true one first; of any length.
  """
  if captions.shape[1] < 2:
    raise UserError("edits: a picture needs its caption and one edit of it at least")
  scores = np.einsum("bd,bcd->bc", unit(images), _unit(captions))
  return scores[:, 0] > scores[:, 1:].max(axis=1) + ROUNDING


def accuracies(right: np.ndarray, subset: Sequence[str]) -> dict[str, float]:
  """Accuracy (fractions) of each subset; "micro" over all examples, as SugarCrepe's table; "macro" over subsets.

  Args:
    right: bool [B]; subset: the name of each example's, B of them, such as "swap_obj".
  """
  names = np.asarray(subset)
  found = {str(name): float(right[names == name].mean()) for name in np.unique(names)}
  return found | {"micro": float(right.mean()), "macro": float(np.mean(list(found.values())))}


def winoground(images: np.ndarray, captions: np.ndarray) -> dict[str, np.ndarray]:
  """Whether each example is right, bool [B]: "text", the own caption of each picture scores above the other one;
  "image", the own picture of each caption above the other one; "group", both.

  Args:
    images, captions: float [B, 2, D], the i-th caption that of the i-th picture.
  """
  for name, rows in (("images", images), ("captions", captions)):
    if rows.ndim != 3 or rows.shape[1] != 2:
      raise UserError(f"winoground: {name} have the shape {rows.shape}; give [examples, 2, numbers]")
  scores = np.einsum("bid,bcd->bic", _unit(images), _unit(captions))
  own, other_caption, other_image = (
    np.stack([scores[:, 0, 0], scores[:, 1, 1]], 1),
    np.stack([scores[:, 0, 1], scores[:, 1, 0]], 1),
    np.stack([scores[:, 1, 0], scores[:, 0, 1]], 1),
  )
  text = (own > other_caption + ROUNDING).all(axis=1)
  image = (own > other_image + ROUNDING).all(axis=1)
  return {"text": text, "image": image, "group": text & image}


def image_ranks(images: np.ndarray, captions: np.ndarray) -> np.ndarray:
  """int [N]: the rank, from 1, of each picture by its caption among all; one that scores the same is before it.

  Args:
    images, captions: float [N, D]; the i-th of both belong together.
  """
  images, captions = unit(images), unit(captions)
  out = np.empty(len(images), np.int64)
  for rows in row_chunks(len(images), len(images)):
    scores = captions[rows] @ images.T
    true = scores[np.arange(len(scores)), np.arange(len(images))[rows]]
    out[rows] = (scores >= true[:, None] - ROUNDING).sum(axis=1)
  return out


def rank_variances(ranks: Mapping[str, np.ndarray]) -> np.ndarray:
  """float [N]: how much the rank of each picture varies over its captions in K languages: the variance, divided by K; 0
  where all languages agree. MRV is the mean.

  Args:
    ranks: language -> int [N], the rank of each picture by its caption in that language.
  """
  if len(ranks) < 2:
    raise UserError(f"mrv: ranks of {len(ranks)} languages; give two or more")
  table = np.stack([np.asarray(one, np.float64) for one in ranks.values()])
  return table.var(axis=0)


def _unit(rows: np.ndarray) -> np.ndarray:
  return unit(rows.reshape(-1, rows.shape[-1])).reshape(rows.shape)
