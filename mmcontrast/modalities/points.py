"""Points: clouds on the surfaces of things, with colours.

points        [V, P, 6]  float32, config.data.views.points clouds of config.data.points.count points: x, y, z, and red,
                          green, blue
points_pixel  [V, P, 2]  float32, with "pixel" in data.facts: where in the image each point is seen
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from mmcontrast.data import noise, transforms
from mmcontrast.data.checks import check_counts, check_range
from mmcontrast.data.meshes import read_obj, surface_points
from mmcontrast.data.record import BadRecord, Record
from mmcontrast.errors import UserError, one_line
from mmcontrast.modalities.modality import Modality
from mmcontrast.modalities.rows import NPY, RowsInUse, to_npy
from mmcontrast.modalities.use import Shown
from mmcontrast.modalities.views import Inputs, Preparation, Schema, Settings

_STREAM = noise.stream("points")
_SIDE, _PAPER = 192, 246
_OF_A_MESH = 8192  # points that are taken of a mesh from outside
_LINE_OF_OBJ = re.compile(rb"^\s*[vf]\s", re.MULTILINE)
_SLACK = 0.01  # by which a colour may be below 0 or above 1, rounded or interpolated
_MOST_COLUMNS = 64  # of fewer points than columns: those are rows, and it is transposed


class Points(RowsInUse, Modality):
  """Decoded: float32 [N, 6] by column, around 0 and within a ball of radius 1.

  Stored: a .npy file [N, 3 or more]: x, y, z, y up; of 6 columns or more the last ones are red, green, blue from 0 to 1
  (of 9 and more, as `furniture` has them, columns 6 to 8 are, after the normals); others are grey. Of 12 and more,
  columns 10 and 11 are the pixel that shows the point, x and y in shares of the image's sides, -1 for none. A mesh
  in .obj format is taken too, and its surface sampled evenly.
  """

  name, a, nouns, asked = "points", "a point cloud", "point clouds", "the path of a point cloud"
  taken = "give a path or the bytes of a .npy or .obj file, or an array [points, 3 or more]"
  row, column, field, suffixes = "point", "column", "points", (".obj",)
  source_option, absent, view_sets = "points", "no points", ("points",)
  source_options: ClassVar = {"points": None}
  facts: ClassVar = {
    "pixel": "where in the image each of its points is seen: x, y in shares of the sides, -1 where it is not"
  }
  defaults: ClassVar = {
    "points": {
      "count": 1024,  # of a view, drawn of those that there are; evaluation has every n-th
      # In training: turned about the vertical axis by up to so many degrees, made larger or smaller, each point moved
      # by normal noise of such a deviation.
      "rotate": 180.0,
      "scale": (0.8, 1.2),
      "jitter": 0.01,
      "colours": True,  # whether the tower sees them
    }
  }

  def check(self, settings: Settings) -> None:
    of = settings["points"]
    check_counts(of, {"count": 8}, "data.points")
    check_range(of["scale"], "data.points.scale")
    for key, most in (("rotate", 180), ("jitter", 1)):
      if isinstance(of[key], bool) or not isinstance(of[key], int | float) or not 0 <= of[key] <= most:
        raise UserError(f"data.points.{key}: {of[key]!r}; give a number from 0 to {most}")

  # On the host.

  def arrays(self, settings: Settings) -> Schema:
    views, count = settings["views"]["points"], settings["points"]["count"]
    found: Schema = {"points": ((views, count, 6), np.float32)} if views else {}
    return found | ({"points_pixel": ((views, count, 2), np.float32)} if found and "pixel" in settings["facts"] else {})

  def decode(self, record: Record, settings: Settings) -> dict[str, np.ndarray]:
    """Clouds [N, 6] by column; [N, 8] where pixels are asked for."""
    made = self._seen_cloud if "pixel" in settings["facts"] else self.cloud
    return {key: made(raw) for key, raw in record.get("points", {}).items()}

  def nbytes(self, value: Mapping[str, np.ndarray]) -> int:
    return sum(cloud.nbytes for cloud in value.values())

  def numbers(self, settings: Settings) -> dict[int, int]:
    return {_STREAM: 2 * settings["views"]["points"]}  # which column, and which of its points

  def view(self, value: Mapping[str, np.ndarray], numbers: Mapping, settings: Settings, into: Mapping) -> None:
    if not value:
      return
    which, drawn = np.split(numbers[_STREAM], 2)
    for view, cloud in enumerate(transforms.choose_distinct(list(value.values()), which)):
      draw = None if settings.get("as_evaluated") else drawn[view]
      shown = _some(cloud, settings["points"]["count"], draw)
      into["points"][view] = shown[:, :6]
      if "points_pixel" in into:
        into["points_pixel"][view] = shown[:, 6:]

  def wide_rows(self, raw: bytes) -> np.ndarray:
    if not raw or raw[: len(NPY)] == NPY:
      return super().wide_rows(raw)
    if not _LINE_OF_OBJ.search(raw):
      raise BadRecord(f"neither a .npy file nor a mesh in .obj format: it begins with {raw[:8]!r}")
    return _of_mesh(raw, lambda name: None)

  def cloud(self, raw: bytes) -> np.ndarray:
    """float32 [N, 6] of what is stored. Raises BadRecord."""
    return self._cloud_of(self.wide_rows(raw))

  def _cloud_of(self, found: np.ndarray) -> np.ndarray:
    count, columns = found.shape
    if columns < 3:
      raise BadRecord(f"points of {columns} columns, and x, y, z are 3")
    if columns > max(count, _MOST_COLUMNS):
      raise BadRecord(f"{count} points of {columns} columns: is it [columns, points]? transpose it")
    places = found[:, :3].astype(np.float64)
    if not np.ptp(places, axis=0).any():
      raise BadRecord(f"{count} points at one place")
    # In float64, and about one of them first: a scan's coordinates may be large where what is seen is small.
    places -= places[0]
    places -= places.mean(0)
    places /= np.abs(places).max()
    places /= np.sqrt((places**2).sum(1).max())
    if columns < 6:
      return np.concatenate([places, np.full_like(places, 0.5)], 1).astype(np.float32)
    first = 6 if columns >= 9 else 3
    colours = found[:, first : first + 3]
    if colours.min() < -_SLACK or colours.max() > 1 + _SLACK:
      raise BadRecord(
        f"columns {first} to {first + 2} are colours from 0 to 1, and here from {colours.min():g} to "
        f"{colours.max():g}; divide those of bytes by 255, and leave out normals or put colours behind them"
      )
    return np.concatenate([places, np.clip(colours, 0, 1)], 1).astype(np.float32)

  def _seen_cloud(self, raw: bytes) -> np.ndarray:
    """float32 [N, 8]: as `cloud`, and x and y of the pixel that shows a point. Raises BadRecord."""
    found = self.wide_rows(raw)
    if found.shape[1] < 12:
      raise BadRecord(
        f"points of {found.shape[1]} columns, of which none says the pixel that data.facts asks for; x and y are "
        "columns 10 and 11"
      )
    return np.concatenate([self._cloud_of(found), found[:, 10:12].astype(np.float32)], 1)

  # On the device.

  def preparation(self, config: Mapping[str, Any]) -> PointPreparation:
    if (recipe := config["augment"].get("points", "none")) != "none":
      raise UserError(f"config.augment.points: {recipe!r}; points are changed by data.points.rotate, .scale and "
                      ".jitter alone, leave it out")  # fmt: skip
    settings = config["data"]
    of = settings["points"]
    return PointPreparation(
      tuple(self.arrays(settings)), float(of["rotate"]), tuple(of["scale"]), float(of["jitter"]), bool(of["colours"])
    )

  # In use.

  def evaluation_view(self, raw: bytes, settings: Mapping) -> np.ndarray:
    return _some(self.cloud(raw), settings["points"]["count"], None)

  def file_of(self, thing: Any, name: str) -> bytes:
    """As of any modality; of a mesh the points of its surface, with the colours of files beside it."""
    path = pathlib.Path(thing) if isinstance(thing, str | os.PathLike) else None
    if path and path.name.lower().endswith(".obj") and path.is_file():
      folder = path.parent

      def beside(other: str) -> bytes | None:
        there = folder / other
        try:
          inside = folder.resolve() in there.resolve().parents
          return there.read_bytes() if inside and there.is_file() else None
        except (OSError, ValueError):  # no name that a file can have
          return None

      try:
        return to_npy(_of_mesh(path.read_bytes(), beside))
      except BadRecord as error:
        raise UserError(f"{thing}: {error}; {self.taken}") from None
      except OSError as error:
        raise UserError(f"{thing}: {one_line(error)}; {self.taken}") from None
    return super().file_of(thing, name)

  def of_file(self, data: bytes, beside: Callable[[str], bytes | None]) -> bytes:
    """Of a mesh that names files of materials the points of its surface, which have their colours."""
    if data[: len(NPY)] == NPY or b"mtllib" not in data:
      return data
    try:
      return to_npy(_of_mesh(data, beside))
    except BadRecord:
      return data  # whoever decodes it will say why

  def size(self, settings: Mapping) -> str:
    return f"clouds of {settings['points']['count']} points"

  def show(self, thing: Any) -> Shown:
    return Shown(seen(self.cloud(thing) if isinstance(thing, bytes) else np.asarray(thing)))


@dataclasses.dataclass(frozen=True)
class PointPreparation(Preparation):
  """Turned, scaled and jittered in training, each example by its seed; colours from -1 to 1, or none."""

  rotate: float
  scale: tuple[float, float]
  jitter: float
  colours: bool

  def __call__(self, batch: Mapping[str, jax.Array], train: bool) -> dict[str, Inputs]:
    values = batch["points"]
    places, colours = values[..., :3], 2 * values[..., 3:] - 1
    if train:
      places = jax.vmap(self._moved)(places, batch["seed"])
    return {"points": Inputs(jnp.concatenate([places, colours if self.colours else jnp.zeros_like(colours)], -1))}

  def facts(self, batch: Mapping[str, jax.Array], train: bool) -> dict[str, dict[str, jax.Array]]:
    """ "pixel": [B, V, P, 2]."""
    return {"points": {"pixel": batch["points_pixel"]}} if "points_pixel" in batch else {}

  def _moved(self, places: jax.Array, seed: jax.Array) -> jax.Array:
    """[V, P, 3], the views of one example."""
    turn, size, move = jax.random.split(jax.random.fold_in(jax.random.key(seed), _STREAM % 2**31), 3)
    angle = jnp.radians(jax.random.uniform(turn, (len(places), 1), minval=-self.rotate, maxval=self.rotate))
    x, y, z = (places[..., axis] for axis in range(3))
    turned = jnp.stack([x * jnp.cos(angle) + z * jnp.sin(angle), y, z * jnp.cos(angle) - x * jnp.sin(angle)], -1)
    factor = jax.random.uniform(size, (len(places), 1, 1), minval=self.scale[0], maxval=self.scale[1])
    return factor * turned + self.jitter * jax.random.normal(move, places.shape, places.dtype)


def _of_mesh(raw: bytes, beside: Callable[[str], bytes | None]) -> np.ndarray:
  """float32 [_OF_A_MESH, 9] of a mesh's surface, within a ball of 1 or so: places, normals, colours."""
  sampled = surface_points(read_obj(raw, beside, unit=True), _OF_A_MESH, 0)
  return np.concatenate([sampled["positions"], sampled["normals"], sampled["colours"]], 1)


