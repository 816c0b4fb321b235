"""The map as a table that embedding-atlas opens: `embedding-atlas FILE --x x --y y --neighbors neighbors`."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from mmcontrast.errors import UserError, one_line
from mmcontrast.evaluation.embed import row_chunks
from mmcontrast.evaluation.embedded_set import EmbeddedSet
from mmcontrast.folders import Folder, written
from mmcontrast.modalities import MODALITIES
from mmcontrast.report.page.points import Points, picture_of

_NEIGHBOURS = 15


def write_atlas(path: Folder, test: EmbeddedSet, points: Points, at: np.ndarray) -> None:
  """Writes a Parquet file with a row a point.

  Columns: x and y (`at`, float [P, 2]); neighbors {ids, distances}: the rows of the nearest points of the joint space,
  itself not among them, and one minus their cosines; image {bytes, path}: a PNG; text, modality, label, concept.

  Raises UserError where it cannot be written.
  """
  import pyarrow
  import pyarrow.parquet

  ids, distances = nearest_of(points.rows)
  pictures: list[dict | None] = []
  for modality, place in zip(points.modality, points.place.tolist()):
    made = picture_of(test, modality, place)() if MODALITIES[modality].pictured else None
    pictures.append(None if made is None else {"bytes": _png(made), "path": f"{modality}-{place}.png"})
  image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
  neighbours = pyarrow.struct(
    [("ids", pyarrow.list_(pyarrow.int64())), ("distances", pyarrow.list_(pyarrow.float32()))]
  )
  table = pyarrow.table({
    "x": at[:, 0].astype(np.float32),
    "y": at[:, 1].astype(np.float32),
    "neighbors": pyarrow.array(
      [{"ids": one, "distances": far} for one, far in zip(ids.tolist(), distances.tolist())], neighbours
    ),
    "image": pyarrow.array(pictures, image),
    "text": points.words,
    "modality": points.modality,
    "label": [points.names[one] if one >= 0 else None for one in points.label.tolist()],
    "concept": points.concept,
  })  # fmt: skip
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with written(path) as scratch:
      pyarrow.parquet.write_table(table, scratch)
  except OSError as error:
    raise UserError(
      f"--embedding_atlas {path}: cannot be written ({error.strerror or one_line(error)}); give another place"
    ) from error


def nearest_of(rows: np.ndarray, count: int = _NEIGHBOURS) -> tuple[np.ndarray, np.ndarray]:
  """(int [P, k], float32 [P, k]): the points nearest to each of unit rows [P, D], nearest first, and one minus their
  cosines; k is `count`, or P - 1 where there are fewer."""
  count = min(count, len(rows) - 1)
  ids = np.empty((len(rows), count), np.int64)
  distances = np.empty((len(rows), count), np.float32)
  for part in row_chunks(len(rows), len(rows)):
    cosines = rows[part] @ rows.T
    cosines[np.arange(len(cosines)), np.arange(part.start, part.start + len(cosines))] = -np.inf
    near = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
    ids[part], distances[part] = near, 1 - np.take_along_axis(cosines, near, axis=1)
  return ids, distances


def _png(picture: np.ndarray) -> bytes:
  out = io.BytesIO()
  Image.fromarray(picture).save(out, "PNG")
  return out.getvalue()
