"""Clouds of points: what is read of files and meshes and refused, what a view and a tower see."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcontrast.data import noise
from mmcontrast.data.record import BadRecord
from mmcontrast.data.settings import resolve
from mmcontrast.data.sources import open_source
from mmcontrast.encoders.point_transformer import PointTransformer, farthest_points, nearest_points
from mmcontrast.errors import UserError
from mmcontrast.modalities import MODALITIES
from mmcontrast.modalities.rows import to_npy

POINTS = MODALITIES["points"]
CLOUD = np.random.default_rng(0).uniform(0, 1, (50, 6)).astype(np.float32)
BOX = b"v 0 0 0\nv 2 0 0\nv 2 1 0\nv 0 1 0\nf 1 2 3\nf 1 3 4\n"


def npy(values):
  """A file of an array as it is, which `to_npy` would make float32."""
  file = io.BytesIO()
  np.save(file, values, allow_pickle=False)
  return file.getvalue()


def header(shape):
  """A file that says another shape of itself."""
  raw = npy(CLOUD)
  at = raw.index(b"\n")
  return raw[:10] + f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(at - 10) + raw[at:]


def settings(**options):
  options = {"count": 32, **options}
  return resolve({"views": {"points": options.pop("views", 1)}, "points": options})


def test_a_cloud_is_about_zero_and_in_a_ball():
  cloud = POINTS.cloud(to_npy(CLOUD))
  np.testing.assert_allclose(cloud[:, :3].mean(0), 0, atol=1e-6)
  np.testing.assert_allclose(np.linalg.norm(cloud[:, :3], axis=1).max(), 1, atol=1e-6)
  np.testing.assert_array_equal(cloud[:, 3:], CLOUD[:, 3:])
  with_normals = np.concatenate([CLOUD[:, :3], -CLOUD[:, 3:], CLOUD[:, 3:], CLOUD[:, :1]], 1)
  np.testing.assert_array_equal(POINTS.cloud(to_npy(with_normals)), cloud)
  assert (POINTS.cloud(to_npy(CLOUD[:, :3]))[:, 3:] == 0.5).all()


@pytest.mark.parametrize(("raw", "message"), [
  (b"v 0 0 0\nv 1 0 0\nv 0 1 0\n", "faces"), (to_npy(CLOUD[:, :2]), "points of 2 columns, and x, y, z are 3"),
  (to_npy(np.full((4, 3), np.nan)), "12 numbers are not finite, the first at point 0, column 0"),
  (to_npy(np.ones((4, 3))), "4 points at one place"), (b"\x93NUMPYx", "not a readable .npy"),
  (to_npy(np.full((300, 3), 123456.789, np.float32)), "300 points at one place"),  # whose mean is none of them
  (to_npy(np.ones((3, 99))), "of 99 columns: .* transpose it"),
  (to_npy(255 * CLOUD), "columns 3 to 5 are colours from 0 to 1, and here from .* divide those of bytes by 255"),
  (to_npy(np.concatenate([CLOUD[:, :3], CLOUD[:, :3] - 1], 1)), "leave out normals or put colours behind them"),
  (b"", "empty file"), (b"ply\nformat", r"neither a \.npy file nor a mesh in \.obj format: it begins with b'ply"),
  (npy(np.array([[True]])), "values of bool in place of numbers"),
  (npy(np.ones((2, 3), complex)), "values of complex128 in place of numbers"),
  (npy(np.full((2, 3), 1e300)), r"6 numbers are more than float32 holds, the first at point 0, column 0: 1e\+300"),
  (header("(30000000000, 6)"), "not a readable .npy"), (header("(9**9"), "not a readable .npy"),
])  # fmt: skip
def test_what_is_no_cloud_is_a_bad_record(raw, message):
  with pytest.raises(BadRecord, match=message):
    POINTS.decode({"points": {"surface": raw}}, settings())
  with pytest.raises(UserError, match=message) as caught:
    POINTS.accepts(raw, settings(), "points 0")
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("options", "message"), [
  (dict(count=2), r"points\.count"), (dict(rotate=200), "rotate: 200; give a number from 0 to 180"),
  (dict(scale=(0, 1)), r"points\.scale"), (dict(jiter=1), "did you mean 'jitter'"),
  (dict(scale=1), r"scale: 1; give \(low, high\)"), (dict(scale=("a", "b")), r"give \(low, high\)"),
  (dict(count=True), "count: True; give a whole number"),
])  # fmt: skip
def test_wrong_settings_are_one_line(options, message):
  with pytest.raises(UserError, match=message):
    settings(**options)


def test_a_mesh_is_sampled_on_its_surface(tmp_path):
  (tmp_path / "box.obj").write_bytes(BOX)
  value = POINTS.accepts(str(tmp_path / "box.obj"), settings(), "points 0")
  assert value.shape == (32, 6)
  np.testing.assert_allclose(value[:, 2], value[0, 2], atol=1e-6)  # a flat one
  picture = POINTS.show(BOX).picture
  assert picture.shape == (192, 192, 3) and (picture != 246).any()


def test_coordinates_may_be_large_or_small():
  """Of a map's metres, of atoms: what is seen does not depend on units or on where 0 lies."""
  expected = POINTS.cloud(npy(CLOUD))
  places, colours = CLOUD[:, :3].astype(np.float64), CLOUD[:, 3:]
  for scale, offset in ((1e-30, 0), (1e30, 0), (0.01, [4e5, 5e6, 100]), (1, 1e9)):
    raw = npy(np.concatenate([scale * places + offset, colours], 1))
    np.testing.assert_allclose(POINTS.cloud(raw), expected, atol=1e-4)
    given = POINTS.file_of(np.concatenate([scale * places + offset, colours], 1), "x")
    np.testing.assert_allclose(POINTS.cloud(given), expected, atol=1e-4)
  for kind in (">f4", np.float16, np.longdouble):
    np.testing.assert_allclose(POINTS.cloud(npy(CLOUD.astype(kind))), expected, atol=2e-3)
  box = POINTS.cloud(BOX)
  for scale in (1e-30, 1e30, 1e300):
    text = BOX.replace(b"2", f"{2 * scale:g}".encode()).replace(b" 1 0", f" {scale:g} 0".encode())
    text = text[: text.index(b"f")] + BOX[BOX.index(b"f") :]
    np.testing.assert_allclose(POINTS.cloud(text), box, atol=1e-5)


