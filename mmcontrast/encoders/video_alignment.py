"""ILA (Tu et al., arXiv:2304.10465): neighbouring frames are aligned at a point in each that a small network predicts.

Parameters: interact/{depth_conv, depth_norm, point_conv, point_norm, conv, norm}, predict/{conv1, norm1, conv2, norm2,
fc1, fc2}, mix (over time), fc.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.encoders.dense import Dense
from mmcontrast.encoders.norm import BatchNorm
from mmcontrast.errors import UserError

_HALF = 128  # channels of each frame's part of the interaction
_OFFSETS = ((0, 0), (0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (-1, -1), (1, -1), (-1, 1))


class Aligned(NamedTuple):
  """Of a clip's frames.

  Attributes:
    frames: [B, T, H, W, D], where they agree with their neighbours.
    interactive: [B, T, H, W, D], what neighbours have to do with each other.
    pairs: [B, T - 1, 2, D], the vectors of two neighbours at their points, which are to be alike.
  """

  frames: jax.Array
  interactive: jax.Array
  pairs: jax.Array


def point_mask(points: jax.Array, side: int) -> jax.Array:
  """Weights round points [..., 2] (x, y in [-1, 1]) on a grid: [..., side, side], rows first.

  On each axis 1 within 0.25 of the point, then falling by 1.5 for each unit to 0; their product. Source: ILA, eq. 4;
  aligned_mask_generation of Francis-Rings/ILA@1a912d9.
  """
  far = jnp.abs(jnp.linspace(-1.0, 1.0, side)[:, None] - points[..., None, :])
  weight = jnp.clip(1 - 1.5 * jnp.maximum(far - 0.25, 0.0), 0, None)
  return weight[..., :, None, 1] * weight[..., None, :, 0]


def pair_loss(pairs: jax.Array) -> jax.Array:
  """float [B]: one minus the cosine of neighbours at their points [B, T - 1, 2, D], the mean over pairs."""
  wide = pairs.astype(jnp.promote_types(pairs.dtype, jnp.float32))
  unit = wide * jax.lax.rsqrt(jnp.sum(wide**2, -1, keepdims=True) + 1e-12)
  return jnp.mean(1 - jnp.sum(unit[:, :, 0] * unit[:, :, 1], -1), 1)


class _Interact(nn.Module):
  """Pairs [N, H, W, 2 D] -> [N, H, W, 2 * _HALF]."""

  dtype: Any = None

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    def norm(name: str, y: jax.Array) -> jax.Array:
      return nn.relu(BatchNorm(dtype=self.dtype, name=name)(y, train=train))

    width = x.shape[-1]
    depth = nn.Conv(width, (3, 3), feature_group_count=width, dtype=self.dtype, name="depth_conv")
    x = norm("depth_norm", depth(x))
    x = norm("point_norm", nn.Conv(2 * _HALF, (1, 1), dtype=self.dtype, name="point_conv")(x))
    return norm("norm", nn.Conv(2 * _HALF, (3, 3), dtype=self.dtype, name="conv")(x))


class _Predict(nn.Module):
  """Interactions [N, H, W, C] -> a point for each frame of a pair, [N, 2, 2] in [-0.75, 0.75], x first."""

  dtype: Any = None

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    for number in (1, 2):
      x = nn.Conv(_HALF, (3, 3), dtype=self.dtype, name=f"conv{number}")(x)
      x = BatchNorm(dtype=self.dtype, name=f"norm{number}")(x, train=train)
      x = nn.relu(nn.max_pool(x, (2, 2), (2, 2)))
    x = x.max(axis=(1, 2))[:, None]
    x = nn.relu(nn.Conv(_HALF // 2, (1,), feature_group_count=2, dtype=self.dtype, name="fc1")(x))
    last = nn.Conv(4, (1,), feature_group_count=2, kernel_init=nn.initializers.zeros, dtype=self.dtype, name="fc2")
    return 0.75 * jnp.tanh(last(x)[:, 0]).reshape(-1, 2, 2)


class Alignment(nn.Module):
  """The implicit alignment of a clip's frames.

  Each pair of neighbours goes through convolutions, which predict a point in either; a mask round each point, the mean
  of nine that are jittered by `jitter`, is what the frames have in common. A frame between two pairs has the mean of
  both. The released code halves its jitter every epoch; here it stands still.
  """

  jitter: float = 0.2
  dtype: Any = None

  @nn.compact
  def __call__(self, before: jax.Array, after: jax.Array, *, train: bool) -> Aligned:
    """before, after [B, T - 1, H, W, D], the first and the second frame of each pair; a square grid."""
    batch, pairs, side, columns, width = before.shape
    if not pairs or side < 4 or side != columns:
      raise UserError(
        f"temporal='ila' aligns neighbouring frames, of a square of 4 x 4 patches or more; there are {pairs + 1} "
        f"frames of {side} x {columns}; set config.data.video.frames to 2 or more, or take smaller patches"
      )
    joined = jnp.concatenate([before, after], axis=-1).reshape(-1, side, side, 2 * width)
    found = _Interact(self.dtype, name="interact")(joined, train=train)
    points = _Predict(self.dtype, name="predict")(found, train=train).reshape(batch, pairs, 2, 1, 2)
    masks = point_mask(points + self.jitter * jnp.array(_OFFSETS, points.dtype), side).mean(3)  # [B, T - 1, 2, H, W]
    both = jnp.stack([before, after], axis=2) * masks[..., None].astype(before.dtype)
    of_pairs = found.reshape(batch, pairs, side, side, 2, _HALF)
    mixed = nn.Conv(_HALF, (3,), dtype=self.dtype, name="mix")(
      _of_frames(of_pairs[..., 0, :], of_pairs[..., 1, :]).transpose(0, 2, 3, 1, 4)
    )
    interactive = Dense(width, dtype=self.dtype, name="fc")(mixed.transpose(0, 3, 1, 2, 4))
    return Aligned(_of_frames(both[:, :, 0], both[:, :, 1]), interactive, both.sum(axis=(3, 4)))


def _of_frames(before: jax.Array, after: jax.Array) -> jax.Array:
  """What pairs [B, T - 1, ...] say of their first and their second frame as [B, T, ...]; the mean where two do."""
  return jnp.concatenate([before[:, :1], (before[:, 1:] + after[:, :-1]) / 2, after[:, -1:]], axis=1)
