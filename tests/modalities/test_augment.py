"""Augmentations against PIL, colorsys and scipy; draws that follow the example, not its place."""

import colorsys
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage

from mmcontrast.errors import UserError
from mmcontrast.modalities import image_augmentation
from mmcontrast.modalities.image_augmentation import Draws, Recipe, blur_weights, parse_recipe

BATCH = 4


@pytest.fixture(scope="module")
def images():
  """Noise, and one image with long runs of equal, grey and extreme pixels."""
  images = np.random.default_rng(0).integers(0, 256, (BATCH, 12, 10, 3), dtype=np.uint8)
  images[0, :6] = np.array([[0, 0, 0], [255, 255, 255], [9, 9, 9], [255, 0, 0], [0, 255, 255]] * 2)
  return images


def draws(**given):
  """Draws that change nothing, but for `given`, the same for all images."""
  values = (
    dict(
      flip=False,
      brightness=1.0,
      contrast=1.0,
      saturation=1.0,
      hue=0.0,
      grey=False,
      blur=False,
      sigma=1.0,
      solarize=False,
    )
    | given
  )
  return Draws(**{name: jnp.full(BATCH, value) for name, value in values.items()})


def applied(recipe, images, **given):
  return np.asarray(image_augmentation.apply(recipe, jnp.asarray(images), draws(**given)))


def pil(images, function):
  return np.stack([np.asarray(function(Image.fromarray(x)).convert("RGB")) for x in images]) / 255


@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.7])
@pytest.mark.parametrize(
  "name, enhance",
  [("brightness", ImageEnhance.Brightness), ("contrast", ImageEnhance.Contrast), ("saturation", ImageEnhance.Color)],
)
def test_factors_are_pils_to_its_rounding(images, name, enhance, factor):
  ours = applied(Recipe(**{name: 1.0}), images, **{name: factor})
  theirs = pil(images, lambda image: enhance(image).enhance(factor))
  np.testing.assert_allclose(ours, theirs, atol=2 / 255)


@pytest.mark.parametrize("shift", [-0.5, -0.13, 0.0, 0.1, 0.5])
def test_hue_is_exact_hsv(images, shift):
  def rotated(pixel):
    h, s, v = colorsys.rgb_to_hsv(*pixel)
    return colorsys.hsv_to_rgb((h + shift) % 1, s, v)

  ours = applied(Recipe(hue=0.5), images, hue=shift)
  np.testing.assert_allclose(ours, np.apply_along_axis(rotated, -1, images / 255), atol=2e-6)


def test_flip_solarize_and_grey_are_pils(images):
  flipped = applied(Recipe(flip=0.5), images, flip=True)
  np.testing.assert_allclose(flipped, pil(images, ImageOps.mirror), rtol=1e-6)
  solarized = applied(Recipe(solarize=0.5), images, solarize=True)
  np.testing.assert_allclose(solarized, pil(images, ImageOps.solarize), atol=1e-6)
  grey = applied(Recipe(grey=0.5), images, grey=True)
  np.testing.assert_allclose(grey, pil(images, ImageOps.grayscale), atol=1 / 255)


