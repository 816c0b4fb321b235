"""Spectrograms folded into squares and back, as HTS-AT (Chen et al., arXiv:2202.00874) feeds them to a Swin transformer
of images.

A spectrogram of 64 filters is stretched to four times 256 frames, and the four strips lie one below the other: of 256
rows the first 64 are the filters of the first quarter of the sound.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from mmcontrast.errors import UserError

_SHARPNESS = -0.75  # of the cubic convolution, as torch has it


def strips_of(side: int, filters: int, frames: int) -> int:
  """Into how many strips a spectrogram of so many frames and filters is cut. Raises UserError where they are no square
  of `side`."""
  strips = side // filters
  if not strips or side % strips:
    fitting = [count for count in range(1, side + 1) if side % count == 0]
    near = min(fitting, key=lambda count: (abs(count - filters), count))
    raise UserError(
      f"fold={side}: spectrograms of {filters} filters do not fold into a square of {side}; set "
      f"data.audio.log_mel.mels to {near}, or fold to a multiple of {filters}"
    )
  if frames > strips * side:
    raise UserError(
      f"fold={side}: spectrograms of {frames} frames do not fit {strips} strips of {side}; set fold to "
      f"{2 * side}, or a longer data.audio.log_mel.hop"
    )
  return strips


def folded(x: jax.Array, side: int) -> jax.Array:
  """[B, F, M] -> [B, side, side, 1]: stretched to the whole square, strip below strip, filters in rows.

  Raises UserError as `strips_of`.
  """
  strips = strips_of(side, x.shape[2], x.shape[1])
  x = stretched(stretched(x, strips * side, 1), side // strips, 2)
  return x.reshape(len(x), strips, side, -1).swapaxes(2, 3).reshape(len(x), side, side, 1)


def unfolded(x: jax.Array, strips: int) -> jax.Array:
  """A map [B, rows, columns, D] of what `folded` gave -> [B, strips * columns, rows / strips, D]: places in time, and
  in frequency. Raises UserError for rows that do not split into the strips."""
  batch, rows, columns, width = x.shape
  if rows % strips:
    raise UserError(
      f"a last map of {rows} rows does not split into the {strips} strips of the folded spectrogram; set a larger "
      "fold, a smaller patch or fewer stages"
    )
  x = x.reshape(batch, strips, rows // strips, columns, width).swapaxes(2, 3)
  return x.reshape(batch, strips * columns, rows // strips, width)


def stretched(x: jax.Array, count: int, axis: int) -> jax.Array:
  """x with `count` values along `axis` instead of fewer, by cubic convolution; the first and the last stay. As
  `torch.nn.functional.interpolate(mode="bicubic", align_corners=True)`."""
  size = x.shape[axis]
  if size == count:
    return x
  # Places in float32, as torch has them: at the end of a long sound their rounding can be seen.
  at = np.arange(count, dtype=np.float32) * (np.float32(size - 1) / np.float32(max(count - 1, 1)))
  first = np.floor(at).astype(int)
  steps = np.arange(-1, 3)
  weights = _cubic(np.abs((at - first)[:, None] - steps))
  sources = np.clip(first[:, None] + steps, 0, size - 1)
  # A product of matrices: the gradient of picking values would be a scatter.
  matrix = np.zeros((count, size))
  np.add.at(matrix, (np.arange(count)[:, None], sources), weights)
  y = jnp.tensordot(x, jnp.asarray(matrix, x.dtype), ((axis,), (1,)), precision="highest")
  return jnp.moveaxis(y, -1, axis)


def _cubic(distance: np.ndarray) -> np.ndarray:
  """The kernel of cubic convolution (Keys 1981) at distances up to 2."""
  a, d = _SHARPNESS, distance
  near, far = ((a + 2) * d - (a + 3)) * d * d + 1, ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
  return np.where(d <= 1, near, far)
