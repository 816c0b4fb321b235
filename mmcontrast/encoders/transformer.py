"""The transformer block that all encoders, fusions and decoders are made of.

Parameter names are timm's: norm1, attn/{qkv, q_norm, k_norm, proj}, ls1/gamma, norm2, mlp/{fc1, fc2}, ls2/gamma; of a
block that attends to a context too: norm_cross, norm_context, cross_attn/{q, kv, proj}, and norm_cross_mlp, cross_mlp.

Captions are written one token after the other (models/decoding.py): a module that has the Flax collection "cache" is
given new positions only, and takes keys and values of those before them from there.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from mmcontrast.encoders.attention import attend
from mmcontrast.encoders.dense import Dense, JointDense
from mmcontrast.encoders.dropout import DropPath
from mmcontrast.encoders.experts import Experts
from mmcontrast.encoders.layer_norm import STATISTICS, LayerNorm
from mmcontrast.encoders.lowering import by_batch
from mmcontrast.encoders.positions import rotate
from mmcontrast.errors import UserError


def exact_gelu(x: jax.Array) -> jax.Array:
  """x times the normal distribution up to x. JAX's own is by erfc, which takes twice as long on a CPU."""
  wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))  # in 16 bits little is left of 1 + erf below -2
  return (0.5 * wide * (1 + lax.erf(wide * math.sqrt(0.5)))).astype(x.dtype)


ACTIVATIONS = {
  "gelu": exact_gelu,
  "gelu_tanh": nn.gelu,  # 5 to 8 % faster than the exact form on CPU
  "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),
  "relu": nn.relu,
  "silu": nn.silu,
}
REMAT = ("none", "full", "keep_products", "dots_saveable", "dots_with_no_batch_dims_saveable")
KEPT = ("qkv", "attended", "projected", "hidden", STATISTICS)  # what "keep_products" keeps, by name


def check_heads(width: int, heads: int) -> None:
  """Raises UserError unless `width` splits evenly into `heads`."""
  if width % heads:
    valid = [h for h in range(1, width + 1) if width % h == 0]
    near = min(valid, key=lambda h: (abs(h - heads), h))
    raise UserError(f"width {width} does not split into {heads} heads; the nearest is heads={near}")


def token_mask(ids: jax.Array, mask: jax.Array | None, max_length: int) -> jax.Array:
  """Which token ids [B, L] are real: `mask` as bool [B, L], all without one. Raises UserError for L > max_length."""
  if ids.shape[1] > max_length:
    raise UserError(f"texts of {ids.shape[1]} tokens do not fit max_length={max_length}")
  return jnp.ones(ids.shape, bool) if mask is None else mask.astype(bool)


def pick(x: jax.Array, at: jax.Array | int) -> jax.Array:
  """[B, L, ...] -> [B, 1, ...]: position `at` of each example, the same for all or [B]."""
  if isinstance(at, int):
    return x[:, at : at + 1]
  return jnp.take_along_axis(x, at.reshape(-1, *[1] * (x.ndim - 1)), axis=1)


def seen_in_parallel(parallel: jax.Array, mask: jax.Array | None, length: int) -> jax.Array:
  """[B, L, L]: what each position sees: all in examples that are predicted in parallel [B], else real tokens [B, L] up
  to its own."""
  before = jnp.tril(jnp.ones((length, length), bool))
  return parallel[:, None, None] | (before if mask is None else before & mask[:, None, :])


def masked_mean(tokens: jax.Array, mask: jax.Array | None) -> jax.Array:
  """[B, L, D], [B, L] -> [B, D]; zeros for an example without a real token."""
  if mask is None:
    return tokens.mean(1)
  weight = mask.astype(tokens.dtype)[..., None]
  return (tokens * weight).sum(1) / jnp.maximum(weight.sum(1), 1)


