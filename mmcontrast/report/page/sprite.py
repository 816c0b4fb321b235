"""Many small pictures as one: a sheet of square tiles, as the bytes of a WebP file."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Hashable

import numpy as np
from PIL import Image

TILE = 56  # pixels
_QUALITY = 82


class Sprite:
  """Takes pictures as they come; one that has come before is not taken again."""

  def __init__(self, tile: int = TILE):
    self.tile = tile
    self._tiles: dict[Hashable, int] = {}
    self._pictures: list[Image.Image] = []

  def __len__(self) -> int:
    return len(self._pictures)

  def add(self, key: Hashable, picture: Callable[[], np.ndarray]) -> int:
    """The number of the tile that shows `key`; `picture` makes it at the first time: uint8 [H, W, 3]."""
    if key not in self._tiles:
      self._tiles[key] = len(self._pictures)
      self._pictures.append(fitted(picture(), self.tile))
    return self._tiles[key]

  @property
  def columns(self) -> int:
    """Tiles in a row."""
    return max(1, math.isqrt(max(len(self) - 1, 0)) + 1)

  def address(self) -> str:
    """The sheet as a data URL."""
    rows = max(1, -(-len(self) // self.columns))
    sheet = Image.new("RGB", (self.columns * self.tile, rows * self.tile), "white")
    for number, picture in enumerate(self._pictures):
      sheet.paste(picture, (number % self.columns * self.tile, number // self.columns * self.tile))
    out = io.BytesIO()
    sheet.save(out, "WEBP", quality=_QUALITY, method=2)
    return f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}"


def fitted(picture: np.ndarray, size: int) -> Image.Image:
  """The whole picture in the middle of a white square."""
  image = Image.fromarray(picture)
  scale = size / max(image.size)
  width, height = (max(1, round(side * scale)) for side in image.size)
  out = Image.new("RGB", (size, size), "white")
  small = image.resize((width, height), Image.Resampling.BILINEAR if scale < 1 else Image.Resampling.BICUBIC)
  out.paste(small, ((size - width) // 2, (size - height) // 2))
  return out