def test_a_mesh_has_its_materials_wherever_its_path_comes_from(tmp_path):
  (tmp_path / "box.obj").write_bytes(b"mtllib box.mtl\nmtllib " + b"x" * 300 + b"\nusemtl red\n" + BOX)
  (tmp_path / "box.mtl").write_bytes(b"newmtl red\nKd 1 0 0\n")
  found = [POINTS.accepts(thing, settings(), "x") for thing in (tmp_path / "box.obj", str(tmp_path / "box.obj"))]
  (tmp_path / "rows.jsonl").write_text('{"cloud": "box.obj", "caption": "a box"}\n')
  for dataset, source in ((f"jsonl:{tmp_path}/rows.jsonl", {"points": "cloud"}), (f"folder:{tmp_path}", {})):
    (raw,) = open_source({"dataset": dataset, "source": source}, "all")[0]["points"].values()
    found.append(POINTS.evaluation_view(raw, settings()))  # what is trained on is what is asked for
  np.testing.assert_array_equal(found, [found[0]] * 4)
  np.testing.assert_array_equal(found[0][:, 3:], [[1, 0, 0]] * 32)


def test_views_are_points_of_the_cloud_by_their_numbers():
  of, cloud = settings(views=2), POINTS.cloud(to_npy(CLOUD))
  into = {"points": np.zeros((2, 32, 6), np.float32)}
  POINTS.view({"surface": cloud}, {noise.stream("points"): np.array([0, 0, 0.1, 0.7])}, of, into)
  first, second = ({tuple(point) for point in view} for view in into["points"])
  assert len(first) == len(second) == 32 and first != second and first | second <= {tuple(point) for point in cloud}
  few = POINTS.accepts(to_npy(CLOUD[:10]), of, "")
  assert few.shape == (32, 6)


