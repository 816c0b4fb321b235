"""A model as two functions: what they take, and that the number given at once changes nothing."""

import numpy as np
import pytest
from PIL import Image
from tiny import tiny_inference

from mmcontrast.data.transforms import evaluation_view
from mmcontrast.errors import UserError


@pytest.fixture(scope="module")
def model():
  return tiny_inference()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
  """Photographs of several sizes: arrays, and the paths where they are."""
  draw, folder = np.random.default_rng(1), tmp_path_factory.mktemp("pictures")
  arrays = [draw.integers(0, 255, (20 + number, 31 - 2 * number, 3), np.uint8) for number in range(8)]
  for number, array in enumerate(arrays):
    Image.fromarray(array).save(folder / f"{number}.png")
  return arrays, [folder / f"{number}.png" for number in range(8)]


def test_images_of_any_form_and_number(model, pictures):
  arrays, paths = pictures
  rows = model.encode_image(paths)
  assert rows.shape == (8, 4) and rows.dtype == np.float32
  np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
  assert np.unique(rows.round(4), axis=0).shape == (8, 4)
  views = np.stack([evaluation_view(array, model.data) for array in arrays])
  np.testing.assert_array_equal(rows, model.embed("image", views))
  np.testing.assert_allclose(model.encode_image([Image.open(paths[0]), arrays[1], str(paths[2])]), rows[:3], atol=1e-6)
  for one in (paths[3], str(paths[3]), Image.open(paths[3]), arrays[3]):
    np.testing.assert_allclose(model.encode_image(one), rows[3:4], atol=1e-6)
  np.testing.assert_allclose(model.encode_image(np.stack([arrays[0]] * 2)), rows[[0, 0]], atol=1e-6)
  np.testing.assert_allclose(model.encode_image(path for path in paths), rows, atol=1e-6)


def test_texts(model):
  texts = [f"{'a' * number}" for number in range(1, 14)]
  rows = model.encode_text(texts)
  assert rows.shape == (13, 4) and rows.dtype == np.float32
  np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
  np.testing.assert_allclose(model.encode_text("aa"), rows[1:2], atol=1e-6)
  np.testing.assert_allclose(model.encode_text(tuple(texts[:3])), rows[:3], atol=1e-6)


def test_few_are_padded_to_few_shapes(model):
  shapes = []
  counting = tiny_inference()
  counting._encode = lambda kind, variables, values: shapes.append(len(values)) or np.zeros((len(values), 4))
  for count in (1, 2, 3, 4, 5, 6, 7, 20):
    assert len(counting.encode_text(["a"] * count)) == count
  assert shapes == [1, 2, 4, 4, 6, 6, 6, 6, 6, 6, 6, 6]  # the largest are whole batches


def test_without_a_joint_space_images_are_the_towers_features(pictures):
  alone = tiny_inference(image="", text="")
  rows = alone.encode_image(pictures[0][:2])
  assert rows.shape == (2, 8)
  np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
  with pytest.raises(UserError, match=r"encode_text: config\.evaluation\.text names no head"):
    alone.encode_text("a")


@pytest.mark.parametrize("wrong, message", [
  ([], "nothing to encode"),
  (["/nowhere/cat.png"], "/nowhere/cat.png: No such file"),
  (np.zeros((4, 4), np.uint8), r"image: uint8 \[4\] is not uint8 \[H, W, 3\]"),
  ([np.zeros((4, 4, 3), np.float32)], r"float32 \[4, 4, 3\] is not uint8"),
  ([np.zeros((0, 4, 3), np.uint8)], "is not uint8"),
  ([b"bytes"], "give a path, a Pillow image"),
])
def test_what_is_no_image(model, wrong, message):
  with pytest.raises(UserError, match=message) as caught:
    model.encode_image(wrong)
  assert "\n" not in str(caught.value)


def test_what_is_no_file_of_an_image_and_no_text(model, tmp_path):
  (tmp_path / "note.png").write_text("no image")
  with pytest.raises(UserError, match=r"note\.png: not a readable image"):
    model.encode_image(tmp_path / "note.png")
  for wrong, message in (([], "nothing to encode"), (["a", None], "None is no text"), (b"a", "is no text")):
    with pytest.raises(UserError, match=message):
      model.encode_text(wrong)
