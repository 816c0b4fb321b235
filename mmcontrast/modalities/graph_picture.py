"""A graph as a person sees it: its nodes about the centre, the edges between them in a colour for each kind."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from mmcontrast.modalities.graph_sampling import Neighbours, nearest_first

_SIDE, _PAPER, _INK = 192, (246, 246, 246), (40, 40, 40)
_COLOURS = ((31, 119, 180), (214, 39, 40), (44, 160, 44), (255, 127, 14), (148, 103, 189), (140, 86, 75),
            (227, 119, 194), (23, 190, 207), (188, 189, 34), (127, 127, 127))  # fmt: skip
_SHOWN, _FEW = 48, 16  # nodes


def drawn(count: int, edges: np.ndarray, centre: int, texts: Sequence[str] = ()) -> np.ndarray:
  """uint8 [192, 192, 3] of a graph of `count` nodes: the nearest 48, in rings of as many edges from the centre.

  Args:
    edges: int [E, 3]. texts: of the nodes; that of the centre is written.
  """
  near = Neighbours(count, edges)
  nodes = nearest_first(near, centre, min(count, _SHOWN))
  ring = {centre: 0}
  for node in nodes:
    for other in near.of(node, None):
      ring.setdefault(other, ring[node] + 1)
  rings = [[node for node in nodes if ring[node] == number] for number in range(max(ring[node] for node in nodes) + 1)]
  place, reach = {}, 0.44 * _SIDE / max(1, len(rings) - 1)
  for number, members in enumerate(rings):
    for which, node in enumerate(members):
      angle = 2 * np.pi * (which + 0.5 * (number % 2)) / len(members)
      place[node] = (_SIDE / 2 + number * reach * np.sin(angle), _SIDE / 2 - number * reach * np.cos(angle))
  few = len(place) <= _FEW  # so large that a tile of a page, a third of the picture, still shows them
  picture = Image.new("RGB", (_SIDE, _SIDE), _PAPER)
  pen = ImageDraw.Draw(picture)
  for start, end, kind in edges.tolist():
    if start in place and end in place:
      pen.line([place[start], place[end]], _COLOURS[kind % len(_COLOURS)], 4 if few else 2)
  for node, (x, y) in place.items():
    size = (11 if few else 6) if node == centre else (7 if few else 3)
    pen.ellipse([x - size, y - size, x + size, y + size], _INK)
  if len(texts):
    pen.text((3, _SIDE - 14), texts[centre][:30].encode("latin1", "replace").decode("latin1"), _INK)
  return np.asarray(picture)
