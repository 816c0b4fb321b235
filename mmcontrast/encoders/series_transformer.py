"""A transformer on a convolutional stem over time, for signals of any number of channels.

The stem is MoRE's (arXiv:2410.16239, github.com/svthapa/MoRE): a convolution of 5 samples every 5, a second one of 5
over what it gives, each with ReLU and a norm. Ours: layer norms for batch norms, which would see padding.

Parameters: stem1, stem_norm1, stem2, stem_norm2, cls_token, blocks_0/... (see transformer.py), norm.
"""

from __future__ import annotations

import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.encoders.attention import ATTENTION
from mmcontrast.encoders.conv import taps
from mmcontrast.encoders.dense import Dense
from mmcontrast.encoders.dtypes import DTYPES
from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.layer_norm import LayerNorm
from mmcontrast.encoders.positions import sincos1d
from mmcontrast.encoders.token_transformer import encoded_tokens
from mmcontrast.encoders.transformer import ACTIVATIONS, REMAT, check_heads
from mmcontrast.errors import UserError


class SeriesTransformer(nn.Module):
  """Series [B, L, C] and the mask of their samples to tokens, one every `stride` samples, and one vector.

  Padding changes nothing, neither by its values nor by its length: a last step that is not whole is followed by zeros.

  Attributes:
    stem: channels between the two convolutions.
    stride: samples of a token.
    reach: steps that the second convolution sees, an odd number.
    pool: "gap" (mean of the real tokens) or "cls" (a learned token).
    drop_path: probability of leaving out the last block, rising linearly from zero at the first.
    scan: whether the blocks are one loop, which compiles once whatever the depth.
    remat: what of a block is not kept for the backward pass. Neither it nor `attention` changes an output.
  """

  CHOICES: ClassVar = {
    "pool": ("gap", "cls"), "activation": tuple(ACTIVATIONS), "remat": REMAT, "attention": ATTENTION, "dtype": DTYPES,
  }  # fmt: skip

  width: int = 192
  depth: int = 6
  heads: int = 3
  stem: int = 64
  stride: int = 5
  reach: int = 5
  mlp_ratio: float = 4.0
  pool: str = "gap"
  activation: str = "gelu_tanh"
  dropout: float = 0.0
  drop_path: float = 0.0
  norm_epsilon: float = 1e-6
  dtype: str = "float32"
  scan: bool = False
  remat: str = "none"
  attention: str = "xla"

  def __post_init__(self):
    super().__post_init__()
    check_heads(self.width, self.heads)
    if self.stride < 1 or self.reach < 1 or self.reach % 2 == 0:
      raise UserError(f"stride={self.stride}, reach={self.reach}: give 1 sample or more, and an odd number of steps")

  @nn.compact
  def __call__(self, series: jax.Array, mask: jax.Array | None = None, *, train: bool) -> Encoded:
    """series [B, L, C] normalised, mask [B, L] bool or None -> pooled [B, D], tokens [B, T, D] in `dtype`, their mask
    [B, T] (None without a mask)."""
    dtype = jnp.dtype(self.dtype)
    norm = functools.partial(LayerNorm, epsilon=self.norm_epsilon, dtype=dtype)
    if series.shape[1] < self.stride:
      raise UserError(
        f"stride={self.stride} is longer than series of {series.shape[1]} samples; set it to {series.shape[1]} or "
        "less, or config.data.series.length higher"
      )
    count = -(-series.shape[1] // self.stride)
    missing = ((0, 0), (0, count * self.stride - series.shape[1]))
    x = series if mask is None else jnp.where(mask[..., None], series, 0)
    x = jnp.pad(x.astype(dtype), (*missing, (0, 0))).reshape(len(x), count, -1)
    if mask is not None:
      mask = jnp.pad(mask, missing).reshape(len(x), count, self.stride).any(-1)
    x = norm(name="stem_norm1")(nn.relu(Dense(self.stem, dtype=dtype, name="stem1")(x)))
    x = x if mask is None else jnp.where(mask[..., None], x, 0)
    side = self.reach // 2
    x = jnp.concatenate(taps(jnp.pad(x, ((0, 0), (side, side), (0, 0))), self.reach, 1, 1), axis=-1)
    x = norm(name="stem_norm2")(nn.relu(Dense(self.width, dtype=dtype, name="stem2")(x)))
    x = x + jnp.asarray(sincos1d(count, self.width), dtype)
    return encoded_tokens(self, x, mask, train=train)
