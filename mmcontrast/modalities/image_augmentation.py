"""Image augmentation on the device, batched and jitted with the train step.

The host decodes, crops and resizes; what is left of a method's recipe happens here:
flip, colour jitter, grey, blur, solarize. An example's draws are a pure function of
(its seed, the view), so its view is the same at any place in the batch, on any number
of devices, and after a resume.

Semantics are torchvision's (float images, clipped to [0, 1] after every operation)
with three choices of ours:
- the four colour operations come in the fixed order brightness, contrast, saturation,
  hue: a random order per example would cost four times as much;
- hue is shifted exactly, in HSV, by a form without branches (Smith 1978;
  f(n) = v - c * clip(min(k, 4 - k), 0, 1), k = (n + 6h) mod 6);
- blur is a separable Gaussian whose kernel covers a tenth of the image, as in SimCLR,
  so that sigma reaches as far at 32 px as at 224 px; borders repeat the edge, as in PIL.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mmcontrast.errors import UserError, choose
from mmcontrast.registry import vary

STATISTICS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
  "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
  "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
  "siglip": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
  "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
"""Mean and standard deviation of the channels, for `normalize`."""


@dataclasses.dataclass(frozen=True)
class Recipe:
  """What may happen to a view: strengths and probabilities. Hashable, so jit-static.

  flip, jitter_probability, grey, blur and solarize are probabilities; brightness,
  contrast and saturation s draw a factor from [max(0, 1 - s), 1 + s]; hue s draws a
  shift from [-s, s] turns, s <= 0.5; blur_sigma is a range in pixels; blur_kernel is
  the odd number of taps (None: a tenth of the height, rounded up to odd, at least 3).
  """

  flip: float = 0.0
  brightness: float = 0.0
  contrast: float = 0.0
  saturation: float = 0.0
  hue: float = 0.0
  jitter_probability: float = 1.0
  grey: float = 0.0
  blur: float = 0.0
  blur_sigma: tuple[float, float] = (0.1, 2.0)
  blur_kernel: int | None = None
  solarize: float = 0.0


def _jitter(brightness: float, contrast: float, saturation: float, hue: float, **more) -> Recipe:
  return Recipe(
    flip=0.5,
    brightness=brightness,
    contrast=contrast,
    saturation=saturation,
    hue=hue,
    jitter_probability=0.8,
    grey=0.2,
    **more,
  )


RECIPES: dict[str, Recipe] = {
  "none": Recipe(),
  "flip": Recipe(flip=0.5),
  "moco_v2": _jitter(0.4, 0.4, 0.4, 0.1, blur=0.5),  # also SimSiam and SLIP's image views
  "simclr": _jitter(0.8, 0.8, 0.8, 0.2, blur=0.5),
  "swav": _jitter(0.8, 0.8, 0.8, 0.2, blur=0.5),  # large and small crops
  "byol_view1": _jitter(0.4, 0.4, 0.2, 0.1, blur=1.0),  # also MoCo v3, VICReg, Barlow Twins
  "byol_view2": _jitter(0.4, 0.4, 0.2, 0.1, blur=0.1, solarize=0.2),
  "dino_small": _jitter(0.4, 0.4, 0.2, 0.1, blur=0.5),
  "siglip": Recipe(flip=0.5),
}
PAIRS: dict[str, tuple[str, str]] = {name: ("byol_view1", "byol_view2") for name in ("byol", "dino")}
"""Recipes that differ between even and odd views; DINO's are those of its large crops."""


class Draws(NamedTuple):
  """One view's random choices, each [B]: bool for switches, float32 for amounts."""

  flip: jax.Array
  brightness: jax.Array
  contrast: jax.Array
  saturation: jax.Array
  hue: jax.Array
  grey: jax.Array
  blur: jax.Array
  sigma: jax.Array
  solarize: jax.Array


def parse_recipe(spec: str | Mapping[str, Any] | Recipe, where: str = "augment") -> Recipe:
  """A recipe from its name, or from a mapping of Recipe's fields ("base" names a start).

  Raises:
    UserError: an unknown name or key, or a value out of range.
  """
  if isinstance(spec, Recipe):
    return spec
  recipe = vary(RECIPES, spec, where)
  _check(recipe, where)
  return recipe