def test_a_view_says_which_pixel_shows_a_point():
  of = resolve({"views": {"points": 1}, "points": {"count": 32}, "facts": ("pixel",)})
  rows = np.concatenate([CLOUD, CLOUD, CLOUD[:, :1] - 2], 1)  # columns 10 and 11 are those of 4 and of 0, less 2
  rows[:, 11] = np.where(np.arange(50) % 2, rows[:, 0], -1)
  shapes = {name: shape for name, (shape, _) in POINTS.arrays(of).items()}
  assert shapes == {"points": (1, 32, 6), "points_pixel": (1, 32, 2)}
  into = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
  value = POINTS.decode({"points": {"surface": to_npy(rows[:, :12])}}, of)
  POINTS.view(value, {noise.stream("points"): np.array([0, 0.1])}, of, into)
  cloud = {tuple(point): number for number, point in enumerate(POINTS.cloud(to_npy(rows[:, :12])))}
  which = [cloud[tuple(point)] for point in into["points"][0]]
  np.testing.assert_array_equal(into["points_pixel"][0], rows[which, 10:12])
  told = POINTS.preparation({"data": of, "augment": {}}).facts({"points_pixel": into["points_pixel"][None]}, True)
  np.testing.assert_array_equal(told["points"]["pixel"][0], into["points_pixel"])
  with pytest.raises(BadRecord, match=r"points of 10 columns, of which none says the pixel .* columns 10 and 11"):
    POINTS.decode({"points": {"surface": to_npy(rows[:, :10])}}, of)


def prepared(seeds, **options):
  config = {"data": settings(**options), "augment": {}}
  points = np.stack([POINTS.accepts(to_npy(CLOUD), config["data"], "")] * len(seeds))[:, None]
  batch = {"points": points, "seed": np.asarray(seeds, np.uint32)}
  return points[:, 0], np.asarray(POINTS.preparation(config)(batch, True)["points"].view(0).values)


def test_training_turns_about_the_vertical_axis_by_the_examples_seed():
  before, after = prepared([3, 4], scale=(1, 1), jitter=0)
  np.testing.assert_allclose(after[..., 1], before[..., 1], atol=1e-6)
  np.testing.assert_allclose(
    np.linalg.norm(after[..., :3], axis=-1), np.linalg.norm(before[..., :3], axis=-1), atol=1e-5
  )
  assert np.abs(after[0, :, 0] - after[1, :, 0]).max() > 0.05
  np.testing.assert_array_equal(after[1], prepared([4], scale=(1, 1), jitter=0)[1][0])
  assert not prepared([3], colours=False)[1][..., 3:].any()


def test_centres_and_groups_are_what_loops_give():
  places = np.asarray(POINTS.cloud(to_npy(CLOUD))[:, :3])
  chosen = [int(np.argmax((places**2).sum(1)))]
  while len(chosen) < 6:
    near = np.min(((places[:, None] - places[chosen]) ** 2).sum(-1), 1)
    chosen.append(int(np.argmax(near)))
  assert farthest_points(jnp.asarray(places), 6).tolist() == chosen
  found = nearest_points(jnp.asarray(places[chosen]), jnp.asarray(places), 4)
  far = ((places[chosen][:, None] - places) ** 2).sum(-1)
  assert [set(row) for row in np.asarray(found).tolist()] == [set(row) for row in np.argsort(far, 1)[:, :4].tolist()]


def test_the_order_of_points_changes_nothing():
  tower = PointTransformer(width=8, depth=1, heads=2, groups=4, size=5, hidden=4)
  points = jnp.asarray(POINTS.cloud(to_npy(CLOUD)))[None]
  variables = jax.jit(lambda: tower.init(jax.random.key(0), points, train=False))()
  run = jax.jit(lambda points: tower.apply(variables, points, train=False))
  made = run(points)
  assert made.tokens.shape == (1, 4, 8) and made.pooled.shape == (1, 8)
  np.testing.assert_array_equal(made.places[0], farthest_points(points[0, :, :3], 4))
  np.testing.assert_allclose(run(points[:, ::-1]).pooled, made.pooled, atol=1e-5)
  assert np.abs(run(points.at[..., 3:].set(0)).pooled - made.pooled).max() > 1e-4
  with pytest.raises(UserError, match="clouds of 50 points do not make 64 groups of 5"):
    PointTransformer(width=8, depth=1, heads=2, groups=64, size=5).init(jax.random.key(0), points, train=False)
