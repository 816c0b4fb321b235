"""Blocks of video transformers: X-CLIP's message tokens, TimeSformer's divided attention, ILA's alignment.

Each maps the tokens of frames [B, T, L, D], the first of which is a learned one of its frame, to such tokens. Beside
the names of `Block`: message_fc, message_norm, message_attn; time_norm, time_attn, time_fc; align_fc, align_norm,
align/..., skip_aligned, skip_interactive.
"""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.encoders.dense import Dense
from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.layer_norm import LayerNorm
from mmcontrast.encoders.transformer import Attention, Block, Mlp
from mmcontrast.encoders.video_alignment import Alignment, pair_loss
from mmcontrast.errors import UserError


class VideoBlock(nn.Module):
  """What the blocks share: attention within a frame, then an MLP, each added to what goes in (pre-norm)."""

  IS_LAYER: ClassVar = True

  heads: int
  hidden: int
  activation: str = "quick_gelu"
  norm_epsilon: float = 1e-5
  dtype: Any = None

  def _norm(self, name: str) -> LayerNorm:
    return LayerNorm(epsilon=self.norm_epsilon, dtype=self.dtype, name=name)

  def _attention(self, name: str) -> Attention:
    return Attention(self.heads, dtype=self.dtype, name=name)

  def _within_frames(self, x: jax.Array) -> jax.Array:
    frames = x.reshape(-1, *x.shape[2:])
    return self._attention("attn")(self._norm("norm1")(frames), None).reshape(x.shape)

  def _mlp(self, x: jax.Array, train: bool) -> jax.Array:
    mlp = Mlp(self.hidden, self.activation, dtype=self.dtype, name="mlp")
    return x + mlp(self._norm("norm2")(x), train=train)


class MessageBlock(VideoBlock):
  """A message of each frame, made of its learned token and exchanged between frames, stands beside its tokens while
  they attend, and is dropped. Source: X-CLIP (Ni et al., arXiv:2208.02816), eq. 5 to 8."""

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
    message = Dense(x.shape[-1], dtype=self.dtype, name="message_fc")(x[:, :, 0])
    message = message + self._attention("message_attn")(self._norm("message_norm")(message), None)
    beside = jnp.concatenate([x, message[:, :, None]], axis=2)
    x = (beside + self._within_frames(beside))[:, :, :-1]
    return self._mlp(x, train), jnp.zeros(len(x), jnp.float32)


class DividedBlock(VideoBlock):
  """Each patch attends to itself at all times, then to its frame; what frames make of the learned token is averaged.

  Source: divided space-time attention, TimeSformer (Bertasius et al., arXiv:2102.05095), section 3. `time_fc` starts
  with zeros, so that a block begins as one of images.
  """

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
    batch, times, length, width = x.shape
    patches = x[:, :, 1:]
    lines = patches.swapaxes(1, 2).reshape(-1, times, width)
    lines = self._attention("time_attn")(self._norm("time_norm")(lines), None)
    lines = Dense(width, dtype=self.dtype, kernel_init=nn.initializers.zeros, name="time_fc")(lines)
    patches = patches + lines.reshape(batch, length - 1, times, width).swapaxes(1, 2)
    x = jnp.concatenate([x[:, :, :1], patches], axis=2)
    seen = self._within_frames(x)
    front = jnp.broadcast_to(seen[:, :, :1].mean(1, keepdims=True), seen[:, :, :1].shape)
    x = x + jnp.concatenate([front, seen[:, :, 1:]], axis=2)
    return self._mlp(x, train), jnp.zeros(len(x), jnp.float32)


class AlignBlock(VideoBlock):
  """Frames are mixed with what they have in common with their neighbours before they attend; returns how unlike the
  neighbours are at the points where they are aligned, [B]. Source: ILA (arXiv:2304.10465)."""

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
    batch, times, length, width = x.shape
    side = round((length - 1) ** 0.5)
    if side * side != length - 1:
      raise UserError(f"temporal='ila' aligns square frames, and there are {length - 1} patches in one")
    y = self._norm("align_norm")(Dense(width, dtype=self.dtype, name="align_fc")(x))
    patches = y[:, :, 1:].reshape(batch, times, side, side, width)
    made = Alignment(dtype=self.dtype, name="align")(patches[:, :-1], patches[:, 1:], train=train)
    # The learned token of a frame goes beside them as it is.
    parts = [jnp.concatenate([y[:, :, :1], part.reshape(batch, times, -1, width)], axis=2) for part in made[:2]]
    for name, part in zip(("skip_aligned", "skip_interactive"), parts):
      x = x + Dense(width, dtype=self.dtype, kernel_init=nn.initializers.zeros, name=name)(part)
    x = x + self._within_frames(x)
    return self._mlp(x, train), pair_loss(made.pairs)


BLOCKS = {"xclip": MessageBlock, "divided": DividedBlock, "ila": AlignBlock}


class TemporalTransformer(nn.Module):
  """A vector of each frame [B, T, D] to one of the clip, [B, D]: mean over time of Transformer(x + pos) + x.

  Source: X-CLIP's multi-frame integration (arXiv:2208.02816, eq. 9); CLIP4Clip's "seqTransf" (arXiv:2104.08860).
  """

  depth: int
  heads: int
  activation: str = "quick_gelu"
  norm_epsilon: float = 1e-5
  positions: float = 0.02
  dtype: Any = None

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> Encoded:
    """The tokens of what is returned are those of the frames, [B, T, D]."""
    width, normal = x.shape[-1], nn.initializers.normal(self.positions)
    y = x + self.param("pos_embed", normal, (1, *x.shape[1:]), jnp.float32).astype(x.dtype)
    block = functools.partial(
      Block, self.heads, 4 * width, self.activation, norm_epsilon=self.norm_epsilon, dtype=self.dtype
    )
    for number in range(self.depth):
      y = block(name=f"blocks_{number}")(y, None, train=train)
    return Encoded((x + y).mean(1), x + y)
