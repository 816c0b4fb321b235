"""A transformer on two convolutions over the frames of a spectrogram: Whisper's encoder (Radford et al.,
arXiv:2212.04356).

Parameters: conv1, conv2, pos_embed, blocks_0/... (see transformer.py), norm.
"""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mmcontrast.encoders.attention import ATTENTION
from mmcontrast.encoders.conv import taps
from mmcontrast.encoders.dense import Dense
from mmcontrast.encoders.dtypes import DTYPES
from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.layer_norm import LayerNorm
from mmcontrast.encoders.token_transformer import through_blocks
from mmcontrast.encoders.transformer import ACTIVATIONS, REMAT, check_heads, masked_mean
from mmcontrast.errors import UserError

_SIZE, _STRIDE = 3, 2  # frames that a convolution sees, and those of a token


class SpeechTransformer(nn.Module):
  """Spectrograms [B, F, M] and the mask of their frames to a token for every two frames, and their mean.

  Padded frames change nothing, unless the front end says that they are heard (data.audio.log_mel.padding). Positions
  are vectors that begin as sines and cosines and are trained as any parameter; Whisper never changes them. A sound may
  be shorter than at initialisation.

  Attributes:
    stem_activation: of the convolutions.
    drop_path: probability of leaving out the last block, rising linearly from zero at the first.
    scan: whether the blocks are one loop, which compiles once whatever the depth.
    remat: what of a block is not kept for the backward pass. Neither it nor `attention` changes an output.
  """

  CHOICES: ClassVar = {
    "activation": tuple(ACTIVATIONS), "stem_activation": tuple(ACTIVATIONS), "remat": REMAT, "attention": ATTENTION,
    "dtype": DTYPES,
  }  # fmt: skip

  width: int = 384
  depth: int = 4
  heads: int = 6
  mlp_ratio: float = 4.0
  activation: str = "gelu"
  stem_activation: str = "gelu"
  dropout: float = 0.0
  drop_path: float = 0.0
  norm_epsilon: float = 1e-5
  dtype: str = "float32"
  scan: bool = False
  remat: str = "none"
  attention: str = "xla"

  def __post_init__(self):
    super().__post_init__()
    check_heads(self.width, self.heads)
    if self.width % 2 or self.width < 4:
      raise UserError(f"width={self.width}: positions are pairs of a sine and a cosine; give an even width, 4 or more")

  @nn.compact
  def __call__(self, spectrograms: jax.Array, mask: jax.Array | None = None, *, train: bool) -> Encoded:
    """spectrograms [B, F, M] normalised, mask [B, F] bool or None -> pooled [B, D], tokens [B, ceil(F / 2), D] in
    `dtype`, their mask (None without a mask)."""
    dtype, activation = jnp.dtype(self.dtype), ACTIVATIONS[self.stem_activation]
    x = spectrograms.astype(dtype)
    for name, stride in (("conv1", 1), ("conv2", _STRIDE)):
      x = x if mask is None else jnp.where(mask[..., None], x, 0)
      x = jnp.pad(x, ((0, 0), (1, 1), (0, 0)))
      seen = jnp.concatenate(taps(x, _SIZE, stride, 1), axis=-1)
      x = activation(Dense(self.width, dtype=dtype, name=name)(seen))
    count = x.shape[1]
    mask = mask if mask is None else mask[:, ::_STRIDE]
    made = self.get_variable("params", "pos_embed", default=x).shape[1]
    if count > made:
      raise UserError(
        f"spectrograms of {count} tokens, and {made} positions were made; cut sounds to the length they had in training"
      )
    positions = self.param("pos_embed", lambda _: jnp.asarray(sines_then_cosines(made, self.width))[None])
    x = x + positions[:, :count].astype(dtype)
    x = through_blocks(self, x, mask, train=train)
    x = LayerNorm(epsilon=self.norm_epsilon, dtype=dtype, name="norm")(x)
    return Encoded(masked_mean(x, mask), x, mask)


def sines_then_cosines(length: int, dim: int, base: float = 10_000.0) -> np.ndarray:
  """float32 [length, dim]: the sines of each place, of wavelengths from 2 pi to 2 pi `base`, then the cosines."""
  rates = np.exp(-np.log(base) / (dim // 2 - 1) * np.arange(dim // 2))
  angles = np.arange(length)[:, None] * rates
  return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)
