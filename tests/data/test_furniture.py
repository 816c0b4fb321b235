"""Meshes drawn by a z-buffer, what is made of a piece of furniture, and clips that only time tells apart."""

import io

import numpy as np
import pytest
from PIL import Image

from mmcontrast.data.datasets import furniture
from mmcontrast.data.meshes import read_obj
from mmcontrast.data.rasteriser import depth_of_grey, grey_of_depth, placed, projected, turned, turntable
from mmcontrast.data.record import BadRecord, Info
from mmcontrast.data.sources import furniture as source
from mmcontrast.data.sources import open_source
from mmcontrast.data.sources.furniture_pixels import FurniturePixels, with_pixels
from mmcontrast.errors import UserError
from mmcontrast.modalities.video_reading import decode_frames, open_clip, packed
from mmcontrast.modalities.video_sampling import frame_indices

# A red square in front of a larger green one, both facing +z, the red one to the left of the middle.
TWO = b"""mtllib m.mtl
v -1 -1 0\nv 1 -1 0\nv 1 1 0\nv -1 1 0\nv -0.9 -0.5 0.5\nv -0.1 -0.5 0.5\nv -0.1 0.5 0.5\nv -0.9 0.5 0.5
o back\nusemtl green\nf 1 2 3 4\no front\nusemtl red\nf 5 6 7 8
"""
MATERIALS = b"newmtl green\nKd 0 1 0\nnewmtl red\nKd 1 0 0\n"


@pytest.fixture(scope="module")
def mesh():
  return read_obj(TWO, lambda name: MATERIALS)


def test_what_is_nearer_hides_what_is_behind(mesh):
  front, back = turntable(mesh, 40, [0, 180], elevation=0)
  red, green = (front.parts == 1), (front.parts == 0)
  assert red.any() and green.any() and (front.depth[red].max() < front.depth[green].min())
  assert (front.colour[red].argmax(-1) == 0).all() and np.isinf(front.depth[front.parts < 0]).all()
  columns = np.flatnonzero(red.any(axis=0))
  assert columns.mean() < 20  # to the left
  np.testing.assert_allclose(front.normals[red], np.broadcast_to([0, 0, 1], (red.sum(), 3)), atol=1e-6)
  assert not (back.parts == 1).any()  # behind the larger one


def test_turning_to_the_right_moves_the_front_to_the_right(mesh):
  point = np.array([[0.0, 0.0, 1.0]], np.float32)
  assert turned(point, 30.0, 0.0)[0, 0] > 0.4
  columns = [projected(turned(point, azimuth), 100)[0, 0] for azimuth in (0, 30, 60)]
  assert columns[0] == 50 and columns[0] < columns[1] < columns[2]
  assert np.linalg.norm(placed(mesh), axis=1).max() <= 1.0001


def test_a_view_agrees_with_rays_through_its_pixels(mesh):
  (view,) = turntable(mesh, 24, [25.0], elevation=15.0)
  points = turned(placed(mesh), 25.0, 15.0)
  fine = 48
  at = projected(points, fine).astype(np.float64)
  nearest = np.full((24, 24), np.inf)
  for face in mesh.faces:
    a, b, c = at[face]
    inverse = np.linalg.inv(np.stack([b - a, c - a], axis=1))
    for row in range(24):
      for column in range(24):
        s, t = inverse @ (np.array([2 * column + 0.5, 2 * row + 0.5]) - a)
        if s >= 0 and t >= 0 and s + t <= 1:
          depth = 4 - np.array([1 - s - t, s, t]) @ points[face, 2]
          nearest[row, column] = min(nearest[row, column], depth)
  np.testing.assert_allclose(view.depth, nearest, atol=1e-4)


