"""Pictures that are corrupted, by name and strength 1 to 5, with the numbers of ImageNet-C.

Source: Hendrycks and Dietterich (arXiv:1903.12261), make_imagenet_c.py, of whose 19 corruptions these fourteen can be
written exactly; motion_blur and snow are ImageMagick's, spatter and elastic_transform OpenCV's, frost needs photographs
of frost, and the package imagecorruptions, which had all, has not been kept since 2020. They are applied to what the
model sees, a square of S pixels: lengths in pixels are those of 224, times S / 224.
"""

from __future__ import annotations

import io
import math
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


def _speckle_noise(pixels: np.ndarray, scale: float, draw: np.random.Generator) -> np.ndarray:
  x = pixels / 255
  return _bytes(x + x * draw.normal(0, scale, pixels.shape))


def _defocus_blur(pixels: np.ndarray, numbers: tuple[int, float], draw: np.random.Generator) -> np.ndarray:
  from scipy.ndimage import correlate

  kernel = _shrunk(_disk(*numbers), len(pixels) / _SIDE)
  return _bytes(correlate(pixels / 255, kernel[:, :, None], mode="mirror"))


def _disk(radius: int, sigma: float) -> np.ndarray:
  """float64 [K, K], of sum 1: a disk, blurred by a Gaussian of 3 pixels, or of 5 where it is larger than 8."""
  from scipy.ndimage import correlate1d

  half, reach = (8, 1) if radius <= 8 else (radius, 2)
  across = np.arange(-half, half + 1) ** 2
  disk = (across[:, None] + across <= radius**2).astype(float)
  blur = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
  for axis in (0, 1):
    disk = correlate1d(disk, blur / blur.sum(), axis, mode="mirror")
  return disk / disk.sum()


def _shrunk(kernel: np.ndarray, scale: float) -> np.ndarray:
  """A kernel whose offsets are `scale` times those of `kernel`: each weight is shared by the two nearest pixels of an
  axis, by how near they are. With scale 1 the kernel itself."""
  half = len(kernel) // 2
  to = scale * np.arange(-half, half + 1)
  pixels = np.arange(-math.ceil(scale * half), math.ceil(scale * half) + 1)
  share = np.maximum(0, 1 - np.abs(pixels[:, None] - to))
  return share @ kernel @ share.T


def _glass_blur(pixels: np.ndarray, numbers: tuple[float, int, int], draw: np.random.Generator) -> np.ndarray:
  """Blurred, pixels taken from near by, blurred again. The reference means to exchange two pixels and copies one."""
  sigma, most, rounds = numbers
  height, width = pixels.shape[:2]
  most = max(1, round(most * min(height, width) / _SIDE))
  x = _gaussian_blur(pixels, sigma, draw)
  taken = list(range(height * width))
  for _ in range(rounds):
    moves = draw.integers(-most, most, (height, width, 2)).tolist()
    for row in range(height - most, most, -1):
      for column in range(width - most, most, -1):
        right, down = moves[row][column]
        taken[row * width + column] = taken[(row + down) * width + column + right]
  return _gaussian_blur(x.reshape(-1, 3)[taken].reshape(x.shape), sigma, draw)


def _zoom_blur(pixels: np.ndarray, numbers: tuple[float, float], draw: np.random.Generator) -> np.ndarray:
  """The mean of the picture and of it magnified by 1, 1 + step, ... below the most."""
  x = (pixels / 255).astype(np.float32)
  factors = np.arange(1, *numbers)
  return _bytes((x + sum(_magnified(x, factor) for factor in factors)) / (len(factors) + 1))


def _magnified(x: np.ndarray, factor: float) -> np.ndarray:
  """The middle of a picture [H, W, 3], `factor` times as large, linear in between."""
  from scipy.ndimage import zoom

  inner = tuple(math.ceil(side / factor) for side in x.shape[:2])
  return _middle(zoom(_middle(x, inner), (factor, factor, 1), order=1), x.shape[:2])


def _middle(x: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
  top, left = ((whole - side) // 2 for whole, side in zip(x.shape, size))
  return x[top : top + size[0], left : left + size[1]]


def _fog(pixels: np.ndarray, numbers: tuple[float, float], draw: np.random.Generator) -> np.ndarray:
  thick, decay = numbers
  x, (height, width) = pixels / 255, pixels.shape[:2]
  most = x.max()
  x = x + thick * _plasma(2 ** math.ceil(math.log2(max(height, width))), decay, draw)[:height, :width, None]
  return _bytes(x * most / (most + thick))


def _plasma(side: int, decay: float, draw: np.random.Generator) -> np.ndarray:
  """float64 [side, side] in 0 to 1: heights by the diamond-square algorithm, side a power of two."""
  heights, step, amount = np.zeros((side, side)), side, 100.0

  def shaken(total: np.ndarray) -> np.ndarray:
    return total / 4 + amount * draw.uniform(-amount, amount, total.shape)

  while step >= 2:
    half = step // 2
    corner = heights[::step, ::step]
    total = corner + np.roll(corner, -1, 0)
    heights[half::step, half::step] = shaken(total + np.roll(total, -1, 1))
    middle = heights[half::step, half::step]
    heights[::step, half::step] = shaken(middle + np.roll(middle, 1, 0) + corner + np.roll(corner, -1, 1))
    heights[half::step, ::step] = shaken(middle + np.roll(middle, 1, 1) + corner + np.roll(corner, -1, 0))
    step, amount = half, amount / decay
  heights -= heights.min()
  return heights / max(heights.max(), 1e-12)


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
  "speckle_noise": (_speckle_noise, (0.15, 0.2, 0.35, 0.45, 0.6)),
  "defocus_blur": (_defocus_blur, ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))),
  "glass_blur": (_glass_blur, ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))),
  "zoom_blur": (_zoom_blur, ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))),
  "fog": (_fog, ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4))),
}

USUAL = tuple(CORRUPTIONS)[:9]
"""Those that are measured where none are named; numbers of others have a mean of their own."""
