"""Pictures that are corrupted, by name and strength 1 to 5, with the numbers of ImageNet-C.

Source: Hendrycks and Dietterich (arXiv:1903.12261), make_imagenet_c.py, of whose 19 corruptions these nine need no
pictures of frost and no other library; the package imagecorruptions, which had all, has not been kept since 2020. They
are applied to what the model sees, a square of S pixels: lengths in pixels are those of 224, times S / 224.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from mmcontrast.errors import UserError, choose

STRENGTHS = (1, 2, 3, 4, 5)
_SIDE = 224


def corrupted(pixels: np.ndarray, name: str, strength: int, seed: int = 0) -> np.ndarray:
  """A picture, uint8 [S, S, 3], under a corruption of `CORRUPTIONS`; noise is drawn from `seed`.

  Raises UserError for another name or strength.
  """
  choose(name, CORRUPTIONS, "corruptions")
  if strength not in STRENGTHS:
    raise UserError(f"corruptions: strength {strength!r}; give 1 to 5")
  function, numbers = CORRUPTIONS[name]
  draw = np.random.default_rng([seed, list(CORRUPTIONS).index(name), strength])
  return function(pixels, numbers[strength - 1], draw)


def _bytes(x: np.ndarray) -> np.ndarray:
  """Brightnesses in 0 to 1 as bytes, cut as numpy's astype does after the reference's clip(0, 1) * 255."""
  return (np.clip(x, 0, 1) * 255).astype(np.uint8)


def _gaussian_noise(pixels: np.ndarray, scale: float, draw: np.random.Generator) -> np.ndarray:
  return _bytes(pixels / 255 + draw.normal(0, scale, pixels.shape))


def _shot_noise(pixels: np.ndarray, photons: float, draw: np.random.Generator) -> np.ndarray:
  return _bytes(draw.poisson(pixels / 255 * photons) / photons)


def _impulse_noise(pixels: np.ndarray, share: float, draw: np.random.Generator) -> np.ndarray:
  hit, white = draw.random(pixels.shape) < share, draw.random(pixels.shape) < 0.5
  return np.where(hit, np.where(white, 255, 0), pixels).astype(np.uint8)


def _gaussian_blur(pixels: np.ndarray, sigma: float, draw: np.random.Generator) -> np.ndarray:
  from scipy.ndimage import gaussian_filter

  sigma *= len(pixels) / _SIDE
  return _bytes(gaussian_filter(pixels / 255, (sigma, sigma, 0), mode="nearest", truncate=4.0))


def _brightness(pixels: np.ndarray, more: float, draw: np.random.Generator) -> np.ndarray:
  """More of HSV's value, which scales a colour: (value + more) / value, at most to 1."""
  x = pixels / 255
  value = x.max(axis=2, keepdims=True)
  target = np.minimum(value + more, 1)
  return _bytes(np.where(value > 0, x * target / np.maximum(value, 1e-12), target))


def _contrast(pixels: np.ndarray, share: float, draw: np.random.Generator) -> np.ndarray:
  x = pixels / 255
  mean = x.mean(axis=(0, 1), keepdims=True)
  return _bytes((x - mean) * share + mean)


def _saturate(pixels: np.ndarray, numbers: tuple[float, float], draw: np.random.Generator) -> np.ndarray:
  """HSV's saturation times the first plus the second, within 0 and 1."""
  x = pixels / 255
  value, least = x.max(axis=2, keepdims=True), x.min(axis=2, keepdims=True)
  spread = value - least
  saturation = np.where(value > 0, spread / np.maximum(value, 1e-12), 0)
  target = np.clip(saturation * numbers[0] + numbers[1], 0, 1)
  # A grey has the hue 0, red: its green and blue fall where the saturation rises.
  hue = np.where(spread > 0, (value - x) / np.maximum(spread, 1e-12), np.array([0.0, 1, 1]))
  return _bytes(value * (1 - target * hue))


def _pixelate(pixels: np.ndarray, share: float, draw: np.random.Generator) -> np.ndarray:
  image = Image.fromarray(pixels)
  small = image.resize([max(1, int(side * share)) for side in image.size], Image.Resampling.BOX)
  return np.asarray(small.resize(image.size, Image.Resampling.BOX))


def _jpeg(pixels: np.ndarray, quality: int, draw: np.random.Generator) -> np.ndarray:
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
  return np.asarray(Image.open(buffer).convert("RGB"))


CORRUPTIONS: dict[str, tuple[Callable, tuple]] = {
  "gaussian_noise": (_gaussian_noise, (0.08, 0.12, 0.18, 0.26, 0.38)),
  "shot_noise": (_shot_noise, (60, 25, 12, 5, 3)),
  "impulse_noise": (_impulse_noise, (0.03, 0.06, 0.09, 0.17, 0.27)),
  "gaussian_blur": (_gaussian_blur, (1, 2, 3, 4, 6)),
  "brightness": (_brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
  "contrast": (_contrast, (0.4, 0.3, 0.2, 0.1, 0.05)),
  "saturate": (_saturate, ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))),
  "pixelate": (_pixelate, (0.6, 0.5, 0.4, 0.3, 0.25)),
  "jpeg_compression": (_jpeg, (25, 18, 15, 10, 7)),
}
