"""Meshes: OBJ files with their materials read as arrays, and points drawn from a surface.

Wavefront's OBJ: `v`, `vt` and `f` lines (polygons of any number of corners, indices from 1 or counted back from the
line), parts by `o` and `g`, materials by `usemtl`. A vertex may have a colour behind its place, as programs of
scanning write them: faces without a material have the mean of their corners'. Of a material the diffuse colour `Kd`,
the opacity `d` (or `Tr`) and the picture `map_Kd` are read: a face has one colour, of the picture where the middle of
the face lies. Normals of a file are left: a triangle has its normal. Curves and lines are left out.
"""

from __future__ import annotations

import codecs
import dataclasses
import io
import itertools
import math
from collections.abc import Callable

import numpy as np
from PIL import Image

from mmcontrast.data.record import BadRecord

MOST_FACES = 4_000_000  # triangles: what says more is damaged, or no example
_GREY = (0.8, 0.8, 0.8)  # of a face without a material, as programs of modelling have it


@dataclasses.dataclass(frozen=True)
class Mesh:
  """A surface of V vertices and F triangles; y is up.

  Attributes:
    vertices: float32 [V, 3].
    faces: int32 [F, 3], indices of vertices; counter-clockwise seen from outside, as far as the file keeps to that.
    colours: float32 [F, 3], red, green, blue in [0, 1].
    opacity: float32 [F], 1 of what cannot be seen through.
    parts: int32 [F], indices of `part_names`.
    part_names: of the parts that have faces, in the order of the file.
  """

  vertices: np.ndarray
  faces: np.ndarray
  colours: np.ndarray
  opacity: np.ndarray
  parts: np.ndarray
  part_names: tuple[str, ...]

  @property
  def corners(self) -> np.ndarray:
    """float32 [F, 3, 3]: the corners of each triangle."""
    return self.vertices[self.faces]

  def moved(self, matrix: np.ndarray, offset: np.ndarray | float = 0.0) -> Mesh:
    """The mesh with vertices `vertices @ matrix.T + offset`."""
    vertices = self.vertices @ np.asarray(matrix, np.float32).T + np.asarray(offset, np.float32)
    return dataclasses.replace(self, vertices=vertices.astype(np.float32))

  def box(self) -> np.ndarray:
    """float32 [2, 3]: the least and the largest coordinates of what has faces."""
    used = self.vertices[np.unique(self.faces)]
    return np.stack([used.min(axis=0), used.max(axis=0)])

  def fitted(self, size: tuple[float, float, float]) -> Mesh:
    """Stretched to `size` (x, y, z), its middle at x = z = 0 and its base at y = 0."""
    low, high = self.box()
    extent = high - low
    scale = np.where(extent > 1e-9, np.asarray(size, np.float32) / np.maximum(extent, 1e-9), 1.0)
    middle = np.array([(low[0] + high[0]) / 2, low[1], (low[2] + high[2]) / 2])
    return self.moved(np.diag(scale), -middle * scale)

  def normals(self) -> np.ndarray:
    """float32 [F, 3], unit length; zeros of a triangle without area."""
    crossed = _crossed(self.corners)
    length = np.linalg.norm(crossed, axis=1, keepdims=True)
    return np.divide(crossed, length, out=np.zeros_like(crossed), where=length > 0)

  def areas(self) -> np.ndarray:
    """float32 [F]."""
    return np.linalg.norm(_crossed(self.corners), axis=1) / 2


def surface_points(mesh: Mesh, count: int, seed: int) -> dict[str, np.ndarray]:
  """Points drawn uniformly from the surface; a pure function of its arguments.

  Returns:
    "positions" float32 [count, 3], "normals" float32 [count, 3], "colours" float32 [count, 3], "parts" int32 [count].

  Raises:
    BadRecord: a surface without area.
  """
  areas = mesh.areas().astype(np.float64)
  if not areas.sum() > 0:
    raise BadRecord("mesh without area: all its corners lie on lines")
  random = np.random.default_rng(seed)
  face = np.searchsorted(np.cumsum(areas) / areas.sum(), random.random(count), side="right")
  face = np.minimum(face, len(areas) - 1)
  first, second = random.random((2, count, 1)).astype(np.float32)
  root = np.sqrt(first)  # uniform in a triangle: Osada et al. 2002, "Shape distributions", section 3.1
  a, b, c = np.moveaxis(mesh.corners[face], 1, 0)
  positions = (1 - root) * a + root * (1 - second) * b + root * second * c
  return {
    "positions": positions.astype(np.float32),
    "normals": mesh.normals()[face],
    "colours": mesh.colours[face],
    "parts": mesh.parts[face],
  }


