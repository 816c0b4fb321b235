"""Pre-norm text transformer: causal as in CLIP (arXiv:2103.00020) and CoCa (arXiv:2205.01917), or not, as in SigLIP
(arXiv:2303.15343). BERT's is bert.py.

Parameters: token_embedding, pos_embed, cls_token, mask_token, blocks_0/... (see `transformer.Block`), norm.
"""

from __future__ import annotations

import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from mmcontrast.encoders.attention import ATTENTION
from mmcontrast.encoders.dense import Embed
from mmcontrast.encoders.dropout import Hidden
from mmcontrast.encoders.dtypes import DTYPES
from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.experts import check_experts
from mmcontrast.encoders.layer_norm import LayerNorm
from mmcontrast.encoders.positions import rope1d
from mmcontrast.encoders.transformer import (
  ACTIVATIONS,
  REMAT,
  Block,
  apply_blocks,
  check_heads,
  masked_mean,
  pick,
  seen_in_parallel,
  token_mask,
)
from mmcontrast.errors import UserError


class TextTransformer(nn.Module):
  """Token ids [B, L] and their mask to token vectors and one vector.

  Padding (mask False) is neither attended to nor pooled, so neither its ids nor its length change
  `pooled`, but under pool "last" and "end_token" and with `attend_padding`.

  Attributes:
    depth: blocks; with 0 tokens are what goes in, for a decoder that reads them.
    max_length: the most tokens of a text; L may be shorter.
    positions: "learned", one for each place; or "rope": queries and keys are turned by their place (Su et al.,
      arXiv:2104.09864), so that attention depends on distances alone, and any length goes.
    rope_base: of the angles of "rope", whose slowest turns once in 2 pi times this many tokens; long texts like larger.
    causal: each token sees itself and those before it.
    pool: "mean" of the real tokens, "cls" (the first token; bidirectional only), "eos", "last" (the last
      position, padding or not: SigLIP), or "end_token" (a learned vector after the last position: CoCa).
    eos_id: pool "eos" takes the first token of this id; None: the last real token.
    attend_padding: padding is attended to as any token, as SigLIP does.
    pad_id: pool "end_token" leaves tokens of this id out; None: padding, as the mask has it.
    norm_after_pool: the last norm is applied to the pooled vector only, not to the tokens: what CoCa's decoder reads.
    parallel: share of the examples of training whose tokens are all a learned one, the same, which a decoder that reads
      them predicts all at once (CapPa, arXiv:2306.07915).
    experts: MLPs in each block in the place of one (experts.py); losses["routing"] says where tokens went. 0: one MLP.
    top_experts: to how many of them a gate sends each token.
    scan: whether the blocks are one loop, which compiles once whatever the depth.
    remat: what of a block is not kept for the backward pass. Neither it nor `attention` changes an output.
  """

  POOLS_ALONE: ClassVar = True  # see `Model.encode`
  CHOICES: ClassVar = {
    "pool": ("mean", "cls", "eos", "last", "end_token"), "positions": ("learned", "rope"),
    "activation": tuple(ACTIVATIONS), "remat": REMAT, "attention": ATTENTION, "dtype": DTYPES,
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
  experts: int = 0
  top_experts: int = 2
  dtype: str = "float32"
  norm_after_pool: bool = False
  parallel: float = 0.0
  positions: str = "learned"
  rope_base: float = 10_000.0

  def __post_init__(self):
    super().__post_init__()
    check_heads(self.width, self.heads)
    check_experts(self.experts, self.top_experts, self.scan, self.remat)
    if self.causal and self.pool == "cls":
      raise UserError("pool 'cls' takes the first token, which sees nothing when causal=True; use pool='eos'")
    if self.attend_padding and self.pool == "end_token":
      raise UserError("pool 'end_token' attends by its own mask; leave attend_padding out")
    if self.norm_after_pool and self.pool == "mean":
      raise UserError(
        "norm_after_pool=True is of one position, and pool='mean' of all; use another pool, such as 'eos'"
      )
    if not 0 <= self.parallel <= 1:
      raise UserError(f"parallel: {self.parallel} is not a share of the examples; give 0 to 1 (CapPa: 0.75)")
    if self.parallel and (self.pool == "end_token" or not self.causal):
      raise UserError("parallel: is for texts that a causal decoder reads; set causal=True, pool='last', or parallel=0")

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
    dtype, normal = jnp.dtype(self.dtype), nn.initializers.normal
    at_end, continues = self.pool == "end_token", self.has_variable("cache", "at")
    mask = token_mask(ids, mask, self.max_length)
    embedding = Embed(self.vocab_size, self.width, dtype=dtype, embedding_init=normal(0.02), name="token_embedding")
    x, attended, causal = embedding(ids), None if self.attend_padding else mask, self.causal
    if at_end and not continues:
      cls = self.param("cls_token", normal(0.01), (self.width,), jnp.float32)
      x = jnp.concatenate([x, jnp.broadcast_to(cls.astype(dtype), (x.shape[0], 1, self.width))], axis=1)
      attended = self._end_mask(ids, mask)
    x, parallel = self._hidden(x, train)
    if parallel is not None:
      attended, causal = seen_in_parallel(parallel, attended, x.shape[1]), False
    position, angles = self._positions(x.shape[1])
    x = x if position is None else x + position.astype(dtype)
    x = nn.Dropout(self.dropout)(x, deterministic=not train)
    block = functools.partial(
      Block, self.heads, round(self.width * self.mlp_ratio), self.activation, causal, self.dropout,
      self.drop_path, self.norm_epsilon, dtype, attention=self.attention,
      experts=self.experts, top_experts=self.top_experts,
    )  # fmt: skip
    at = self._pooled_position(ids, mask, x.shape[1])
    alone = pooled_only and at is not None
    went: list[jax.Array] = []
    x = apply_blocks(
      block,
      self.depth,
      x,
      attended,
      angles,
      train=train,
      scan=self.scan,
      remat=self.remat,
      at=at if alone else None,
      went=went,
    )
    losses = {"routing": sum(went)} if went else {}
    norm = LayerNorm(epsilon=self.norm_epsilon, dtype=dtype, name="norm")
    if alone:
      return Encoded(norm(x)[:, 0], mask=mask, losses=losses)
    if self.norm_after_pool:
      pooled, tokens = norm(pick(x, at))[:, 0], x
    else:
      tokens = norm(x)
      pooled = masked_mean(tokens, mask) if at is None else pick(tokens, at)[:, 0]
    return Encoded(pooled, tokens[:, : ids.shape[1]], mask, parallel=parallel, losses=losses)

  def _hidden(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array | None]:
    """Token vectors [B, L, D], in training those of a share `parallel` of the examples all one learned vector, and
    which examples these are."""
    if not self.parallel:
      return x, None
    hidden = self.param("mask_token", nn.initializers.normal(0.02), (self.width,), jnp.float32).astype(x.dtype)
    if not train:
      return x, None
    chosen = Hidden(name="hidden")(x, self.parallel)
    return jnp.where(chosen[:, None, None], hidden, x), chosen

  def _positions(self, length: int) -> tuple[jax.Array | None, jax.Array | None]:
    """The learned positions [L, D] of what goes in, or the angles of rope [1, L, D / heads / 2]; those that come next
    where there is a cache."""
    count, at = self.max_length + (self.pool == "end_token"), 0
    if self.has_variable("cache", "at"):
      at = self.get_variable("cache", "at")
      self.put_variable("cache", "at", at + length)
    if self.positions == "rope":
      angles = jnp.asarray(rope1d(count, self.width // self.heads, self.rope_base))
      return None, lax.dynamic_slice_in_dim(angles, at, length)[None]
    position = self.param("pos_embed", nn.initializers.normal(0.01), (count, self.width), jnp.float32)
    return (position[:length] if isinstance(at, int) else lax.dynamic_slice_in_dim(position, at, length)), None

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
