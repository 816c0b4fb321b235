"""A page measured in inches: pictures in rounded frames and lines of text, drawn by matplotlib."""

from __future__ import annotations

import logging
import pathlib
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from mmcontrast import folders
from mmcontrast.errors import UserError, one_line
from mmcontrast.report.fonts import drawable

INK, GREY, RULE, GREEN = "#1c1e21", "#7a7f87", "#d9dce1", "#1a8f4c"


class Canvas:
  """A white page, `width` x `height` inches, origin at the top left."""

  def __init__(self, width: float, height: float):
    self._figure = Figure(figsize=(width, height), facecolor="white")
    self._axes = self._figure.add_axes((0, 0, 1, 1))
    self._axes.set(xlim=(0, width), ylim=(height, 0))
    self._axes.set_axis_off()

  def picture(self, image: np.ndarray, x: float, y: float, size: float, colour: str = RULE, line: float = 0.8) -> None:
    """Draws `image`, uint8 [H, W, 3], whole and centred in a square frame at (x, y)."""
    box = FancyBboxPatch(
      (x, y),
      size,
      size,
      boxstyle=f"round,pad=0,rounding_size={0.08 * size}",
      edgecolor=colour,
      linewidth=line,
      fill=False,
      zorder=3,
    )
    height, width = image.shape[:2]
    inner = size * (1 - 0.08) / max(height, width)
    left, top = x + (size - width * inner) / 2, y + (size - height * inner) / 2
    self._axes.imshow(
      image,
      extent=(left, left + width * inner, top + height * inner, top),
      interpolation="bicubic",
      aspect="auto",
      zorder=2,
    )
    self._axes.add_patch(box)

  def text(self, x: float, y: float, words: str, size: float = 10, **style: Any) -> None:
    """Writes `words` with its middle at height y; left aligned unless `ha` says otherwise. See fonts.drawable."""
    words, families = drawable(words)
    style = {"color": INK, "ha": "left", "va": "center", "family": families} | style
    self._axes.text(x, y, words, fontsize=size, parse_math=False, **style)

  def rule(self, x0: float, y0: float, x1: float, y1: float) -> None:
    """Draws a thin grey line."""
    self._axes.plot((x0, x1), (y0, y1), color=RULE, linewidth=0.8, scalex=False, scaley=False)

  def save(self, path: str | pathlib.Path, dpi: int = 120) -> folders.Folder:
    """Writes a PNG, making its folder; the page size never depends on the content. UserError where it cannot."""
    path = folders.at(path, "--out")
    log = logging.getLogger("matplotlib.font_manager")
    level = log.level
    log.setLevel(logging.ERROR)  # a font of another script need not be there in bold
    try:
      path.parent.mkdir(parents=True, exist_ok=True)
      with folders.written(path) as file:
        self._figure.savefig(file, dpi=dpi, format="png")
    except OSError as error:
      raise UserError(
        f"{path}: the picture cannot be written ({error.strerror or one_line(error)}); give another place"
      ) from error
    finally:
      log.setLevel(level)
    return path