def _some(cloud: np.ndarray, count: int, draw: float | None) -> np.ndarray:
  """`count` points of a cloud: by a uniform number, or every n-th without one; the same again where it has fewer."""
  if draw is None:
    return cloud[np.arange(count) * len(cloud) // count if count <= len(cloud) else np.arange(count) % len(cloud)]
  order = np.random.Generator(np.random.Philox(int(draw * 2**53))).permutation(len(cloud))
  return cloud[np.resize(order, count)]


def seen(cloud: np.ndarray, side: int = _SIDE) -> np.ndarray:
  """A picture of a cloud [N, 6] from the front and a little above, the nearest points last: uint8 [side, side, 3]."""
  x, y, z = cloud[:, :3].T
  turned, raised = np.radians(30), np.radians(20)
  across, deep = x * np.cos(turned) + z * np.sin(turned), z * np.cos(turned) - x * np.sin(turned)
  up, near = y * np.cos(raised) - deep * np.sin(raised), deep * np.cos(raised) + y * np.sin(raised)
  picture = np.full((side, side, 3), _PAPER, np.uint8)
  order = np.argsort(near)
  shade = 0.55 + 0.45 * (near - near.min()) / (np.ptp(near) + 1e-6)
  colours = (255 * cloud[:, 3:] * shade[:, None]).astype(np.uint8)
  for move in ((0, 0), (0, 1), (1, 0), (1, 1)):
    row = np.clip((side * (0.5 - 0.46 * up)).astype(int) + move[0], 0, side - 1)
    column = np.clip((side * (0.5 + 0.46 * across)).astype(int) + move[1], 0, side - 1)
    picture[row[order], column[order]] = colours[order]
  return picture
