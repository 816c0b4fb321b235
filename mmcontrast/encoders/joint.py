"""The tokens of several towers as one sequence: of sound and vision together, for instance.

    towers.joint = dict(name="joint_transformer", reads=("image", "audio"), width=128, depth=2, heads=4)
    towers.joint = dict(name="joint_transformer", reads=("image", "audio"), width=128, depth=0)    # side by side

Parameters: embed_0 ..., type_embed, blocks_0/... (see `transformer.Block`), norm; the last three with `depth` alone.
"""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.encoders.attention import ATTENTION
from mmcontrast.encoders.dense import Dense
from mmcontrast.encoders.dtypes import DTYPES
from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.layer_norm import LayerNorm
from mmcontrast.encoders.token_transformer import through_blocks
from mmcontrast.encoders.transformer import ACTIVATIONS, REMAT, check_heads, masked_mean


class JointTransformer(nn.Module):
  """Tokens of the towers that it reads, each tower's brought to `width` by a layer of its own, stand one tower after
  the other and attend to each other in `depth` blocks, a learned vector telling of which tower each is.

  With depth=0 they only stand side by side, as VALOR's (arXiv:2304.08345) tokens of a group of modalities do: a head
  `token_weighted` shares its weights over all of them. Padding is neither attended to nor pooled.

  Attributes:
    scan: whether the blocks are one loop, which compiles once whatever the depth.
    remat: what of a block is not kept for the backward pass.
  """

  READS: ClassVar = 2
  CHOICES: ClassVar = {"activation": tuple(ACTIVATIONS), "remat": REMAT, "attention": ATTENTION, "dtype": DTYPES}

  width: int = 512
  depth: int = 2
  heads: int = 8
  mlp_ratio: float = 4.0
  activation: str = "gelu_tanh"
  norm_epsilon: float = 1e-6
  scan: bool = False
  remat: str = "none"
  attention: str = "xla"
  dtype: str = "float32"

  def __post_init__(self):
    super().__post_init__()
    check_heads(self.width, self.heads)

  @nn.compact
  def __call__(self, *parts: Encoded, train: bool) -> Encoded:
    """parts: tokens [B, Li, Ci], each with its mask -> pooled [B, D], the mean, tokens [B, L1 + L2 + ..., D] and their
    mask."""
    dtype = jnp.dtype(self.dtype)
    tokens = [Dense(self.width, dtype=dtype, name=f"embed_{i}")(part.tokens) for i, part in enumerate(parts)]
    real = [jnp.ones(part.tokens.shape[:2], bool) if part.mask is None else part.mask for part in parts]
    mask = jnp.concatenate(real, 1)
    if not self.depth:
      x = jnp.concatenate(tokens, 1)
      return Encoded(masked_mean(x, mask), x, mask)
    kinds = self.param("type_embed", nn.initializers.normal(0.02), (len(parts), self.width), jnp.float32)
    x = jnp.concatenate([x + kind.astype(dtype) for x, kind in zip(tokens, jnp.unstack(kinds))], 1)
    x = through_blocks(self, x, mask, train=train)
    x = LayerNorm(epsilon=self.norm_epsilon, dtype=dtype, name="norm")(x)
    return Encoded(masked_mean(x, mask), x, mask)
