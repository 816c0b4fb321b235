"""Pre-norm text transformer: causal as in CLIP (arXiv:2103.00020) and CoCa (arXiv:2205.01917), or not, as in SigLIP
(arXiv:2303.15343). BERT's is bert.py.

Parameters: token_embedding, pos_embed, cls_token, blocks_0/... (see `transformer.Block`), norm.
"""

from __future__ import annotations

import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.encoders.attention import ATTENTION
from mmcontrast.encoders.dtypes import DTYPES
from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.layer_norm import LayerNorm
from mmcontrast.encoders.transformer import (
  ACTIVATIONS,
  REMAT,
  Block,
  apply_blocks,
  check_heads,
  masked_mean,
  pick,
  token_mask,
)
from mmcontrast.errors import UserError


class TextTransformer(nn.Module):
  """Token ids [B, L] and their mask to token vectors and one vector.

  Padding (mask False) is neither attended to nor pooled, so neither its ids nor its length change
  `pooled`, but under pool "last" and "end_token" and with `attend_padding`.

  Attributes:
    max_length: the most tokens of a text, each position learned; L may be shorter.
    causal: each token sees itself and those before it.
    pool: "mean" of the real tokens, "cls" (the first token; bidirectional only), "eos", "last" (the last
      position, padding or not: SigLIP), or "end_token" (a learned vector after the last position: CoCa).
    eos_id: pool "eos" takes the first token of this id; None: the last real token.
    attend_padding: padding is attended to as any token, as SigLIP does.
    pad_id: pool "end_token" leaves tokens of this id out; None: padding, as the mask has it.
    scan: whether the blocks are one loop, which compiles once whatever the depth.
    remat: what of a block is not kept for the backward pass. Neither it nor `attention` changes an output.
  """

  POOLS_ALONE: ClassVar = True  # see `Model.encode`
  CHOICES: ClassVar = {
    "pool": ("mean", "cls", "eos", "last", "end_token"), "activation": tuple(ACTIVATIONS), "remat": REMAT,
    "attention": ATTENTION, "dtype": DTYPES,
  }  # fmt: skip

  vocab_size: int
  width: int = 512
  depth: int = 6
  heads: int = 8
  max_length: int = 77
  mlp_ratio: float = 4.0
  causal: bool = False
  pool: str = "mean"
  eos_id: int | None = None
  attend_padding: bool = False
  pad_id: int | None = None
  activation: str = "gelu_tanh"
  dropout: float = 0.0
  drop_path: float = 0.0
  norm_epsilon: float = 1e-5
  scan: bool = False
  remat: str = "none"
  attention: str = "xla"
  dtype: str = "float32"

  def __post_init__(self):
    super().__post_init__()
    check_heads(self.width, self.heads)
    if self.causal and self.pool == "cls":
      raise UserError("pool 'cls' takes the first token, which sees nothing when causal=True; use pool='eos'")
    if self.attend_padding and self.pool == "end_token":
      raise UserError("pool 'end_token' attends by its own mask; leave attend_padding out")

  @property
  def sees_padding(self) -> bool:
    """Whether `pooled` depends on how much padding follows the text."""
    return self.attend_padding or self.pool in ("last", "end_token")

  @nn.compact
  def __call__(
    self, ids: jax.Array, mask: jax.Array | None = None, *, train: bool, pooled_only: bool = False
  ) -> Encoded:
    """ids [B, L] int32, mask [B, L] bool (True: real) -> pooled [B, D], tokens [B, L, D], mask; or only pooled, for
    which the last block computes only the position that is pooled."""
    dtype = jnp.dtype(self.dtype)
    mask = token_mask(ids, mask, self.max_length)
    normal = nn.initializers.normal
    embedding = nn.Embed(self.vocab_size, self.width, dtype=dtype, embedding_init=normal(0.02), name="token_embedding")
    x, attended = embedding(ids), None if self.attend_padding else mask
    if self.pool == "end_token":
      cls = self.param("cls_token", normal(0.01), (self.width,), jnp.float32)
      x = jnp.concatenate([x, jnp.broadcast_to(cls.astype(dtype), (x.shape[0], 1, self.width))], axis=1)
      attended = self._end_mask(ids, mask)
    shape = (self.max_length + (self.pool == "end_token"), self.width)
    position = self.param("pos_embed", normal(0.01), shape, jnp.float32)
    x = x + position[: x.shape[1]].astype(dtype)
    x = nn.Dropout(self.dropout)(x, deterministic=not train)
    block = functools.partial(
      Block, self.heads, round(self.width * self.mlp_ratio), self.activation, self.causal, self.dropout,
      self.drop_path, self.norm_epsilon, dtype, attention=self.attention,
    )  # fmt: skip
    at = self._pooled_position(ids, mask, x.shape[1])
    alone = pooled_only and at is not None
    x = apply_blocks(
      block, self.depth, x, attended, train=train, scan=self.scan, remat=self.remat, at=at if alone else None
    )
    tokens = LayerNorm(epsilon=self.norm_epsilon, dtype=dtype, name="norm")(x)
    if alone:
      return Encoded(tokens[:, 0], mask=mask)
    return Encoded(masked_mean(tokens, mask) if at is None else pick(tokens, at)[:, 0], tokens[:, : ids.shape[1]], mask)

  def _end_mask(self, ids: jax.Array, mask: jax.Array) -> jax.Array:
    """[B, L] -> [B, L + 1], what is attended to with the end token.

    One position late, as in open_clip, whose published CoCa weights were trained so: the first padding is
    seen, and the end token sees itself only after a text without padding.
    """
    real = mask if self.pad_id is None else ids != self.pad_id
    return jnp.pad(real, ((0, 0), (1, 0)), constant_values=True)

  def _pooled_position(self, ids: jax.Array, mask: jax.Array, length: int) -> jax.Array | int | None:
    """Where in [0, length) the vector that is pooled stands, the same for all or [B]; None: it is a mean, of zeros
    where no token is real."""
    if self.pool in ("last", "end_token", "cls"):
      return 0 if self.pool == "cls" else length - 1
    if self.pool == "mean":
      return None
    if self.eos_id is not None:
      return jnp.argmax((ids == self.eos_id) & mask, axis=1)
    return jnp.max(jnp.where(mask, jnp.arange(ids.shape[1]), 0), axis=1)
