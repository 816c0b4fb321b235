"""CLIP_benchmark's numbers of embeddings: retrieval, zero-shot classification, a caption among others.

Source: PyPI clip-benchmark 1.6.2, metrics/zeroshot_retrieval.py, zeroshot_classification.py and
image_caption_selection.py, without mixed precision: the same numbers to 1e-6 (tests/oracles). Ties as in topk.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmcontrast.evaluation.embed import row_chunks, unit
from mmcontrast.evaluation.protocols.topk import any_in_top, top

RECALL_AT = (1, 5, 10)  # the package's own default is 5 alone


def recalls(
  texts: np.ndarray, images: np.ndarray, image_of_text: np.ndarray, at: Sequence[int] = RECALL_AT
) -> dict[str, dict[int, np.ndarray]]:
  """Whether each query is a hit among the k best: {"image": k -> bool [T] of texts, "text": k -> bool [N] of images}.

  An image without a caption is a query too, and missed. Where there are fewer candidates than k, all are taken.

  Args:
    texts: float [T, D]; images: float [N, D]; rows of any length.
    image_of_text: int [T], the place of the only image of each text.
  """
  texts, images, image_of_text = unit(texts), unit(images), np.asarray(image_of_text)
  out: dict[str, dict[int, np.ndarray]] = {}
  of_images, of_texts = np.arange(len(images)), image_of_text
  for name, queries, gallery, rows, columns in (
    ("image", texts, images, of_texts, of_images),
    ("text", images, texts, of_images, of_texts),
  ):
    found = {k: np.zeros(len(queries), bool) for k in at}
    for part in row_chunks(len(queries), len(gallery)):
      scores, right = queries[part] @ gallery.T, rows[part, None] == columns[None, :]
      for k in at:
        found[k][part] = any_in_top(scores, right, k)
    out[name] = found
  return out


def retrieval(
  texts: np.ndarray, images: np.ndarray, image_of_text: np.ndarray, at: Sequence[int] = RECALL_AT
) -> dict[str, float]:
  """The package's `image_retrieval_recall@k` (of images, by texts) and `text_retrieval_recall@k`. As `recalls`."""
  hits = recalls(texts, images, image_of_text, at)
  return {f"{name}_retrieval_recall@{k}": float(hits[name][k].mean()) for k in at for name in ("image", "text")}


def classification(images: np.ndarray, classes: np.ndarray, labels: np.ndarray) -> dict[str, float]:
  """`acc1`, `acc5` (of five classes or more) and `mean_per_class_recall`, over the classes that have a picture.

  Args:
    images: float [N, D], of any length; classes: float [K, D], unit rows; labels: int [N] in 0..K-1.
  """
  found = classified(images, classes, labels)
  out = {name: float(hits.mean()) for name, hits in found.items() if name != "pred"}
  each = [(found["pred"] == labels)[labels == one].mean() for one in np.unique(labels)]
  return out | {"mean_per_class_recall": float(np.mean(each))}


def classified(images: np.ndarray, classes: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
  """Whether the class of each image is among the best of a top-k, "acc1" and "acc5", bool [N]; and "pred" int [N], the
  first of the highest, which mean_per_class_recall goes by: with a tie it may be another. Arguments as of
  `classification`."""
  images, classes, labels = unit(images), np.asarray(classes, np.float32), np.asarray(labels)
  parts = [
    top_hits((np.float32(100) * images[part]) @ classes.T, labels[part])
    for part in row_chunks(len(images), len(classes))
  ]
  return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def top_hits(logits: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
  """As `classified`, of logits float [N, K]."""
  at = (1, 5) if logits.shape[1] >= 5 else (1,)
  order = _best(logits, max(at))
  hits = {f"acc{k}": (order[:, :k] == labels[:, None]).any(axis=1) for k in at}
  return hits | {"pred": logits.argmax(axis=1).astype(np.int64)}


def _best(logits: np.ndarray, k: int) -> np.ndarray:
  """int [N, k], as torch.topk orders them: the sort after the selection is stable for so few, by their place in it."""
  k = min(k, logits.shape[1])
  order = np.argsort(-logits, axis=1, kind="stable")[:, : k + 1]
  ranked = np.take_along_axis(logits, order, axis=1)
  out = order[:, :k].copy()
  for row in np.flatnonzero((ranked[:, 1:] == ranked[:, :-1]).any(axis=1)):
    out[row] = top(logits[row], k)
  return out


def average_precision(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
  """float64 [K]: of each class the mean precision at the places of its pictures; 0 for a class without any.

  Args:
    scores: float [N, K]; targets: 0/1 [N, K]. Equal scores keep their order.
  """
  order = np.argsort(-np.asarray(scores, np.float64), axis=0, kind="stable")
  truth = np.take_along_axis(np.asarray(targets, bool), order, axis=0)
  precision = np.cumsum(truth, axis=0) / np.arange(1, len(truth) + 1)[:, None]
  return (precision * truth).sum(axis=0) / np.maximum(truth.sum(axis=0), 1)


def selection(images: np.ndarray, texts: np.ndarray) -> dict[str, np.ndarray]:
  """Whether each of B instances is right, bool [B]: "image_acc", "text_acc" and "acc", both.

  Args:
    images: float [B, I, D]; texts: float [B, T, D]; the i-th text is that of the i-th image, further ones are wrong.
  """
  scores = np.einsum("bid,btd->bit", _unit(images), _unit(texts))
  pairs = np.arange(min(scores.shape[1:]))
  text = (scores.argmax(axis=2)[:, : len(pairs)] == pairs).all(axis=1)
  image = (scores.argmax(axis=1)[:, : len(pairs)] == pairs).all(axis=1)
  return {"image_acc": image, "text_acc": text, "acc": image & text}


def _unit(rows: np.ndarray) -> np.ndarray:
  return unit(rows.reshape(-1, rows.shape[-1])).reshape(rows.shape)
