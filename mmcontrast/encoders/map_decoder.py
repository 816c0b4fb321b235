"""One map of an image from the seen patches of all of them (MultiMAE, arXiv:2204.01678, section 3.4).

    towers.edges = dict(name="map_decoder", reads=("image",), part=2, width=64, depth=2, heads=4)

Parameters: embed, mask_token, part_embed, norm_query, norm_context, cross_attn/{q, kv, proj}, norm_mlp, mlp,
blocks_0/... (see `transformer.Block`).
"""

from __future__ import annotations

import functools
import math
from typing import ClassVar

import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.encoders.attention import ATTENTION
from mmcontrast.encoders.dtypes import DTYPES
from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.layer_norm import LayerNorm
from mmcontrast.encoders.patch_decoder import with_hidden
from mmcontrast.encoders.positions import sincos2d
from mmcontrast.encoders.token_transformer import through_blocks
from mmcontrast.encoders.transformer import ACTIVATIONS, REMAT, Context, CrossAttention, Mlp, check_heads
from mmcontrast.errors import UserError


class MapDecoder(nn.Module):
  """The places of one map attend to the seen patches of all maps, and then to each other.

      q = the tokens of map `part`, a learned one where a patch is hidden;  c = all that are seen
      x = attention(norm(q), norm(c));  x = x + mlp(norm(x));  then `depth` blocks

  To both positions and a learned vector of the map are added. What is attended is not added to q. As the
  SpatialOutputAdapter of EPFL-VILAB/MultiMAE@66910f5, positions aside, whose axes are exchanged there.

  Attributes:
    part: the map that is decoded: 0 the colours, 1 the first of config.data.maps.kinds, and so on.
    scan: whether the blocks are one loop, which compiles once whatever the depth.
    remat: what of a block is not kept for the backward pass.
  """

  READS: ClassVar = 1
  CHOICES: ClassVar = {"activation": tuple(ACTIVATIONS), "remat": REMAT, "attention": ATTENTION, "dtype": DTYPES}

  part: int = 0
  width: int = 256
  depth: int = 2
  heads: int = 8
  mlp_ratio: float = 4.0
  activation: str = "gelu"
  norm_epsilon: float = 1e-6
  scan: bool = False
  remat: str = "none"
  attention: str = "xla"
  dtype: str = "float32"

  def __post_init__(self):
    super().__post_init__()
    check_heads(self.width, self.heads)

  @nn.compact
  def __call__(self, first: Encoded, *, train: bool) -> Encoded:
    """first: tokens [B, K + any, C], the first K at `places` of all maps -> pooled [B, D], the mean, and tokens
    [B, L, D], a map."""
    if first.places is None or len(first.whole or ()) != 3:
      raise UserError("reads patches of several maps, and these tokens are of one; let it read a tower 'map_vit'")
    (parts, *grid), places, dtype = first.whole, first.places, jnp.dtype(self.dtype)
    if not 0 <= self.part < parts:
      raise UserError(f"part: {self.part} is none of the {parts} maps; give 0, the colours, to {parts - 1}")
    length = math.prod(grid)
    norm = functools.partial(LayerNorm, epsilon=self.norm_epsilon, dtype=dtype)
    whole, others = with_hidden(self, first.tokens, places, parts * length)
    normal = nn.initializers.normal(0.02)
    of_part = self.param("part_embed", normal, (parts, self.width), jnp.float32).astype(dtype)
    position = of_part[:, None] + jnp.asarray(sincos2d(*grid, self.width), dtype)
    whole = whole + position.reshape(1, parts * length, self.width)
    queries = whole[:, self.part * length : (self.part + 1) * length]
    context = jnp.concatenate([jnp.take_along_axis(whole, places[..., None], 1), others], 1)
    attention = CrossAttention(self.heads, dtype, self.attention, name="cross_attn")
    x = attention(norm(name="norm_query")(queries), Context(norm(name="norm_context")(context)))
    hidden = round(self.width * self.mlp_ratio)
    x = x + Mlp(hidden, self.activation, dtype=dtype, name="mlp")(norm(name="norm_mlp")(x), train=train)
    x = through_blocks(self, x, train=train)
    return Encoded(x.mean(1), x, grid=tuple(grid))