def read_obj(data: bytes, beside: Callable[[str], bytes | None] = lambda name: None, unit: bool = False) -> Mesh:
  """An OBJ file.

  Args:
    beside: the bytes of a file that it names (materials, pictures), or None where there is none; what is missing or
      cannot be read leaves the colour of the material, or grey.
    unit: moved and scaled, before numbers become float32, so that what has faces lies about 0 and reaches to 1.

  Raises:
    BadRecord: no mesh, one without faces, a corner that is no vertex, a coordinate that is not finite.
  """
  vertices, textures, bodies, seen, painted, parts = [], [], [], [], [], []
  material, group, files, materials, names = "", "", [], {}, {}
  for line in data.removeprefix(codecs.BOM_UTF8).replace(b"\\\r\n", b" ").replace(b"\\\n", b" ").splitlines():
    kind, rest = (*line.split(None, 1), b"")[:2] if line.strip() else (b"", b"")
    if kind == b"v":
      vertices.append(rest.partition(b"#")[0])
    elif kind == b"f":
      bodies.append(rest.partition(b"#")[0])
      seen.append((len(vertices), len(textures)))
      painted.append(materials.setdefault(material, len(materials)))
      parts.append(names.setdefault(group, len(names)))
    elif kind == b"vt":
      textures.append(rest.partition(b"#")[0])
    elif kind == b"usemtl":
      material = rest.strip().decode(errors="replace")
    elif kind in (b"o", b"g"):
      group = rest.strip().decode(errors="replace") or group
    elif kind == b"mtllib":
      files.append(rest.strip().decode(errors="replace"))
  if not bodies:
    raise BadRecord("mesh without faces" if vertices else "not a mesh: no line of it begins with v or f")
  if len(bodies) > MOST_FACES:
    raise BadRecord(f"mesh of {len(bodies)} faces, more than {MOST_FACES}")
  corners, counts = _corners(bodies, np.array(seen))
  triangles, owner = _triangles(counts)
  if len(triangles) > MOST_FACES:
    raise BadRecord(f"mesh of {len(triangles)} triangles, more than {MOST_FACES}")
  if not len(triangles):
    raise BadRecord("mesh without faces: none of them has three corners")
  points, tints = _vertices(vertices)
  used = corners[:, 0][triangles]
  if (outside := (used < 0) | (used >= len(points))).any():
    raise BadRecord(f"mesh whose face has the vertex {used[outside][0] + 1}, of {len(points)}")
  points = _as_float32(points, used, unit)
  kept, part_names = np.unique(np.array(parts)[owner], return_inverse=True), list(names)
  where = _middles(corners[:, 1][triangles], _numbers(textures, 2))
  plain = np.full((len(used), 3), _GREY) if tints is None else tints[used].mean(axis=1)
  known = _materials(files, beside)
  colours, opacity = _painted(list(materials), np.array(painted)[owner], where, known, beside, plain)
  return Mesh(
    points,
    used.astype(np.int32),
    colours,
    opacity,
    kept[1].astype(np.int32),
    tuple(part_names[index] for index in kept[0]),
  )


def _vertices(lines: list[bytes]) -> tuple[np.ndarray, np.ndarray | None]:
  """(float64 [V, 3], the places; float64 [V, 3], colours in [0, 1], None where not every vertex has one)."""
  counts = [len(line.split()) for line in lines]
  if lines and min(counts) < 3:
    place = next(place for place, count in enumerate(counts) if count < 3)
    raise BadRecord(f"mesh whose vertex {place + 1} has {counts[place]} numbers, and x, y, z are 3")
  if not lines or min(counts) < 6:
    return _numbers(lines, 3), None
  found = _numbers(lines, 6)
  tints = np.nan_to_num(found[:, 3:])
  return found[:, :3], np.clip(tints / 255 if tints.max() > 1 else tints, 0, 1)  # some programs write bytes


def _as_float32(points: np.ndarray, used: np.ndarray, unit: bool) -> np.ndarray:
  """Places as float32, those that no face has among them, as `read_obj` says. Raises BadRecord."""
  mine = points[used]
  if not np.isfinite(mine).all():
    raise BadRecord("mesh with coordinates that are not finite (NaN or infinity)")
  with np.errstate(all="ignore"):
    if unit:
      middle = mine.reshape(-1, 3).min(axis=0) / 2 + mine.reshape(-1, 3).max(axis=0) / 2
      reach = np.abs(mine - middle).max()
      points = (points - middle) / (reach or 1.0)
    points = points.astype(np.float32)
  if not np.isfinite(points[used]).all():
    raise BadRecord("mesh with coordinates that float32 does not hold")
  return points


def _crossed(corners: np.ndarray) -> np.ndarray:
  return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])


def _numbers(lines: list[bytes], count: int) -> np.ndarray:
  """float64 [N, count]: the first numbers of each line, 0 in place of those that it lacks."""
  try:
    rows = [(line.split() + [b"0"] * count)[:count] for line in lines]
    return np.array(list(map(float, itertools.chain.from_iterable(rows)))).reshape(-1, count)
  except ValueError as error:
    raise BadRecord(f"mesh with a coordinate that is no number ({error})") from None


