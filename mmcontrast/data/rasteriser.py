"""Meshes drawn by a z-buffer in numpy: colours, depth, normals and parts of a view, and of a turntable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mmcontrast.data.meshes import Mesh

FAR = 4.0  # distance of the eye from the middle, in radii of the mesh
_LIGHT = np.array([-0.4, 0.7, 0.6]) / np.linalg.norm([-0.4, 0.7, 0.6])  # towards it, as the eye sees it
_AMBIENT = 0.4
_NEAR, _FURTHEST = 2.5, 5.5  # depths that a picture of them shows as white and as black
_AT_ONCE = 2_000_000  # pairs of a triangle and a pixel that may lie in it
_SEEN_THROUGH = 0.5  # opacity below which a face is left out


class Rendering(NamedTuple):
  """A view of a mesh.

  Attributes:
    colour: uint8 [S, S, 3], on white.
    depth: float32 [S, S], distance from the eye along its axis in radii of the mesh; infinite where nothing is.
    normals: float32 [S, S, 3], towards the eye (x to the right, y up, z to the eye); zeros where nothing is.
    parts: int32 [S, S], of `Mesh.parts`; -1 where nothing is.
  """

  colour: np.ndarray
  depth: np.ndarray
  normals: np.ndarray
  parts: np.ndarray


def placed(mesh: Mesh) -> np.ndarray:
  """float32 [V, 3]: vertices round the middle of the mesh, in radii of the sphere round its box."""
  low, high = mesh.box()
  return ((mesh.vertices - (low + high) / 2) / max(float(np.linalg.norm(high - low)) / 2, 1e-9)).astype(np.float32)


def turned(points: np.ndarray, azimuth: float, elevation: float = 20.0) -> np.ndarray:
  """float32 [N, 3]: where points as `placed` gives them are to the eye: x to the right, y up, z to the eye.

  Args:
    azimuth: degrees by which the mesh is turned about its upright axis: above 0 its front, at +z, moves to the right.
    elevation: degrees from which the eye looks down.
  """
  turn, tilt = np.radians(azimuth), np.radians(elevation)
  about_y = [[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]]
  about_x = [[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]]
  return points @ (np.array(about_x) @ about_y).T.astype(np.float32)


def projected(points: np.ndarray, size: int) -> np.ndarray:
  """float32 [N, 2]: columns and rows of a picture of `size` pixels of points as `turned` gives them."""
  scale = 0.5 * size * np.sqrt(FAR**2 - 1) / (FAR - points[:, 2])  # the sphere round the mesh fills the picture
  return np.stack([size / 2 + scale * points[:, 0], size / 2 - scale * points[:, 1]], axis=1)


def turntable(mesh: Mesh, size: int, azimuths: Sequence[float], elevation: float = 20.0) -> list[Rendering]:
  """Views from all round. Of colours a pixel is four samples, of the rest one. Faces have two sides, and one shade."""
  points = placed(mesh)
  shown = np.flatnonzero(mesh.opacity >= _SEEN_THROUGH)
  shown = shown if len(shown) else np.arange(len(mesh.faces))
  return [_render(mesh, shown, turned(points, azimuth, elevation), size) for azimuth in azimuths]


def grey_of_depth(depth: np.ndarray) -> np.ndarray:
  """Depths [S, S] in radii -> uint8 [S, S]: the nearer the lighter, 0 where nothing is."""
  near = np.clip((_FURTHEST - depth) / (_FURTHEST - _NEAR), 0, 1)
  return np.where(np.isfinite(depth), np.round(255 * near), 0).astype(np.uint8)


def depth_of_grey(grey: np.ndarray) -> np.ndarray:
  """float32 [S, S], what `grey_of_depth` was made of to half a step of 255; infinite where nothing is."""
  return np.where(grey > 0, _FURTHEST - grey / np.float32(255) * (_FURTHEST - _NEAR), np.inf).astype(np.float32)


def _render(mesh: Mesh, shown: np.ndarray, points: np.ndarray, size: int) -> Rendering:
  fine, faces = 2 * size, mesh.faces[shown]
  nearest, depth = _visible(projected(points, fine), FAR - points[:, 2], faces, fine)
  seen = nearest >= 0
  corners = points[faces[nearest[seen]]].astype(np.float64)
  normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
  normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
  normals *= np.where(normals[:, 2:] < 0, -1.0, 1.0)
  colour, all_normals = np.ones((fine * fine, 3)), np.zeros((fine * fine, 3), np.float32)
  light = _AMBIENT + (1 - _AMBIENT) * np.clip(normals @ _LIGHT, 0, 1)[:, None]
  colour[seen], all_normals[seen] = mesh.colours[shown[nearest[seen]]] * light, normals
  parts = np.where(seen, mesh.parts[shown[nearest]], -1).astype(np.int32)
  colour = colour.reshape(size, 2, size, 2, 3).mean(axis=(1, 3))
  square = (fine, fine)
  return Rendering(
    np.round(255 * np.clip(colour, 0, 1)).astype(np.uint8),
    depth.reshape(square)[::2, ::2],
    all_normals.reshape(*square, 3)[::2, ::2],
    parts.reshape(square)[::2, ::2],
  )


def _visible(places: np.ndarray, depths: np.ndarray, faces: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
  """(int64 [size * size], the face nearest to the eye at the middle of each pixel, -1: none; float32, its depth).

  Args:
    places: [V, 2], columns and rows of the vertices. depths: [V]. faces: [F, 3].
  """
  nearest, depth = np.full(size * size, -1), np.full(size * size, np.inf, np.float32)
  columns, rows = np.ascontiguousarray(places.T)
  low, high = [], []
  for axis in (columns, rows):
    first, second, third = (axis[faces[:, corner]] for corner in range(3))
    low.append(np.ceil(np.minimum(np.minimum(first, second), third) - 0.5).clip(0, size).astype(np.int32))
    high.append(np.floor(np.maximum(np.maximum(first, second), third) - 0.5).clip(-1, size - 1).astype(np.int32))
  wide, tall = (np.maximum(most - least + 1, 0) for least, most in zip(low, high))
  some = np.flatnonzero((wide > 0) & (tall > 0))  # no pixel's middle is near most small ones
  (ax, bx, cx), (ay, by, cy) = (axis[faces[some]].T.astype(np.float64) for axis in (columns, rows))
  twice = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
  flat = np.abs(twice) <= 1e-9
  twice[flat] = np.inf
  left, top, wide = low[0][some], low[1][some], wide[some]
  count = np.where(flat, 0, wide.astype(np.int64) * tall[some])
  its = depths[faces[some]]
  ends = np.cumsum(count)
  start = 0
  while start < len(some):
    before = ends[start - 1] if start else 0
    end = max(start + 1, int(np.searchsorted(ends, before + _AT_ONCE, side="right")))
    of_chunk = count[start:end]
    face = np.repeat(np.arange(start, end), of_chunk)
    place = np.arange(len(face)) - np.repeat(np.cumsum(of_chunk) - of_chunk, of_chunk)
    column, row = left[face] + place % wide[face], top[face] + place // wide[face]
    x, y = column + 0.5 - ax[face], row + 0.5 - ay[face]
    second = (x * (cy - ay)[face] - (cx - ax)[face] * y) / twice[face]
    third = ((bx - ax)[face] * y - x * (by - ay)[face]) / twice[face]
    inside = np.flatnonzero((second >= 0) & (third >= 0) & (second + third <= 1))
    face, pixel = face[inside], (row * size + column)[inside]
    second, third = second[inside], third[inside]
    far = (1 - second - third) * its[face, 0] + second * its[face, 1] + third * its[face, 2]
    closer = np.flatnonzero(far < depth[pixel])
    closer = closer[np.argsort(-far[closer], kind="stable")]  # of several the nearest is written last
    nearest[pixel[closer]], depth[pixel[closer]] = some[face[closer]], far[closer]
    start = end
  return nearest, depth