def view_recipes(
  spec: str | Mapping[str, Any] | Recipe | Sequence[Any], views: int, where: str = "augment"
) -> tuple[Recipe, ...]:
  """The recipe of each of `views` views: one for all, a list of them, or a name in PAIRS."""
  if isinstance(spec, str) and spec in PAIRS:
    return tuple(RECIPES[PAIRS[spec][view % 2]] for view in range(views))
  if isinstance(spec, str):
    choose(spec, [*RECIPES, *PAIRS], where)
  if isinstance(spec, list | tuple):
    if len(spec) != views:
      raise UserError(f"{where}: {len(spec)} recipes for {views} views; give one for each")
    return tuple(parse_recipe(each, f"{where}[{i}]") for i, each in enumerate(spec))
  return (parse_recipe(spec, where),) * views


def augment(
  recipe: str | Mapping[str, Any] | Recipe,
  images: jax.Array,
  seeds: jax.Array,
  view: int | jax.Array = 0,
  mirror_safe: jax.Array | None = None,
) -> jax.Array:
  """Draws and applies a view's augmentation.

  Args:
    recipe: see parse_recipe; static under jit.
    images: [B, H, W, 3] uint8.
    seeds: [B] uint32, one an example.
    view: number of the view; other views draw other numbers.
    mirror_safe: [B] bool, whether the example may be flipped (default: all may).

  Returns:
    [B, H, W, 3] float32 in [0, 1].
  """
  recipe = parse_recipe(recipe)
  return apply(recipe, images, draw(recipe, seeds, view, mirror_safe))


def draw(recipe: Recipe, seeds: jax.Array, view: int | jax.Array = 0, mirror_safe: jax.Array | None = None) -> Draws:
  """All random choices of a view; `seeds` [B] uint32. Terms on pixels need `flip` too."""

  def uniforms(seed):  # One vector an example; entry i depends on (seed, view, i) only.
    # Threefry by name: under vmap other generators depend on the place in the batch.
    key = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), view)
    return jax.random.uniform(jax.random.fold_in(key, _DOMAIN), (len(Draws._fields) + 1,))

  flip, brightness, contrast, saturation, hue, grey, blur, sigma, solarize, jitter = jax.vmap(uniforms)(seeds).T
  jittered = jitter < recipe.jitter_probability

  def factor(u, strength):
    low, high = max(0.0, 1.0 - strength), 1.0 + strength
    return jnp.where(jittered, low + (high - low) * u, 1.0)

  flips = flip < recipe.flip
  low, high = recipe.blur_sigma
  return Draws(
    flip=flips if mirror_safe is None else flips & mirror_safe,
    brightness=factor(brightness, recipe.brightness),
    contrast=factor(contrast, recipe.contrast),
    saturation=factor(saturation, recipe.saturation),
    hue=jnp.where(jittered, (2 * hue - 1) * recipe.hue, 0.0),
    grey=grey < recipe.grey,
    blur=blur < recipe.blur,
    sigma=low + (high - low) * sigma,
    solarize=solarize < recipe.solarize,
  )


def apply(recipe: Recipe, images: jax.Array, draws: Draws) -> jax.Array:
  """Applies given choices to images [B, H, W, 3] uint8; float32 in [0, 1].

  What `recipe` excludes (strength or probability 0) costs nothing.
  """
  if recipe.flip:
    images = jnp.where(_per_image(draws.flip, 4), images[:, :, ::-1], images)
  images = to_float(images)
  jitter = (recipe.brightness, recipe.contrast, recipe.saturation, recipe.hue)
  if not any((*jitter, recipe.grey, recipe.blur, recipe.solarize)):
    return images  # planes that are joined again take ten times as long on a TPU
  # Channels as planes: with three channels innermost nothing vectorises on a CPU.
  rgb = (images[..., 0], images[..., 1], images[..., 2])
  if recipe.brightness:
    rgb = _blend(rgb, 0.0, draws.brightness)
  if recipe.contrast:
    rgb = _blend(rgb, _grey(rgb).mean(axis=(1, 2), keepdims=True), draws.contrast)
  if recipe.saturation:
    rgb = _blend(rgb, _grey(rgb), draws.saturation)
  if recipe.hue:
    rgb = _shift_hue(rgb, _per_image(draws.hue))
  if recipe.grey:
    grey = _grey(rgb)
    rgb = tuple(jnp.where(_per_image(draws.grey), grey, channel) for channel in rgb)
  if recipe.blur:
    weights = blur_weights(recipe, images.shape[1], draws)
    # Barriers: fused into the blur, all that comes before would run again for every tap.
    rgb = tuple(_blur(channel, weights) for channel in jax.lax.optimization_barrier(rgb))
  if recipe.solarize:
    rgb = tuple(jnp.where(_per_image(draws.solarize) & (channel >= 128 / 255), 1 - channel, channel) for channel in rgb)
  # A select and not a stack, which no compiler vectorises for a CPU.
  number, (red, green, blue) = jnp.arange(3), (channel[..., None] for channel in rgb)
  return jnp.where(number == 0, red, jnp.where(number == 1, green, blue))


