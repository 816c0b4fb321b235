"""The objects of `furniture` with the pixel that shows each point of their surface: pairs of points and pixels.

    dataset="furniture_pixels"       # an example is an object: its picture `render`, points, names; fact "pixel"

Composed as it is read. The picture was drawn from the front, a little above, so where a point is in it follows from the
camera; that nothing stands before it, from the picture `depth` of the same view. The columns 10 and 11 of a point are
x and y in shares of the picture's sides, -1 where something hides it or it is turned away.
"""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Mapping

import numpy as np

from mmcontrast.data.images import decode
from mmcontrast.data.rasteriser import FAR, depth_of_grey, projected, turned
from mmcontrast.data.record import BadRecord, Record
from mmcontrast.data.sources.emoji import EmojiSource, open_built
from mmcontrast.errors import UserError
from mmcontrast.modalities.rows import to_npy

BEHIND = 0.05
"""By how many radii of the thing a point may lie behind what its pixel shows."""


def open_furniture_pixels(
  path: str, options: Mapping, split: str, data_dir: str | os.PathLike | None
) -> FurniturePixels:
  """Opens furniture_pixels, which has no options."""
  if path or options:
    raise UserError(f"data.dataset: furniture_pixels takes no path and no data.source, not {path or dict(options)!r}")
  return FurniturePixels(open_built("furniture", split, data_dir))


class FurniturePixels:
  """Objects of furniture, their points with two columns more."""

  def __init__(self, base: EmojiSource):
    self._base = base
    base.info = dataclasses.replace(base.info, styles=("render", "depth"), keys={"points": base.info.keys["points"]})
    self.info = dataclasses.replace(base.info, name="furniture_pixels", styles=("render",))

  def __len__(self) -> int:
    return len(self._base)

  def __getitem__(self, index: int) -> Record:
    record = self._base[index]
    images = dict(record["images"])
    depth = depth_of_grey(decode(images.pop("depth"))[..., 0])
    points = {column: to_npy(with_pixels(np.load(io.BytesIO(raw)), depth)) for column, raw in record["points"].items()}
    return {**record, "images": images, "points": points}


def with_pixels(points: np.ndarray, depth: np.ndarray) -> np.ndarray:
  """float32 [N, 12] of points [N, 10] as `furniture` stores them, and the depth [S, S] of its picture in radii.

  The thing stands on y = 0 with its middle at x = z = 0, so its box follows from its points, to about a pixel.
  """
  if points.ndim != 2 or points.shape[1] != 10:
    raise BadRecord(f"points of shape {points.shape}, not [N, 10]; build furniture again")
  points = points.astype(np.float32)
  wide, high, deep = np.abs(points[:, 0]).max(), points[:, 1].max(), np.abs(points[:, 2]).max()
  radius = max(float(np.linalg.norm([2 * wide, high, 2 * deep])) / 2, 1e-9)
  seen_from = turned((points[:, :3] - np.float32([0, high / 2, 0])) / np.float32(radius), azimuth=0.0)
  shares = projected(seen_from, 1)
  column, row = np.clip((shares * len(depth)).astype(int), 0, len(depth) - 1).T
  shown = np.abs(depth[row, column] - (FAR - seen_from[:, 2])) < BEHIND
  return np.concatenate([points, np.where(shown[:, None], shares, -1.0)], 1).astype(np.float32)
