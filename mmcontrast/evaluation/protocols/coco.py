"""Retrieval on COCO's test images of Karpathy's split: recall at k of 5,000, of five folds of 1,000, CxC, ECCV Caption.

A query is a hit where any of its positives is among the k nearest; of images any of their five captions. The positives
of CxC (arXiv:2004.15020) and ECCV Caption (arXiv:2204.03359), more than the five, are those of the package eccv-caption
0.1.0, whose numbers these are (tests/oracles), given lists in the same order. Equal scores count against the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmcontrast.errors import UserError
from mmcontrast.evaluation.embed import row_chunks, unit
from mmcontrast.evaluation.matches import matches_of
from mmcontrast.evaluation.retrieval import RECALL_AT, ROUNDING, order, ranks

FOLDS, FOLD = 5, 1000
Positives = Mapping[int, Sequence[int]]
"""Id of a query -> the ids of what is right for it; queries that are not in it are left out."""


def ranks_both_ways(images: np.ndarray, texts: np.ndarray, image_of_text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """(rank of the own image of each text [T], of the best own text of each image [N]), 1 for found first.

  Args:
    images: float [N, D]; texts: float [T, D]; image_of_text: int [T], the place of the image of each.
  """
  places = np.arange(len(images))
  matches = matches_of(image_of_text, places)
  return ranks(unit(texts), images, matches), ranks(unit(images), texts, matches.T)


def recalls(images: np.ndarray, texts: np.ndarray, image_of_text: np.ndarray, name: str) -> dict[str, float]:
  """`NAME_image_retrieval_recall@k` and `NAME_text_retrieval_recall@k` (fractions); as of `ranks_both_ways`."""
  of_images, of_texts = ranks_both_ways(images, texts, image_of_text)
  both = {"image": of_images, "text": of_texts}
  return {
    f"{name}_{one}_retrieval_recall@{k}": float(np.mean(rank <= k)) for one, rank in both.items() for k in RECALL_AT
  }


def folds(images: np.ndarray, texts: np.ndarray, image_of_text: np.ndarray) -> dict[str, float]:
  """`1k_...`: the mean over five folds of 1,000 images, in their order, each with its own captions.

  Raises UserError unless there are 5,000 images.
  """
  if len(images) != FOLDS * FOLD:
    raise UserError(f"coco 1k: five folds of 1,000 are of 5,000 images, and there are {len(images):,}")
  found = []
  for start in range(0, FOLDS * FOLD, FOLD):
    own = (image_of_text >= start) & (image_of_text < start + FOLD)
    found.append(recalls(images[start : start + FOLD], texts[own], image_of_text[own] - start, "1k"))
  return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


def positives_of_package() -> Any:
  """The ids and positives of eccv-caption: `coco_ids` int [25000], and `coco_gts`, `cxc_gts`, `eccv_gts`, each with
  "i2t" and "t2i" as `Positives`. Raises UserError where the package is not installed."""
  try:
    import eccv_caption
  except ImportError:
    raise UserError(
      "cxc and eccv: their positives are in the package eccv-caption; pip install 'mmcontrast[protocols]'"
    ) from None
  return eccv_caption.Metrics()


def with_positives(
  queries: np.ndarray, query_ids: Sequence[int], gallery: np.ndarray, gallery_ids: Sequence[int], positives: Positives
) -> dict[str, float]:
  """Recall at 1, 5 and 10, R-precision and mAP@R (fractions) over the queries that `positives` has.

  R is the number of positives of a query. mAP@R: the mean over the first R places of the precision there, 0 at a place
  that is wrong (Musgrave et al., arXiv:2003.08505). A positive that is not in the gallery counts in R, and is missed:
  ECCV Caption has captions among its positives that are not of the five of an image.

  Args:
    queries: float [Q, D]; gallery: float [G, D]; with their ids.
  Raises UserError where none of the queries is among them.
  """
  place = {int(one): number for number, one in enumerate(gallery_ids)}
  asked = [number for number, one in enumerate(query_ids) if int(one) in positives]
  if not asked:
    raise UserError("cxc and eccv: none of the queries is among those that have positives; are these COCO's own ids?")
  queries, gallery = unit(queries), unit(gallery)
  hits = {k: [] for k in RECALL_AT}
  precision, average = [], []
  for rows in row_chunks(len(asked), len(gallery)):
    numbers = np.asarray(asked)[rows]
    right = np.zeros((len(numbers), len(gallery)), bool)
    wanted = np.zeros(len(numbers), np.int64)
    for row, number in enumerate(numbers):
      ids = set(positives[int(query_ids[number])])
      right[row, [place[int(one)] for one in ids if int(one) in place]] = True
      wanted[row] = len(ids)
    nearest = _first(queries[numbers] @ gallery.T, right, max(*RECALL_AT, wanted.max()))
    for k in RECALL_AT:
      hits[k] += [row[:k].any() for row in nearest]
    for row, count in zip(nearest, wanted):
      first = row[:count]
      precision.append(first.sum() / count)
      average.append((np.cumsum(first) / np.arange(1, len(first) + 1) * first).sum() / count)
  out = {f"recall@{k}": float(np.mean(found)) for k, found in hits.items()}
  return out | {"r_precision": float(np.mean(precision)), "map_at_r": float(np.mean(average))}


def _first(scores: np.ndarray, right: np.ndarray, count: int) -> list[np.ndarray]:
  """Whether the first `count` or more candidates of each query are right, in retrieval's order."""
  count = min(count, scores.shape[1])
  lowest = np.partition(np.where(right, scores - ROUNDING, scores), -count, axis=1)[:, -count]
  out = []
  for row, of, least in zip(scores, right, lowest):
    near = np.flatnonzero(row >= least - ROUNDING)
    out.append(of[near][order(row[None, near], of[None, near])[0]])
  return out


def cxc_and_eccv(
  images: np.ndarray, image_ids: Sequence[int], texts: np.ndarray, text_ids: Sequence[int], package: Any
) -> dict[str, float]:
  """`cxc_image_retrieval_recall@k` and so on, both ways; `eccv_...` recall at 1, R-precision and mAP@R.

  Args:
    images, texts: float [N, D], [T, D] with COCO's ids of images and of captions.
    package: as `positives_of_package` gives it.
  """
  out = {}
  for name, all_positives, metrics in (
    ("cxc", package.cxc_gts, [f"recall@{k}" for k in RECALL_AT]),
    ("eccv", package.eccv_gts, ["recall@1", "r_precision", "map_at_r"]),
  ):
    for task, given in (
      ("text_retrieval", (images, image_ids, texts, text_ids, all_positives["i2t"])),
      ("image_retrieval", (texts, text_ids, images, image_ids, all_positives["t2i"])),
    ):
      found = with_positives(*given)
      out |= {f"{name}_{task}_{metric}": found[metric] for metric in metrics}
  return out
