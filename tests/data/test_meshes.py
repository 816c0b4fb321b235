"""OBJ files as arrays, points of a surface, and the pieces of furniture: what is read, and what is bad."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from mmcontrast.data.datasets import furniture_pieces
from mmcontrast.data.meshes import read_obj, surface_points
from mmcontrast.data.record import BadRecord

SQUARE = b"v 0 0 0\nv 2 0 0\nv 2 2 0\nv 0 2 0\n"
CORNER = np.array([[0, 0, 0], [2, 0, 0], [2, 2, 0]], np.float32)


def test_polygons_are_fans_with_parts_and_materials():
  picture = io.BytesIO()
  Image.new("RGBA", (2, 2), (0, 0, 255, 255)).save(picture, "PNG")
  files = {
    "two.mtl": b"newmtl red\nKd 1 0 0\nd 0.25\nnewmtl wood\nKd 1 1 1\nmap_Kd -s 1 1 1 blue.png\n",
    "blue.png": picture.getvalue(),
  }
  text = (
    b"mtllib two.mtl\n" + SQUARE + b"vt 0.5 0.5\no seat\nusemtl red\nf 1 2 3 4\no leg\nusemtl wood\nf -4/1 -3/1 -2/1\n"
  )
  mesh = read_obj(text, files.get)
  assert mesh.faces.tolist() == [[0, 1, 2], [0, 2, 3], [0, 1, 2]]
  assert mesh.parts.tolist() == [0, 0, 1] and mesh.part_names == ("seat", "leg")
  assert mesh.colours.tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 1]] and mesh.opacity.tolist() == [0.25, 0.25, 1]
  np.testing.assert_array_equal(mesh.corners[0], CORNER)
  np.testing.assert_array_equal(mesh.areas(), [2, 2, 2])
  np.testing.assert_array_equal(mesh.normals()[0], [0, 0, 1])


@pytest.mark.parametrize(
  "face", [b"f 1 2 3", b"f 1/1 2/1 3/1", b"f 1//1 2//1 3//1", b"f 1/1/1 2/1/1 3/1/1", b"f 1 2//1 3/1"]
)
def test_every_form_of_a_face(face):
  mesh = read_obj(SQUARE + b"vt 0 0\nvn 0 0 1\n" + face)
  assert mesh.faces.tolist() == [[0, 1, 2]] and mesh.colours[0, 0] == np.float32(0.8)


@pytest.mark.parametrize(
  ("data", "message"),
  [
    (b"", "not a mesh: no line of it begins with v or f"),
    (SQUARE, "mesh without faces"),
    (SQUARE + b"f 1 2\n", "mesh without faces: none of them has three corners"),
    (SQUARE + b"f 1 2 9\n", "mesh whose face has the vertex 9, of 4"),
    (SQUARE + b"f 0 1 2\n", "mesh whose face has the vertex 0; they are counted from 1"),
    (SQUARE + b"f a b c\n", "mesh with a face that is no list of numbers"),
    (b"v 0 0 nan\n" + SQUARE + b"f 1 2 3\n", "mesh with coordinates that are not finite"),
    (b"v 0 0 x\n" + SQUARE + b"f 1 2 3\n", "mesh with a coordinate that is no number"),
    (b"v 0 0\n" + SQUARE + b"f 1 2 3\n", "mesh whose vertex 1 has 2 numbers, and x, y, z are 3"),
    (SQUARE + b"f 1/" + b"9" * 20 + b" 2/1 3/1\n", "mesh with a face that is no list of numbers"),
    (SQUARE + b"f 1 2 " + b"9" * 20, "mesh with a face that is no list of numbers"),
    (SQUARE.replace(b"2", b"1e300") + b"f 1 2 3\n", "mesh with coordinates that float32 does not hold"),
  ],
)
def test_a_bad_mesh_says_why(data, message):
  with pytest.raises(BadRecord, match=message):
    read_obj(data)


@pytest.mark.parametrize(
  "text",
  [
    b"\xef\xbb\xbf" + SQUARE + b"f 1 2 3\n",  # a byte order mark
    SQUARE.replace(b" ", b"\t").replace(b"\n", b"\r\n") + b"f\t1\t2\t3\r\n",
    SQUARE.replace(b"\n", b" # a corner\n") + b"f 1 2 3 # of three\n",
    SQUARE + b"f 1 \\\n2 3\n",
    SQUARE.replace(b"v 2 2 0", b"v 2 2 0 1") + b"f 1 2 3\n",  # a weight behind one of them
    SQUARE.replace(b"v 2 2 0", b"v 2 2 0 1 0 0") + b"f 1 2 3\n",  # a colour behind one of them
    SQUARE[: SQUARE.index(b"v 0 2 0")] + b"f -3 -2 -1\nv 9 9 9\n",  # back from the line, not from the end
  ],
)
def test_lines_as_programs_write_them(text):
  mesh = read_obj(text)
  np.testing.assert_array_equal(mesh.corners, [CORNER])
  np.testing.assert_array_equal(mesh.colours, np.full((1, 3), np.float32(0.8)))


def test_colours_of_vertices_are_those_of_faces_without_a_material():
  square = b"v 0 0 0 1 0 0\nv 2 0 0 1 0 0\nv 2 2 0 1 0 0\nv 0 2 0 0 0 1\n"
  text = b"mtllib a.mtl\n" + square + b"f 1 2 3\nf 1 3 4\nusemtl green\nf 1 2 3\nusemtl broken\nf 1 2 3\n"
  files = {"a.mtl": b"newmtl green\nKd 0 1 0\nnewmtl broken\nKd nan 0 0\n"}
  expected = [[1, 0, 0], [2 / 3, 0, 1 / 3], [0, 1, 0], [1, 0, 0]]
  np.testing.assert_allclose(read_obj(text, files.get).colours, expected, atol=1e-6)
  bytes_of_them = text.replace(b"0 1 0 0\n", b"0 255 0 0\n").replace(b"0 0 0 1\n", b"0 0 0 255\n")
  np.testing.assert_allclose(read_obj(bytes_of_them, files.get).colours, expected, atol=1e-6)


def test_points_lie_on_the_surface_and_follow_its_area():
  # Two triangles, one of four times the other's area, in planes that differ.
  mesh = read_obj(b"v 0 0 0\nv 2 0 0\nv 0 2 0\nv 0 0 5\nv 1 0 5\nv 0 1 5\no a\nf 1 2 3\no b\nf 4 5 6\n")
  points = surface_points(mesh, 5000, seed=3)
  assert abs((points["parts"] == 0).mean() - 0.8) < 0.03
  np.testing.assert_allclose(points["positions"][:, 2], np.where(points["parts"] == 0, 0, 5), atol=1e-5)
  x, y = points["positions"][points["parts"] == 0, :2].T
  assert x.min() >= 0 and y.min() >= 0 and (x + y).max() <= 2.0001
  np.testing.assert_allclose([x.mean(), y.mean()], 2 / 3, atol=0.05)
  np.testing.assert_array_equal(surface_points(mesh, 7, 3)["positions"], surface_points(mesh, 7, 3)["positions"])
  with pytest.raises(BadRecord, match="mesh without area"):
    surface_points(read_obj(b"v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n"), 5, 0)


def test_a_mesh_is_fitted_to_the_size_of_the_thing():
  mesh = read_obj(SQUARE + b"v 9 9 9\nf 1 2 3 4\n").fitted((1.0, 3.0, 5.0))
  np.testing.assert_allclose(mesh.box(), [[-0.5, 0, 0], [0.5, 3, 0]], atol=1e-6)


@pytest.fixture
def catalogue(tmp_path):
  english = (
    "id#1=Scopia#chair\nname#1=Garden chair\ntags#1=Seat, SCPTS\ncategory#1=Exterior\nicon#1=/c.png\nmodel#1=/c/c.obj\n"
    "width#1=50\ndepth#1=40\nheight#1=100\ncreator#1=Scopia\nmodelRotation#1=1 0 0 0 0 -1 0 1 0\n"
  )
  with zipfile.ZipFile(tmp_path / "Scopia.sh3f", "w") as made:
    for language in furniture_pieces.LANGUAGES:
      name = "PluginFurnitureCatalog" + {"en": "", "zh": "_zh_TW"}.get(language, f"_{language}")
      made.writestr(f"{name}.properties", english if language == "en" else "name#1=St\\u00fchl\\:\n")
    made.writestr("c/c.obj", SQUARE + b"f 1 2 3 4\n")
    made.writestr("c.png", b"png")
  return tmp_path


def test_a_piece_of_furniture(catalogue):
  (piece,) = furniture_pieces.read_pieces(catalogue)
  assert (piece.key, piece.name, piece.category, piece.tags) == ("Scopia#chair", "garden chair", "Exterior", ("seat",))
  assert piece.names["de"] == "Stühl:" and set(piece.names) == set(furniture_pieces.LANGUAGES)
  assert piece.licence == "CC BY 3.0" and piece.creator == "Scopia" and piece.icon() == b"png"
  # Turned: what was up, y, is depth, z; then fitted to width, height and depth in metres.
  np.testing.assert_allclose(piece.mesh().box(), [[-0.25, 0, -0.2], [0.25, 0, 0.2]], atol=1e-6)