def _corners(bodies: list[bytes], seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """(int64 [C, 2]: vertex and texture of each corner from 0, texture -1 for none; int64 [faces]: corners of each).

  `seen`: [faces, 2], how many vertices and textures stand before each face.
  """
  split = [body.split() for body in bodies]
  counts = np.array([len(tokens) for tokens in split])
  tokens = list(itertools.chain.from_iterable(split))
  try:
    form = tokens[0].count(b"/") if tokens else 0
    joined = b" ".join(tokens)
    if joined.count(b"/") == form * len(tokens) and b"//" not in joined:
      numbers = list(map(int, joined.replace(b"/", b" ").split()))
      found = np.array(numbers, np.int64).reshape(len(tokens), form + 1)
      found = found[:, :2] if form else np.pad(found, ((0, 0), (0, 1)))
    else:
      found = np.array([[int(part or 0) for part in [*token.split(b"/"), b"0"][:2]] for token in tokens], np.int64)
  except (ValueError, OverflowError) as error:
    raise BadRecord(f"mesh with a face that is no list of numbers ({error})") from None
  found = found.reshape(-1, 2)
  if (found[:, 0] == 0).any():
    raise BadRecord("mesh whose face has the vertex 0; they are counted from 1")
  return np.where(found < 0, found + np.repeat(seen, counts, axis=0), found - 1), counts  # back from the line


def _triangles(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """(int64 [F, 3] corners, int64 [F] faces): each polygon as a fan from its first corner."""
  starts, fans = np.cumsum(counts) - counts, np.maximum(counts - 2, 0)
  owner = np.repeat(np.arange(len(counts)), fans)
  place = np.arange(len(owner)) - np.repeat(np.cumsum(fans) - fans, fans)
  first = starts[owner]
  return np.stack([first, first + place + 1, first + place + 2], axis=1), owner


def _middles(corners: np.ndarray, textures: np.ndarray) -> np.ndarray:
  """float64 [F, 2]: where in a picture the middle of each triangle lies; NaN where it says nothing."""
  known = ((corners >= 0) & (corners < len(textures))).all(axis=1)
  where = np.full((len(corners), 2), np.nan)
  where[known] = textures[corners[known]].mean(axis=1)
  return where


def _materials(files: list[str], beside: Callable[[str], bytes | None]) -> dict[str, dict[str, str]]:
  """Material -> the words of its lines."""
  found: dict[str, dict[str, str]] = {}
  for name in files:
    current: dict[str, str] = {}
    for line in (beside(name) or b"").decode(errors="replace").splitlines():
      kind, _, rest = line.strip().partition(" ")
      if kind == "newmtl":
        current = found.setdefault(rest.strip(), {})
      elif kind:
        current[kind] = rest.strip()
  return found


def _painted(
  names: list[str],
  material: np.ndarray,
  where: np.ndarray,
  materials: dict,
  beside: Callable[[str], bytes | None],
  plain: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
  """(colours float32 [F, 3], opacity float32 [F]). `plain`: [F, 3], what faces without a material have."""
  colours, opacity = np.empty((len(material), 3), np.float32), np.ones(len(material), np.float32)
  for number, name in enumerate(names):
    faces = material == number
    words = materials.get(name, {})
    diffuse = _floats(words.get("Kd"))
    colours[faces] = np.clip(diffuse, 0, 1) if len(diffuse) == 3 else plain[faces]
    see = _floats(words.get("d")) or [1 - value for value in _floats(words.get("Tr"))]
    opacity[faces] = np.clip(see[0], 0, 1) if see else 1
    if "map_Kd" in words and (picture := _picture(beside(_file_of(words["map_Kd"])))) is not None:
      at = where[faces]
      height, width = picture.shape[:2]
      column = (np.nan_to_num(at[:, 0] % 1) * width).astype(int) % width
      row = (np.nan_to_num(1 - at[:, 1] % 1) * height).astype(int) % height
      seen = np.where(np.isnan(at[:, :1]), picture.reshape(-1, 4).mean(axis=0), picture[row, column])
      colours[faces] = seen[:, :3]
      opacity[faces] *= seen[:, 3]
  return colours, opacity


def _file_of(words: str) -> str:
  """The file of a line with or without options, which come first: "-s 1 1 1 wood.jpg"."""
  return words.split()[-1] if words.startswith("-") else words


def _floats(text: str | None) -> list[float]:
  try:
    return [number for word in (text or "").split() if math.isfinite(number := float(word))]
  except ValueError:
    return []


def _picture(data: bytes | None) -> np.ndarray | None:
  """float32 [H, W, 4] in [0, 1]; None where it is no picture."""
  try:
    image = Image.open(io.BytesIO(data or b"")).convert("RGBA")
  except Exception:  # a reader's errors are of many kinds, and one of them is for pictures that are too large
    return None
  image.thumbnail((256, 256))  # a face has one colour: that of its neighbourhood
  return np.asarray(image, np.float32) / 255