def to_float(images: jax.Array) -> jax.Array:
  """uint8 images to float32 in [0, 1]: what evaluation does instead of `augment`."""
  return images.astype(jnp.float32) / 255


def normalize(images: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
  """(images - mean) / std over the last axis, as one multiply-add."""
  mean, scale = jnp.asarray(mean, jnp.float32), 1 / jnp.asarray(std, jnp.float32)
  return images * scale - mean * scale


def denormalize(images: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
  """What `normalize` made its result of."""
  return images * jnp.asarray(std, images.dtype) + jnp.asarray(mean, images.dtype)


def blur_weights(recipe: Recipe, height: int, draws: Draws) -> jax.Array:
  """Gaussian taps [B, K], normalised; 1 in the middle where no blur was drawn."""
  taps = recipe.blur_kernel or max(3, height // 10 | 1)
  offsets = jnp.arange(taps, dtype=jnp.float32) - taps // 2
  gauss = jnp.exp(-0.5 * jnp.square(offsets / draws.sigma[:, None]))
  gauss /= gauss.sum(axis=1, keepdims=True)
  return jnp.where(draws.blur[:, None], gauss, (offsets == 0).astype(jnp.float32))


def _blur(channel: jax.Array, weights: jax.Array) -> jax.Array:
  """Separable blur of [B, H, W] as sums of shifted slices, edges repeated."""
  taps = weights.shape[1]
  for axis in (1, 2):
    size = channel.shape[axis]
    padding = [(taps // 2, taps // 2) if i == axis else (0, 0) for i in range(3)]
    padded = jax.lax.optimization_barrier(jnp.pad(channel, padding, mode="edge"))
    channel = jax.lax.optimization_barrier(
      sum(_per_image(weights[:, k]) * jax.lax.slice_in_dim(padded, k, k + size, axis=axis) for k in range(taps))
    )
  return channel


def _shift_hue(rgb, shift):
  """Adds `shift` turns to the hue, keeping HSV's value v and chroma c."""
  r, g, b = rgb
  value = jnp.maximum(jnp.maximum(r, g), b)
  chroma = value - jnp.minimum(jnp.minimum(r, g), b)
  inverse = 1 / jnp.where(chroma > 0, chroma, 1)
  # Not `value == r`: where the compiler computes r twice, the two may differ in a bit.
  hue = (
    jnp.where((r >= g) & (r >= b), (g - b) * inverse, jnp.where(g >= b, 2 + (b - r) * inverse, 4 + (r - g) * inverse))
    + 6 * shift
  )  # In sixths of a turn, -4 to 8.

  def channel(n):
    k = hue + n
    k -= 6 * jnp.floor(k / 6)
    return value - chroma * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)

  return channel(5), channel(3), channel(1)


def _blend(rgb, other, factor):
  """factor * rgb + (1 - factor) * other, clipped to [0, 1]."""
  factor = _per_image(factor)
  return tuple(jnp.clip(factor * c + (1 - factor) * other, 0, 1) for c in rgb)


def _grey(rgb):
  return 0.2989 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]


def _per_image(values: jax.Array, ndim: int = 3) -> jax.Array:
  return values.reshape(values.shape[:1] + (1,) * (ndim - 1))


def _check(recipe: Recipe, where: str) -> None:
  def number(value):
    return isinstance(value, int | float) and not isinstance(value, bool)

  limits = {"flip": 1, "jitter_probability": 1, "grey": 1, "blur": 1, "solarize": 1, "hue": 0.5}
  for key in (*limits, "brightness", "contrast", "saturation"):
    value, high = getattr(recipe, key), limits.get(key, float("inf"))
    if not (number(value) and 0 <= value <= high):
      raise UserError(f"{where}.{key}: must be a number from 0 to {high}, not {value!r}")
  sigma, taps = recipe.blur_sigma, recipe.blur_kernel
  if not (len(sigma) == 2 and all(map(number, sigma)) and 0 < sigma[0] <= sigma[1]):
    raise UserError(f"{where}.blur_sigma: must be (low, high) with 0 < low <= high, not {sigma!r}")
  if taps is not None and not (isinstance(taps, int) and taps > 0 and taps % 2):
    raise UserError(f"{where}.blur_kernel: must be None or a positive odd number, not {taps!r}")


_DOMAIN = 0x617567  # "aug": keeps these draws apart from other uses of the same seed.