@pytest.mark.parametrize("taps, sigma", [(3, 0.1), (5, 0.9), (9, 2.0)])
def test_blur_is_a_gaussian_with_repeated_edges(images, taps, sigma):
  kernel = np.exp(-0.5 * (np.arange(taps) - taps // 2) ** 2 / sigma**2)
  kernel /= kernel.sum()
  reference = images / 255
  for axis in (1, 2):
    reference = ndimage.correlate1d(reference, kernel, axis=axis, mode="nearest")
  ours = applied(Recipe(blur=1.0, blur_kernel=taps), images, blur=True, sigma=sigma)
  np.testing.assert_allclose(ours, reference, atol=1e-6)


def test_blur_kernel_covers_a_tenth_of_the_image():
  taps = {size: blur_weights(Recipe(blur=1.0), size, draws(blur=True)).shape[1] for size in (16, 32, 64, 224)}
  assert taps == {16: 3, 32: 3, 64: 7, 224: 23}


def slowly(recipe, image, drawn):
  """One image [H, W, 3] uint8 through what was drawn for it, pixel by pixel where colours turn."""
  image = image[:, ::-1] / 255 if drawn.flip else image / 255
  weights = np.array([0.2989, 0.587, 0.114])

  def blend(image, other, factor):
    return np.clip(factor * image + (1 - factor) * other, 0, 1)

  def turned(pixel):
    h, s, v = colorsys.rgb_to_hsv(*pixel)
    return colorsys.hsv_to_rgb((h + drawn.hue) % 1, s, v)

  image = blend(image, 0, drawn.brightness)
  image = blend(image, (image @ weights).mean(), drawn.contrast)
  image = blend(image, (image @ weights)[..., None], drawn.saturation)
  image = np.apply_along_axis(turned, -1, image)
  if drawn.grey:
    image = np.repeat((image @ weights)[..., None], 3, axis=-1)
  if drawn.blur:
    taps = max(3, len(image) // 10 | 1)
    kernel = np.exp(-0.5 * (np.arange(taps) - taps // 2) ** 2 / drawn.sigma**2)
    for axis in (0, 1):
      image = ndimage.correlate1d(image, kernel / kernel.sum(), axis=axis, mode="nearest")
  return np.where(drawn.solarize & (image >= 128 / 255), 1 - image, image)


@pytest.mark.parametrize("name", ["moco_v2", "swav", "byol_view1", "byol_view2", "dino_small", "siglip"])
def test_a_whole_recipe_is_that_of_a_slow_one(name):
  recipe = parse_recipe(name)
  images = np.random.default_rng(3).integers(0, 256, (24, 31, 9, 3), dtype=np.uint8)
  seeds = np.arange(24, dtype=np.uint32)
  drawn = jax.tree.map(np.asarray, image_augmentation.draw(recipe, seeds, view=1))
  ours = np.asarray(image_augmentation.augment(name, images, seeds, view=1))
  for row, image in enumerate(images):
    reference = slowly(recipe, image, jax.tree.map(lambda values, row=row: values[row], drawn))
    # A value at the threshold of solarize may fall on either side of it.
    assert np.mean(np.abs(ours[row] - reference) > 5e-6) < (0.002 if drawn.solarize[row] else 1e-9), row
  assert drawn.flip.any() and (name == "siglip" or (drawn.grey.any() and drawn.blur.any()))


@pytest.mark.parametrize("recipe", ["moco_v2", "byol_view2"])
def test_nothing_drawn_is_nothing_changed(images, recipe):
  np.testing.assert_allclose(applied(parse_recipe(recipe), images), images / 255, atol=1e-6)


@functools.partial(jax.jit, static_argnums=0)
def moco(view, images, seeds, mirror_safe):
  return image_augmentation.augment("moco_v2", images, seeds, view, mirror_safe)


@pytest.fixture(scope="module")
def batch():
  rng = np.random.default_rng(1)
  return (
    rng.integers(0, 256, (16, 16, 16, 3), dtype=np.uint8),
    rng.integers(0, 2**32, 16, dtype=np.uint32),
    np.arange(16) % 4 != 0,
  )


def test_an_example_is_the_same_anywhere_in_the_batch(batch):
  order = np.random.default_rng(2).permutation(16)
  here, there = moco(0, *batch), moco(0, *(x[order] for x in batch))
  np.testing.assert_allclose(np.asarray(here)[order], there, atol=1e-6)
  assert here.dtype == jnp.float32 and here.min() >= 0 and here.max() <= 1


@pytest.mark.parametrize("recipe", ["simclr", "byol_view2"])
def test_compiled_and_op_by_op_agree(batch, recipe):
  compute = functools.partial(image_augmentation.augment, parse_recipe(recipe))
  np.testing.assert_allclose(jax.jit(compute)(*batch[:2]), compute(*batch[:2]), atol=2e-6)


def test_one_device_and_eight_agree(batch):
  assert jax.device_count() == 8
  mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
  sharded = jax.device_put(batch, jax.NamedSharding(mesh, jax.P("data")))
  np.testing.assert_allclose(moco(0, *batch), moco(0, *sharded), atol=1e-6)
  recipe = parse_recipe("moco_v2")
  one, eight = (jax.jit(functools.partial(image_augmentation.draw, recipe))(x[1]) for x in (batch, sharded))
  jax.tree.map(np.testing.assert_array_equal, one, eight)


def test_views_and_seeds_differ(batch):
  change = np.abs(np.asarray(moco(0, *batch)) - moco(1, *batch)).mean(axis=(1, 2, 3))
  assert (change > 1e-3).sum() >= 14  # Both views may have drawn "nothing" for some.
  images = np.repeat(batch[0][:1], 16, axis=0)
  outputs = np.asarray(moco(0, images, *batch[1:])).reshape(16, -1)
  assert len(np.unique(outputs, axis=0)) > 10


def test_flips_only_where_it_is_safe(batch):
  images, seeds, mirror_safe = batch
  out = image_augmentation.augment({"flip": 1.0}, images, seeds, 0, mirror_safe)
  expected = np.where(mirror_safe[:, None, None, None], images[:, :, ::-1], images) / 255
  np.testing.assert_allclose(out, expected, rtol=1e-6)


def test_draws_have_the_recipes_distribution():
  seeds = np.arange(20_000, dtype=np.uint32)
  drawn = jax.jit(functools.partial(image_augmentation.draw, parse_recipe("byol_view2")))(seeds)
  for name, share in dict(flip=0.5, grey=0.2, blur=0.1, solarize=0.2).items():
    np.testing.assert_allclose(getattr(drawn, name).mean(), share, atol=0.015)
  jittered = np.asarray(drawn.brightness != 1)
  np.testing.assert_allclose(jittered.mean(), 0.8, atol=0.015)
  np.testing.assert_array_equal(jittered, np.asarray(drawn.hue != 0))
  for name, low, high in [("brightness", 0.6, 1.4), ("saturation", 0.8, 1.2), ("hue", -0.1, 0.1)]:
    values = np.asarray(getattr(drawn, name))[jittered]
    assert low <= values.min() < low + 0.01 and high - 0.01 < values.max() <= high
    np.testing.assert_allclose(values.mean(), (low + high) / 2, atol=0.01)
  pairs = np.stack([drawn.brightness, drawn.contrast, drawn.hue, drawn.sigma])[:, jittered]
  assert np.abs(np.corrcoef(pairs) - np.eye(4)).max() < 0.03


def test_normalize_and_the_evaluation_path(images):
  mean, std = image_augmentation.STATISTICS["imagenet"]
  ours = image_augmentation.normalize(image_augmentation.to_float(jnp.asarray(images)), mean, std)
  np.testing.assert_allclose(ours, (images / 255 - mean) / std, atol=1e-5)


def test_recipes():
  assert parse_recipe({"base": "moco_v2", "blur": 0}).hue == 0.1
  assert parse_recipe({"blur": 1.0, "blur_sigma": [0.2, 1]}).blur_sigma == (0.2, 1)
  assert [r.solarize for r in image_augmentation.view_recipes("byol", 3)] == [0, 0.2, 0]
  assert [r.blur for r in image_augmentation.view_recipes("dino", 2)] == [1, 0.1]
  assert parse_recipe("swav") == parse_recipe("simclr") and parse_recipe("siglip") == Recipe(flip=0.5)
  assert image_augmentation.view_recipes(["none", "flip"], 2) == (Recipe(), Recipe(flip=0.5))


@pytest.mark.parametrize(
  "spec, says",
  [
    ("moco_v3", "'moco_v2'"),
    ({"colour": 1}, "'colour'"),
    ({"brightnes": 1}, "'brightness'"),
    ({"base": "simclr2"}, "'simclr'"),
    ({"hue": 0.6}, "from 0 to 0.5"),
    ({"flip": "yes"}, "from 0 to 1"),
    ({"blur_sigma": (0, 1)}, "blur_sigma"),
    ({"blur_kernel": 4}, "odd"),
    (["none"], "1 recipes for 2 views"),
  ],
)
def test_errors_name_the_key_and_the_choice(spec, says):
  with pytest.raises(UserError, match=r"^data\.augment") as error:
    image_augmentation.view_recipes(spec, 2, "data.augment")
  assert says in str(error.value) and "\n" not in str(error.value)
