"""Image views: where a crop lies, read from its pixels; small crops beside whole views."""

import io

import numpy as np
import pytest
from PIL import Image

from mmcontrast.data import image_views, pipeline, sources, transforms
from mmcontrast.data.settings import resolve, view_counts
from mmcontrast.errors import UserError
from mmcontrast.modalities import MODALITIES

WIDE, HIGH, COUNT = 300, 180, 40
CROP = {"scale": (0.1, 0.6), "ratio": (0.5, 2.0)}
SETTINGS = dict(views=dict(image=2), image_size=24, crop=CROP,
                multi_crop=dict(views=3, size=12, scale=(0.05, 0.14)))  # fmt: skip


def coordinates():
  """Red is 240 x, green 240 y, both from 0 to 1 over the image; blue is 0, which white is not."""
  x, y = np.meshgrid((np.arange(WIDE) + 0.5) / WIDE, (np.arange(HIGH) + 0.5) / HIGH)
  return np.rint(240 * np.stack([x, y, 0 * x], -1)).astype(np.uint8)


class Coordinates:
  """Examples that all are the one image whose pixels say where they are."""

  def __init__(self):
    self.info = sources.Info("coordinates", ("image",), (), {})
    buffer = io.BytesIO()
    Image.fromarray(coordinates()).save(buffer, "png")
    self._data = buffer.getvalue()

  def __len__(self):
    return COUNT

  def __getitem__(self, index):
    return sources.Record(images={"image": self._data}, captions={}, names={}, tags=np.zeros(0, np.uint8), labels={},
                          id=index, name=str(index), mirror_safe=index % 4 != 0)  # fmt: skip


@pytest.fixture(scope="module")
def batch():
  batches = pipeline.train_batches(SETTINGS, seed=1, batch_size=COUNT, source=Coordinates())
  try:
    return next(batches)
  finally:
    batches.close()


def assert_shows(pixels, box):
  """That `pixels` [S, S, 3] from 0 to 1 are the coordinates that `box` says; how many were compared."""
  size = len(pixels)
  left, top, right, bottom = box
  middle = (np.arange(size) + 0.5) / size
  x, y = np.broadcast_arrays(left + middle * (right - left), (top + middle * (bottom - top))[:, None])
  # At the border colours run out, or mix with white.
  edge_x, edge_y = (max(0.03, 1.5 * abs(high - low) / size) for low, high in ((left, right), (top, bottom)))
  inside = (np.minimum(x, 1 - x) > edge_x) & (np.minimum(y, 1 - y) > edge_y)
  found = 255 / 240 * np.asarray(pixels)
  np.testing.assert_allclose(found[inside][:, 0], x[inside], atol=0.006)
  np.testing.assert_allclose(found[inside][:, 1], y[inside], atol=0.006)
  return inside.sum()