def test_what_is_made_of_a_mesh(mesh):
  made = furniture.made_of(mesh, _icon(), seed=1)
  for style in furniture.STYLES:
    image = Image.open(io.BytesIO(made[style]))
    assert image.size == (96, 96) and image.mode == ("RGBA" if style == "icon" else "RGB")
  assert len({*Image.open(io.BytesIO(made["parts"])).getdata()}) == 3  # two parts, and nothing
  clip = open_clip(made["turntable"])
  assert clip.count == 16 and clip.size == (96, 96)
  points = np.load(io.BytesIO(made["surface"]))
  assert points.shape == (4096, 10) and points.dtype == np.float16 and set(points[:, 9]) == {0, 1}


def test_opposite_motions_have_the_same_frames():
  for motion, other in source.OPPOSITE.items():
    there, back = (source.order_of(one, 16) for one in (motion, other))
    assert sorted(there) == sorted(back) and there != back
    for draw in (0.1, 0.5, 0.9) if "left" in (motion, other) else ():  # and so have frames at even distances
      shown = frame_indices(16, 8, np.full(8, draw), "uniform")
      assert {there[place] for place in shown} == {back[place] for place in shown}
  assert source.order_of("front_first", 16) == source.order_of("back_first", 16)[::-1]
  assert source.order_of("left", 6) == [0, 5, 4, 3, 2, 1]
  frames = packed(np.full((8, 8, 3), 10 * number, np.uint8) for number in range(16))
  clip = open_clip(source._reordered(frames, "back_first"))
  shown = [int(frame[0, 0, 0]) // 10 for frame in decode_frames(clip, range(clip.count))]
  assert shown == [8, 7, 6, 5, 4, 3, 2, 1, 0]


def test_a_script_shows_its_four_parts_in_its_order():
  scripts = [source.script_of("Scopia#bed", number) for number in range(source.SCRIPTS)]
  assert len({*scripts}) == source.SCRIPTS and all({*script} == {*source.SCRIPT} for script in scripts)
  assert source.script_of("Scopia#bed", 1) != source.script_of("Scopia#lamp", 1)
  right, back, still, spun = [1, 2, 3, 4], [3, 2, 1, 0], [0] * 4, [4, 8, 12, 0]
  assert source.played(("right", "left", "still", "spin"), 16) == [*right, *back, *still, *spun]
  assert source.played(("left", "spin"), 16) == [15, 14, 13, 12, 0, 4, 8, 12]


class Base(list):
  """Records as a source."""

  def __init__(self, records, info):
    super().__init__(records)
    self.info = info


def test_a_clip_of_a_script_and_its_captions():
  clip = packed(np.full((8, 8, 3), 10 * number, np.uint8) for number in range(16))
  record = {"name": "bed-1", "id": 7, "video": {"turntable": clip}, "captions": {"caption": ["iron bed", "other"]}}
  info = Info("furniture", (), (), {}, keys={"video": ("turntable",)})
  scripts = source.FurnitureScripts(Base([record], info))
  made, script = scripts[2], source.script_of("bed-1", 2)
  assert len(scripts) == 4 and made["id"] == 7 and scripts.info.caption_fields == source.PARTS
  assert [made["captions"][part] for part in source.PARTS] == [[f"iron bed {source.SCRIPT[one][0]}"] for one in script]
  opened = open_clip(made["video"]["clip"])
  shown = [int(frame[0, 0, 0]) // 10 for frame in decode_frames(opened, range(opened.count))]
  assert shown == source.played(script, 16)


def test_turns_in_one_order_and_in_both():
  clip = packed(np.full((8, 8, 3), 10 * number, np.uint8) for number in range(16))
  info = Info("furniture", (), (), {}, keys={"video": ("turntable",)})
  record = {"name": "bed-1", "id": 7, "video": {"turntable": clip}, "captions": {"caption": ["iron bed", "other"]}}
  both, one = (source.FurnitureTurns(Base([record], info), both=way) for way in (True, False))
  assert len(both) == len(one) == 4 and both.info.caption_fields == both.info.keys["video"] == source.ORDERS
  for number, pair in enumerate(source.PAIRS):
    made = both[number]
    assert made["id"] == 28 + number and [source.PAIRS[number][0], source.OPPOSITE[pair[0]]] == [
      list(source.MOTIONS)[made["labels"][label]] for label in ("motion", "reversed_motion")
    ]
    for order, motion in zip(source.ORDERS, pair):
      (alone,) = (other for other in map(one.__getitem__, range(4)) if other["name"] == f"bed-1-{motion}")
      assert made["captions"][order] == alone["captions"]["caption"] == [f"iron bed {source.MOTIONS[motion]}"]
      assert made["video"][order] == alone["video"]["clip"]
      assert list(source.MOTIONS)[alone["labels"]["motion"]] == motion and alone["id"] == 28 + alone["labels"]["motion"]


def test_points_know_the_pixel_that_shows_them(mesh):
  """Of the front square all but some at its edge, of the back one what it does not hide, by parts of the picture."""
  mesh = mesh.fitted((2.0, 2.0, 0.5))  # as pieces are: on the floor, in the middle
  made = furniture.made_of(mesh, _icon(), seed=1)
  points = np.load(io.BytesIO(made["surface"])).astype(np.float32)
  grey = np.asarray(Image.open(io.BytesIO(made["depth"])))[..., 0]
  found = with_pixels(points, depth_of_grey(grey))
  assert found.shape == (4096, 12) and (found[:, :10] == points).all()
  seen = found[:, 10] >= 0
  column, row = (found[:, 10:] * 96).astype(int).T
  (view,) = turntable(mesh, 96, [0.0])
  truth = projected(turned(placed(mesh), 0.0), 1)  # of the mesh itself, corners
  assert seen[points[:, 9] == 1].mean() > 0.95 and 0.6 < seen[points[:, 9] == 0].mean() < 0.95
  assert (view.parts[row[seen], column[seen]] == points[seen, 9]).mean() > 0.97
  front = found[(points[:, 9] == 1) & seen, 10:]
  assert front.min(0) == pytest.approx(truth[4:].min(0), abs=0.02)
  assert front.max(0) == pytest.approx(truth[4:].max(0), abs=0.02)
  depth = np.array([[2.5, 4.0], [np.inf, 5.49]], np.float32)
  np.testing.assert_allclose(depth_of_grey(grey_of_depth(depth)), depth, atol=0.5 * 3 / 255 + 1e-6)

  record = {"images": {"render": made["render"], "depth": made["depth"]}, "points": {"surface": made["surface"]}}
  pixels = FurniturePixels(Base([record], Info("furniture", (), (), {}, keys={"points": ("surface",)})))
  assert pixels.info.styles == ("render",) and set(pixels[0]["images"]) == {"render"}
  np.testing.assert_array_equal(np.load(io.BytesIO(pixels[0]["points"]["surface"])), found)
  with pytest.raises(BadRecord, match=r"points of shape \(4, 6\), not \[N, 10\]"):
    with_pixels(np.zeros((4, 6)), depth)


def _icon():
  icon = io.BytesIO()
  Image.new("RGBA", (30, 20), (200, 0, 0, 255)).save(icon, "PNG")
  return icon.getvalue()


def test_what_is_refused(tmp_path):
  for name, options, message in (
    ("furniture_turns", {"of": "x"}, "furniture_turns: data.source: no option 'of'"),
    ("furniture_turns", {"orders": "all"}, "data.source.orders: no such choice 'all'"),
    ("furniture_scripts", {"of": "x"}, "furniture_scripts takes no path and no data.source"),
    ("furniture_pixels", {"of": "x"}, "furniture_pixels takes no path and no data.source"),
    ("furniture", {"video": "x"}, "furniture: data.source: no option 'video'"),
    ("furniture", {}, "dataset furniture is not in .*; run: mmcontrast data build furniture"),
  ):
    with pytest.raises(UserError, match=message):
      open_source({"dataset": name, "source": options}, "train", tmp_path)
