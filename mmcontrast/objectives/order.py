"""Which of several texts comes when, from what a video shows: TVTS's task of order (Zeng et al. 2022, "Learning
transferable spatiotemporal representations from natural script knowledge", arXiv:2209.15280)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.layer_norm import LayerNorm
from mmcontrast.encoders.transformer import Block, apply_blocks
from mmcontrast.errors import UserError
from mmcontrast.objectives.embedding_path import parse_embedding
from mmcontrast.objectives.means import mean_of_valid, of_valid
from mmcontrast.objectives.module_loss import Facts, ModuleLoss
from mmcontrast.objectives.score import widen
from mmcontrast.objectives.term import Run


class Order(ModuleLoss):
  """Cross entropy of the place of each of K texts of an example, a mean over texts, then over examples.

      order = dict(module="order", embeddings=("text[0]/sorted", "text[1]/sorted", "text[2]/sorted",
                                               "video[0]/shown"), weight=2.0)

      z = blocks([v_1 + e_0, ..., v_L + e_0, t_1 + e_1, ..., t_K + e_1]);   mean over k of CE(W norm(z_{L+k}), k)

  The texts are named as they come in the video, one vector each; the last path gives the tokens of the video, or of
  what else shows the order. No token knows its place among the texts, so that nothing needs to be shuffled: where the
  video says nothing the texts are guessed by themselves alone. No gradient goes to the texts. As SortTransformer of
  TencentARC/TVTS@290a63e, whose loss has the factor 2.

  Attributes:
    depth: blocks, pre-norm.
    heads: of their attention.
  """

  TAKES: ClassVar[tuple[str, ...]] = ("pooled", "tokens")

  depth: int = 2
  heads: int = 4

  def __post_init__(self):
    super().__post_init__()
    for name, least in (("depth", 1), ("heads", 1)):
      value = getattr(self, name)
      if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f"{name}: {value!r} is not a whole number of {least} or more")

  @nn.compact
  def __call__(self, views: Sequence[Encoded], facts: Facts) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`views`: texts, pooled [N, D] each, in order, and last tokens [N, L, D]."""
    *texts, shown = views
    texts = jnp.stack([text.pooled for text in texts], 1)
    texts = widen(of_valid(lax.stop_gradient(texts), facts.valid))
    tokens, count = widen(of_valid(shown.tokens, facts.valid)), texts.shape[1]
    if texts.shape[-1] != tokens.shape[-1]:
      raise UserError(
        f"embeddings: texts of {texts.shape[-1]} numbers, and tokens of {tokens.shape[-1]} in {facts.names[-1]!r}; "
        "give their heads one dim, or their towers one width"
      )
    kinds = self.param("type_embed", nn.initializers.normal(0.02), (2, texts.shape[-1]), jnp.float32)
    x = jnp.concatenate([tokens + kinds[0], texts + kinds[1]], 1)
    mask = None if shown.mask is None else jnp.pad(shown.mask, ((0, 0), (0, count)), constant_values=True)
    block = functools.partial(Block, self.heads, 4 * x.shape[-1], "gelu", norm_epsilon=1e-6, dtype=x.dtype)
    x = apply_blocks(block, self.depth, x, mask, train=True)[:, -count:]
    x = LayerNorm(epsilon=1e-6, dtype=x.dtype, name="norm")(x)
    logits = nn.Dense(count, dtype=x.dtype, name="head")(x)
    place = jnp.arange(count)
    each = -jax.nn.log_softmax(logits)[:, place, place].mean(1)
    right = jnp.mean(jnp.argmax(logits, -1) == place, 1, dtype=each.dtype)
    return mean_of_valid(each, facts.valid), {"accuracy": mean_of_valid(right, facts.valid)}

  def takes(self, place: int) -> tuple[str, ...]:
    return ()  # check_views says which of them gives what

  def check_views(self, names: Sequence[str], run: Run) -> None:
    heads = [parse_embedding(name).head for name in names]
    tokens = ["tokens" in run.fields(head) for head in heads]
    if sum(tokens) != 1 or not tokens[-1] or len(names) < 3 or len(set(heads[:-1])) > 1:
      raise UserError(
        f"embeddings: {list(names)}; name two or more texts in the order in which they come, of one head that gives a "
        "vector, then the tokens of what shows it: 'text[0]/HEAD', 'text[1]/HEAD', 'video[0]/TOKENS'"
      )
    width = run.head_dims.get(heads[-1])
    if width and width % self.heads:
      raise UserError(f"module.heads: {self.heads} heads do not divide the {width} dimensions of {names[-1]!r}")