def shown_box(pixels):
  """Left, top, right, bottom of the image that a crop [S, S, 3] shows, read from the middle of its own pixels."""
  size = len(pixels)
  columns, rows = pixels[size // 2, :, 0] / 240, pixels[:, size // 2, 1] / 240
  inner = slice(size // 4, size - size // 4)
  box = []
  for line in (columns, rows):
    step, first = np.polyfit(np.arange(size)[inner] + 0.5, line[inner].astype(float), 1)
    box.append((first, first + step * size))
  return np.array([box[0][0], box[1][0], box[0][1], box[1][1]])


def test_crops_show_a_share_of_their_image(batch):
  for name, share in (("image", CROP["scale"]), ("image_small", (0.05, 0.14))):
    crops = batch[name].reshape(-1, *batch[name].shape[2:])
    boxes = np.array([shown_box(pixels) for pixels in crops])
    for pixels, box in zip(crops, boxes):
      assert assert_shows(pixels / 255, box) > 20
    sides = boxes[..., 2:] - boxes[..., :2]
    areas = sides.prod(-1)
    assert boxes.min() >= -0.02 and boxes.max() <= 1.02 and areas.max() <= share[1] + 0.02
    assert areas.min() >= share[0] - 0.02 or (sides.max(-1) > 0.98)[areas < share[0]].all()  # cut to fit
    assert areas.std() > 0.02 and boxes[..., 0].std() > 0.1


@pytest.mark.parametrize("crop", [{"zoom_out": 3.0}, {"scale": (1.0, 1.0), "ratio": None}, {"ratio": None}])
def test_other_crops(crop):
  crop = {**transforms.CROP, **CROP, **crop}
  image = coordinates()
  compared = 0
  for draws in np.random.default_rng(0).random((12, transforms.DRAWS)):
    pixels = transforms.random_crop(image, 32, draws, crop)
    _, (x, y), box = transforms._place(WIDE, HIGH, draws, crop)
    box = (np.array(box) - (x, y, x, y)) / (WIDE, HIGH, WIDE, HIGH)
    compared += assert_shows(pixels / 255, box)
    if crop["scale"] == (1.0, 1.0):
      np.testing.assert_allclose(box, (0, 0, 1, 1), atol=1e-6)
    elif crop["ratio"] is None:
      np.testing.assert_allclose(box[2] - box[0], box[3] - box[1], rtol=1e-5)
  assert compared > 500
  if crop["zoom_out"] > 1:
    assert (pixels == 255).all(-1).any() and (box.min() < 0 or box.max() > 1)


def test_small_crops_leave_the_others_as_they_are(batch):
  whole = {**SETTINGS, "multi_crop": dict(views=0)}
  batches = pipeline.train_batches(whole, seed=1, batch_size=COUNT, source=Coordinates())
  alone = next(batches)
  batches.close()
  assert set(batch) - set(alone) == {"image_small"}
  for name in alone:
    np.testing.assert_array_equal(alone[name], batch[name], err_msg=name)
  assert len(np.unique(batch["image_small"].reshape(COUNT * 3, -1), axis=0)) == COUNT * 3


def test_processes_share_out_the_same_views(batch):
  for part in range(2):
    batches = pipeline.train_batches(SETTINGS, seed=1, batch_size=COUNT, source=Coordinates(), process_index=part,
                                     process_count=2)  # fmt: skip
    rows, own = slice(part * COUNT // 2, (part + 1) * COUNT // 2), next(batches)
    batches.close()
    for name in ("image", "image_small"):
      np.testing.assert_array_equal(own[name], batch[name][rows])


def test_small_crops_go_on_with_the_drawings():
  drawings = {style: np.full((30, 30, 3), (shade, 0, 0), np.uint8) for style, shade in (("a", 50), ("b", 200))}
  for how in ("distinct", "same"):
    settings = resolve({**SETTINGS, "drawings": how})
    shapes = image_views.shapes(settings)
    views = {name: np.zeros((20, *shape), dtype) for name, (shape, dtype) in shapes.items()}
    for row, numbers in enumerate(np.random.default_rng(0).random((20, 5, 1 + transforms.DRAWS))):
      into = {name: array[row] for name, array in views.items()}
      image_views.draw(drawings, settings, numbers[:, 0], numbers[:, 1:], into)
    large, small = (views[name][:, :, 5, 5, 0] for name in ("image", "image_small"))
    expected = large[:, [0, 1, 0]] if how == "distinct" else large[:, [0, 0, 0]]
    np.testing.assert_array_equal(small, expected)
    assert (large[:, 0] == large[:, 1]).all() == (how == "same") and len(set(large[:, 0])) == 2


def test_an_example_without_images_is_black():
  settings = resolve(SETTINGS)
  into = {name: np.zeros(shape, dtype) for name, (shape, dtype) in image_views.shapes(settings).items()}
  MODALITIES["image"].view({}, {}, settings, into)
  assert not any(array.any() for array in into.values())


def test_shapes_are_those_of_the_batch(batch):
  shapes = image_views.shapes(resolve(SETTINGS))
  assert {name: (batch[name].shape[1:], batch[name].dtype) for name in shapes} == shapes
  counted = {name: count for name, count in view_counts(SETTINGS).items() if count}
  assert counted == {"image": 2, "image_small": 3}


@pytest.mark.parametrize("wrong, message", [
  (dict(multi_crop=dict(views=1.5)), "data.multi_crop.views: 1.5; give a whole number, at least 0"),
  (dict(multi_crop=dict(size=0)), "data.multi_crop.size: 0"),
  (dict(multi_crop=dict(scale=(0.05, 1.4))), r"data.multi_crop.scale: .* <= 1"),
  (dict(multi_crop=dict(view=2)), "data.multi_crop.view: unknown key; did you mean 'views'"),
  (dict(multi_crop=dict(views=2), views=dict(text=1)), "small crops need whole views too"),
  (dict(crop=dict(ratio=(2, 1))), "data.crop.ratio"),
])  # fmt: skip
def test_settings_that_make_no_sense(wrong, message):
  with pytest.raises(UserError, match=message):
    resolve({**SETTINGS, **wrong})