class Attention(nn.Module):
  """Multi-head self-attention with one matrix for queries, keys and values.

  Attributes:
    qk_norm: queries and keys are normalised, each head by itself (Dehghani et al., arXiv:2302.05442).
    implementation, window: see `attend`.
  """

  heads: int
  causal: bool = False
  dtype: Any = None
  qkv_bias: bool = True
  qk_norm: bool = False
  norm_epsilon: float = 1e-6
  implementation: str = "xla"
  proj_bias: bool = True
  window: int | None = None

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    mask: jax.Array | None,
    angles: jax.Array | None = None,
    at: jax.Array | int | None = None,
    bias: jax.Array | None = None,
  ) -> jax.Array:
    """x [B, L, D], mask [B, L] or [B, L, L] and bias [heads, L, L] (see `attend`), angles [B or 1, L, D / heads / 2]
    (see `rotate`) -> [B, L, D]; of position `at` (see `pick`) alone [B, 1, D], without a bias. With a cache x are
    positions after those in it, and `mask` is not looked at."""
    batch, length, width = x.shape
    qkv = JointDense(width, 3, self.qkv_bias, self.dtype, name="qkv")(x)
    q, k, v = (checkpoint_name(part, "qkv").reshape(batch, length, self.heads, -1) for part in qkv)
    if self.qk_norm:
      norm = functools.partial(LayerNorm, epsilon=self.norm_epsilon, dtype=self.dtype)
      q, k = norm(name="q_norm")(q), norm(name="k_norm")(k)
    if angles is not None:
      q, k = rotate(q, angles), rotate(k, angles)
    causal = self.causal
    if at is not None:
      q = pick(q, at)
      if causal:  # one query, which sees what stands before it
        seen = jnp.arange(length) <= jnp.reshape(at, (-1, 1))
        mask, causal = seen if mask is None else mask & seen, False
    if self.has_variable("cache", "k"):
      k, v, mask = self._behind_cached(k, v)
      causal = False
    y = checkpoint_name(attend(q, k, v, mask, causal, self.implementation, self.window, bias), "attended")
    y = Dense(width, use_bias=self.proj_bias, dtype=self.dtype, name="proj")(y)
    return checkpoint_name(y, "projected")

  def _behind_cached(self, k: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Keys and values of new positions [B, L, heads, d] put behind those in the cache [B, T, heads, d], and what each
    new position sees of them, [1, L, T]."""
    at = self.get_variable("cache", "at")
    for name, new in (("k", k), ("v", v)):
      held = self.get_variable("cache", name)
      self.put_variable("cache", name, lax.dynamic_update_slice_in_dim(held, new.astype(held.dtype), at, axis=1))
    self.put_variable("cache", "at", at + k.shape[1])
    k, v = (self.get_variable("cache", name) for name in "kv")
    return k, v, (jnp.arange(k.shape[1]) <= at + jnp.arange(new.shape[1])[:, None])[None]


class Context(NamedTuple):
  """What a block's tokens attend to beside themselves: tokens [B, S, C], and mask [B, S], True where one is real."""

  tokens: jax.Array
  mask: jax.Array | None = None


class CrossAttention(nn.Module):
  """Multi-head attention of queries to the keys and values of a context, which may have another width."""

  heads: int
  dtype: Any = None
  implementation: str = "xla"
  qkv_bias: bool = True

  @nn.compact
  def __call__(self, x: jax.Array, context: Context | None) -> jax.Array:
    """x [B, L, D] -> [B, L, D]. Without a context it is the one that is in the cache."""
    width = x.shape[-1]
    q = Dense(width, use_bias=self.qkv_bias, dtype=self.dtype, name="q")(x)
    if context is None:
      k, v, mask = (self.get_variable("cache", name) for name in ("k", "v", "mask"))
    else:
      mask = context.mask
      k, v = JointDense(width, 2, self.qkv_bias, dtype=self.dtype, name="kv")(context.tokens)
      if self.is_mutable_collection("cache") and not self.is_initializing():
        for name, array in (("k", k), ("v", v), ("mask", mask)):
          self.put_variable("cache", name, array)
    q, k, v = (part.reshape(*part.shape[:2], self.heads, -1) for part in (q, k, v))
    y = attend(q, k, v, mask, causal=False, implementation=self.implementation)
    return Dense(width, dtype=self.dtype, name="proj")(y)


class Mlp(nn.Module):
  """Two linear layers with an activation between.

  Attributes:
    gated: the first layer gives a gate and a value, and what goes on is activation(gate) * value;
      with "silu" SwiGLU, with "gelu" GeGLU (Shazeer, arXiv:2002.05202). `hidden` is the width of each.
  """

  hidden: int
  activation: str = "gelu_tanh"
  dropout: float = 0.0
  dtype: Any = None
  gated: bool = False
  bias: bool = True

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """[..., D] -> [..., D]."""
    y = Dense(self.hidden * (1 + self.gated), use_bias=self.bias, dtype=self.dtype, name="fc1")(x)
    y = checkpoint_name(y, "hidden")
    gate, *value = jnp.split(y, 1 + self.gated, axis=-1)
    y = ACTIVATIONS[self.activation](gate)
    y = y * value[0] if self.gated else y
    y = nn.Dropout(self.dropout)(y, deterministic=not train)
    return Dense(x.shape[-1], use_bias=self.bias, dtype=self.dtype, name="fc2")(y)


class LayerScale(nn.Module):
  """A learned factor for each channel of a branch (Touvron et al., arXiv:2103.17239)."""

  initial: float

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[..., D] -> [..., D]."""
    gamma = self.param("gamma", nn.initializers.constant(self.initial), x.shape[-1:], jnp.float32)
    return x * gamma.astype(x.dtype)


BRANCHES = {  # of a block -> (the name of its norm, that of its layer scale)
  "messages": ("norm_messages", "ls_messages"),
  "attn": ("norm1", "ls1"),
  "cross_attn": ("norm_cross", "ls_cross"),
  "mlp": ("norm2", "ls2"),
  "cross_mlp": ("norm_cross_mlp", "ls_cross_mlp"),
}
NORMS = ("pre", "post")


class Block(nn.Module):
  """Branches one after the other, each added to what goes in: x + attn(norm(x)), then x + mlp(norm(x)).

  Attributes:
    branches: of BRANCHES: "attn", "mlp", and of a block with a context "cross_attn", which attends to it, and
      "cross_mlp", a second MLP; of one whose context are edges between the tokens "messages".
    messages: makes the module of that branch, given its name: graph_layers.TypedMessages.
    norm: "pre": x + f(norm(x)); "post": norm(x + f(x)), as in BERT and the first transformer (arXiv:1706.03762).
    context_norm: whether the context is normalised too, where it is read.
    experts, top_experts: MLPs in the place of one, and to how many a token goes (experts.py); 0: one.
    drop_path: probability that an example skips a branch: see `DropPath`.
    gated: see `Mlp`. qkv_bias, qk_norm: see `Attention`. attention: see `attend`.
    layer_scale: what each branch's factors start with; None: no factors.
  """

  IS_LAYER: ClassVar = True  # whose output models/layer_outputs.py keeps

  heads: int
  hidden: int
  activation: str = "gelu_tanh"
  causal: bool = False
  dropout: float = 0.0
  drop_path: float = 0.0
  norm_epsilon: float = 1e-6
  dtype: Any = None
  gated: bool = False
  qkv_bias: bool = True
  qk_norm: bool = False
  layer_scale: float | None = None
  attention: str = "xla"
  branches: tuple[str, ...] = ("attn", "mlp")
  norm: str = "pre"
  context_norm: bool = False
  experts: int = 0
  top_experts: int = 2
  messages: Callable[..., nn.Module] | None = None

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    mask: jax.Array | None,
    angles: jax.Array | None = None,
    drop_scale: jax.Array | float = 1.0,
    at: jax.Array | int | None = None,
    context: Context | None = None,
    *,
    train: bool,
  ) -> Any:
    """x [B, L, D], mask, angles and `at` as in `Attention` -> [B, L, D]; with `at` [B, 1, D]. With experts also where
    tokens went (`experts.routing`).

    `drop_scale`: factor of `drop_path`, which rises with depth. `context`: None where the cache has it.
    """
    norm, is_pre = functools.partial(LayerNorm, epsilon=self.norm_epsilon, dtype=self.dtype), self.norm == "pre"

    def residual(x, y, scale):
      if self.layer_scale is not None:
        y = LayerScale(self.layer_scale, name=scale)(y)
      y = nn.Dropout(self.dropout)(y, deterministic=not train)
      return x + (DropPath()(y, self.drop_path * drop_scale) if train and self.drop_path else y)

    went = None
    for branch in self.branches:
      norm_name, scale = BRANCHES[branch]
      own_norm = norm(name=norm_name)
      y = self._branch(branch, own_norm(x) if is_pre else x, mask, angles, at, context, train)
      y, went = y if branch == "mlp" and self.experts else (y, went)
      x = residual(x if at is None or branch != "attn" else pick(x, at), y, scale)
      x = x if is_pre else own_norm(x)
    return (x, went) if self.experts else x

  def _branch(self, branch, x, mask, angles, at, context, train) -> Any:
    if branch == "messages":
      return self.messages(name=branch)(x, context)
    if branch == "attn":
      attn = Attention(
        self.heads, self.causal, self.dtype, self.qkv_bias, self.qk_norm, self.norm_epsilon, self.attention, name="attn"
      )
      return attn(x, mask, angles, at)
    if branch == "cross_attn":
      if self.context_norm and context is not None:
        norm = LayerNorm(epsilon=self.norm_epsilon, dtype=self.dtype, name="norm_context")
        context = context._replace(tokens=norm(context.tokens))
      return CrossAttention(self.heads, self.dtype, self.attention, name="cross_attn")(x, context)
    dropout = self.dropout if self.norm == "pre" else 0.0  # BERT has it after the MLP alone
    mlp = functools.partial(Mlp, self.hidden, self.activation, dropout, self.dtype, self.gated)
    if branch == "mlp" and self.experts:
      real = mask if at is None and mask is not None and mask.ndim == 2 else None
      return Experts(mlp, self.experts, self.top_experts, self.dtype, name=branch)(x, real, train=train)
    return mlp(name=branch)(x, train=train)


def apply_blocks(
  block: Callable[..., Block],
  depth: int,
  x: jax.Array,
  mask: jax.Array | None = None,
  angles: jax.Array | None = None,
  *,
  train: bool,
  scan: bool = False,
  remat: str = "none",
  at: jax.Array | int | None = None,
  context: Context | None = None,
  went: list[jax.Array] | None = None,
) -> jax.Array:
  """x through `depth` blocks, made in the module that calls this.

  Args:
    block: makes one, given its name; its `drop_path` is that of the last block, rising linearly from
      zero at the first.
    x: [B, L, D]. mask, angles, context: as of `Block`.
    scan: one block in a loop of XLA, which compiles once whatever the depth. Its parameters are
      "blocks/..." with a leading axis of layers instead of "blocks_0/...": see `layers.py`.
    remat: what the backward pass keeps of a block and does not compute again: "none": everything is
      kept; "full": nothing is; "keep_products": KEPT, what comes of matrix products with their biases and of
      attention, so that only what is cheap is computed again; or a policy of `jax.checkpoint_policies`.
    at: the one position (see `pick`) that is wanted of the last block, which then computes no other.
    went: takes, of blocks with experts, where the tokens of each went.
  Returns:
    [B, L, D], or with `at` [B, 1, D].
  """

  if not depth:
    return x if at is None else pick(x, at)
  x = by_batch(x)
  drop_scales = [i / max(depth - 1, 1) for i in range(depth)]
  one_block = _remembering(
    lambda block, x, drop_scale: block(x, mask, angles, drop_scale, context=context, train=train), remat, scan
  )
  if scan:
    loop = nn.scan(
      lambda block, x, drop_scale: (one_block(block, x, drop_scale), None),
      variable_axes={"params": 0},
      split_rngs={"params": True, "dropout": True},
      length=depth,
    )
    x, _ = loop(block(name="blocks"), x, jnp.asarray(drop_scales))
    return x if at is None else pick(x, at)
  whole = depth if at is None else depth - 1  # blocks that compute all positions
  made = [block(name=f"blocks_{i}") for i in range(depth)]
  for i, drop_scale in enumerate(drop_scales[:whole]):
    x = _told(one_block(made[i], x, drop_scale), went)
  if at is not None:
    x = _told(made[whole](x, mask, angles, drop_scales[whole], at, context, train=train), went)
  return x


def _told(made: Any, went: list[jax.Array] | None) -> jax.Array:
  """What a block made; where tokens went, if it says so, is put into `went`."""
  if not isinstance(made, tuple):
    return made
  if went is not None:
    went.append(made[1])
  return made[0]


def _remembering(function: Callable[..., jax.Array], remat: str, scan: bool) -> Callable[..., jax.Array]:
  """A function of (module, x, ...) of which the backward pass keeps what `remat` says (`apply_blocks`)."""
  if remat == "none":
    return function
  if remat == "keep_products":
    policy = jax.checkpoint_policies.save_only_these_names(*KEPT)
  else:
    policy = None if remat == "full" else getattr(jax.checkpoint_policies, remat)
  return nn.remat(function, policy=policy, prevent_cse=not scan)
