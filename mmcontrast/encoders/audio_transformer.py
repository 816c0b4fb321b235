"""A transformer on overlapping patches of a spectrogram, as in AST (Gong et al., arXiv:2104.01778).

Parameters: patch_embed, cls_token, distillation_token, pos_time, pos_frequency, pos_embed, blocks_0/... (see
transformer.py), norm.
"""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.encoders.attention import ATTENTION
from mmcontrast.encoders.conv import taps
from mmcontrast.encoders.dense import Dense
from mmcontrast.encoders.dtypes import DTYPES
from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.positions import sincos2d
from mmcontrast.encoders.token_transformer import LEARNED_TOKENS, encoded_tokens
from mmcontrast.encoders.transformer import ACTIVATIONS, REMAT, check_heads
from mmcontrast.errors import UserError


class AudioTransformer(nn.Module):
  """Spectrograms [B, F, M] and the mask of their frames to patch tokens and one vector.

  Patches begin every `stride` cells as long as there is a frame, or a filter, that none before has seen; what a last
  one lacks is zero. So padded frames change nothing, neither by their values nor by their number. With `cut_edges` no
  patch begins that is not whole.

  Attributes:
    patch: frames and filters of a patch.
    stride: frames and filters from one patch to the next; less than `patch`: patches overlap. AST's are 10 of 16.
    pool: "gap" (mean of the real patches' tokens), "cls" (a learned token), or "cls_distillation" (the mean of two, the
      second of which learned from a teacher, as DeiT's: AST's).
    positions: "sincos2d" (fixed), "learned" (one vector for each place in time, one for each in frequency, which are
      added; for spectrograms as long as at initialisation, or shorter), "grid" (one for each token, learned ones among
      them, for spectrograms as long as at initialisation: AST's), "none".
    cut_edges: frames and filters that do not fill a patch are left out.
    drop_path: probability of leaving out the last block, rising linearly from zero at the first.
    scan: whether the blocks are one loop, which compiles once whatever the depth.
    remat: what of a block is not kept for the backward pass. Neither it nor `attention` changes an output.
  """

  CHOICES: ClassVar = {
    "pool": ("gap", *LEARNED_TOKENS),
    "positions": ("sincos2d", "learned", "grid", "none"),
    "activation": tuple(ACTIVATIONS),
    "remat": REMAT,
    "attention": ATTENTION,
    "dtype": DTYPES,
  }

  width: int = 192
  depth: int = 12
  heads: int = 3
  patch: tuple[int, int] = (16, 16)
  stride: tuple[int, int] = (10, 10)
  mlp_ratio: float = 4.0
  pool: str = "gap"
  positions: str = "sincos2d"
  activation: str = "gelu_tanh"
  dropout: float = 0.0
  drop_path: float = 0.0
  norm_epsilon: float = 1e-6
  cut_edges: bool = False
  dtype: str = "float32"
  scan: bool = False
  remat: str = "none"
  attention: str = "xla"

  def __post_init__(self):
    super().__post_init__()
    check_heads(self.width, self.heads)
    for name in ("patch", "stride"):
      pair = getattr(self, name)
      if not (isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(n, int) and n > 0 for n in pair)):
        raise UserError(f"{name}={pair!r}: give (frames, filters), two whole numbers over 0")
    if any(step > size for step, size in zip(self.stride, self.patch)):
      raise UserError(f"stride={self.stride} leaves cells out between patches of {self.patch}; it is at most the patch")

  @nn.compact
  def __call__(self, spectrograms: jax.Array, mask: jax.Array | None = None, *, train: bool) -> Encoded:
    """spectrograms [B, F, M] normalised, mask [B, F] bool or None -> pooled [B, D], tokens [B, L, D] in `dtype`, their
    mask [B, L] (None without a mask) and grid (places in time, in frequency)."""
    dtype = jnp.dtype(self.dtype)
    if mask is not None:
      spectrograms = jnp.where(mask[..., None], spectrograms, 0)
    x, mask = self._patches(spectrograms.astype(dtype), mask)
    x = self._placed(Dense(self.width, dtype=dtype, name="patch_embed")(x))
    grid = x.shape[1:3]
    x = x.reshape(len(x), -1, self.width)
    place = self._on_grid if self.positions == "grid" else None
    return encoded_tokens(self, x, mask, train=train, grid=grid, place=place)

  def _patches(self, x: jax.Array, mask: jax.Array | None) -> tuple[jax.Array, jax.Array | None]:
    """[B, F, M], [B, F] -> ([B, T, N, cells of a patch], [B, T N])."""
    counts = [self._count(size, axis) for axis, size in enumerate(x.shape[1:])]
    reach = [(count - 1) * step + size for count, step, size in zip(counts, self.stride, self.patch)]
    x = jnp.pad(x, ((0, 0), *((0, max(end - size, 0)) for end, size in zip(reach, x.shape[1:]))))
    x = x[:, : reach[0], : reach[1]]
    rows = jnp.stack(taps(x[..., None], self.patch[1], self.stride[1], 2), axis=-1)
    cut = jnp.concatenate(taps(rows.reshape(*rows.shape[:3], -1), self.patch[0], self.stride[0], 1), axis=-1)
    if mask is None:
      return cut, None
    real = jnp.arange(counts[0]) < self._count(mask.sum(1, keepdims=True), 0)
    return cut, jnp.repeat(real & mask.any(1, keepdims=True), counts[1], axis=1)

  def _placed(self, x: jax.Array) -> jax.Array:
    """Patches [B, T, N, D] with their positions."""
    times, filters = x.shape[1:3]
    if self.positions == "sincos2d":
      return x + jnp.asarray(sincos2d(times, filters, self.width), x.dtype).reshape(times, filters, -1)
    if self.positions in ("none", "grid"):
      return x
    for axis, name, count in ((1, "pos_time", times), (0, "pos_frequency", filters)):
      made = self.get_variable("params", name, default=jnp.zeros((count, 1))).shape[0]
      if count > made:
        raise UserError(
          f"positions='learned': spectrograms of {count} patches, and {made} places were learned; cut sounds to the "
          "length they had in training, or train with positions='sincos2d'"
        )
      position = self.param(name, nn.initializers.normal(0.02), (made, self.width), jnp.float32)[:count]
      x = x + jnp.expand_dims(position.astype(x.dtype), axis)
    return x

  def _on_grid(self, x: jax.Array) -> jax.Array:
    """[B, n + L, D], n learned tokens and those of patches, with a learned position each."""
    made = self.get_variable("params", "pos_embed", default=x).shape[1]
    if made != x.shape[1]:
      front = len(LEARNED_TOKENS.get(self.pool, ()))
      raise UserError(
        f"positions='grid': spectrograms of {x.shape[1] - front} patches, and {made - front} places were learned; "
        "set data.audio.log_mel.frames to what it was in training"
      )
    position = self.param("pos_embed", nn.initializers.normal(0.02), (1, made, self.width), jnp.float32)
    return x + position.astype(x.dtype)

  def _count(self, length: jax.Array | int, axis: int) -> jax.Array | int:
    """How many patches it takes until each of `length` cells is in one, or are whole (`cut_edges`); at least 1."""
    size, step = self.patch[axis], self.stride[axis]
    further = (length - size) // step if self.cut_edges else -((size - length) // step)
    return 1 + further * (further > 0)
