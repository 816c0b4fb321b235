"""What a word and a frame are worth together: their interaction, and its distillation (HBI, arXiv:2303.14369)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.scipy.special import gammaln

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError
from mmcontrast.objectives.module_loss import Facts, ModuleLoss
from mmcontrast.objectives.score import normalize, widen
from mmcontrast.objectives.term import Run
from mmcontrast.objectives.tokens import make_tokens


class Interaction(ModuleLoss):
  """`embeddings`: tokens with weights of texts, then of images. Of each example's own pair, a small network predicts
  from the cosines of its tokens their Banzhaf interaction, and a divergence brings both together:

      KL(softmax(interaction) || softmax(prediction)) over an example's frames for each word, and over its words for
      each frame, each a mean over all entries; the prediction, and the tokens through it, have the gradient

  The interaction is exact (`interaction`) where words and frames are `exact` or fewer, else of `draws` coalitions,
  drawn by the example's seed. In the paper a network that was trained on draws before stands in its place. The released
  code (jpthu17/HBI@b261e9c) reverses all three axes to transpose, so that its second softmax goes over the batch; here
  it goes over words. Memory is linear in the batch.

  Attributes:
    width: channels of the network (released: 64).
    index: "banzhaf": the mean over coalitions, or "shapley": over their sizes, then over those of a size.
    exact: tokens of both sides up to which all coalitions are counted: 2 to the power of it.
    draws: coalitions otherwise.
    scale: of the interaction (released: similarities times 1,000, and one draw divided by 100).
  """

  TAKES: ClassVar[tuple[str, ...]] = ("tokens", "weights")

  CHOICES: ClassVar = {"index": ("banzhaf", "shapley")}

  width: int = 64
  index: str = "banzhaf"
  exact: int = 8
  draws: int = 16
  scale: float = 10.0

  def __post_init__(self):
    super().__post_init__()
    if not 0 <= self.exact <= 16:
      raise UserError(f"exact: {self.exact} tokens have 2^{self.exact} coalitions; give 0 to 16")
    if self.draws < 1:
      raise UserError(f"draws: {self.draws} is not a number of coalitions; HBI draws 100")

  @nn.compact
  def __call__(self, views: Sequence[Encoded], facts: Facts) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`views`: tokens [N, T, D], [N, V, D] and their weights."""
    texts, frames = (make_tokens(view.tokens, view.mask) for view in views)
    alike = jnp.einsum("ntd,nvd->ntv", normalize(texts.vectors), normalize(frames.vectors), precision="highest")
    mask = texts.mask[:, :, None] & frames.mask[:, None]
    predicted = Predictor(self.width, name="network")(jnp.where(mask, alike, 0.0), mask)
    if self.is_initializing():
      return jnp.float32(0), {}
    if sum(alike.shape[1:]) <= self.exact:
      coalitions = all_coalitions(*alike.shape[1:])
    else:
      coalitions = drawn_coalitions(facts.batch["seed"], self.draws, *alike.shape[1:], self.index == "shapley")
    weights = (widen(view.weights) for view in views)
    arguments = lax.stop_gradient((alike, *weights, texts.mask, frames.mask))
    by_size = self.index == "shapley" and sum(alike.shape[1:]) <= self.exact  # drawn ones are so already
    wanted = self.scale * interaction(*arguments, coalitions, by_size)
    there = mask & facts.valid[:, None, None]
    loss = sum(distillation(predicted, wanted, there, axis) for axis in (2, 1))
    size = jnp.sum(jnp.where(there, jnp.abs(wanted), 0.0)) / jnp.maximum(jnp.sum(there), 1)
    return loss, {"interaction": size}

  def check_views(self, names: Sequence[str], run: Run) -> None:
    if len(names) != 2:
      raise UserError(f"embeddings: {list(names)} are {len(names)}; name the tokens of texts, then those of images")


class Predictor(nn.Module):
  """Interactions from similarities: two convolutions over words and frames with self-attention between."""

  width: int

  @nn.compact
  def __call__(self, alike: jax.Array, mask: jax.Array) -> jax.Array:
    """[N, T, V], [N, T, V] -> [N, T, V]."""
    x = nn.relu(nn.Conv(self.width, (3, 3), dtype=alike.dtype, name="conv1")(alike[..., None]))
    flat, real = (a.reshape(len(x), -1, *a.shape[3:]) for a in (x, mask))
    q, k, v = (nn.Dense(self.width, use_bias=False, dtype=x.dtype, name=name)(flat) for name in ("q", "k", "v"))
    logits = jnp.where(real[:, None], jnp.einsum("nld,nmd->nlm", q, k), jnp.finfo(x.dtype).min)
    x = x + jnp.einsum("nlm,nmd->nld", jax.nn.softmax(logits, -1), v).reshape(x.shape)
    x = jnp.where(mask[..., None], x, 0.0)
    return nn.Conv(1, (3, 3), dtype=x.dtype, name="conv2")(x)[..., 0]


def all_coalitions(words: int, frames: int) -> tuple[jax.Array, jax.Array]:
  """Every coalition of words and frames once, for every example: bool [2^(T+V), 1, T], [2^(T+V), 1, V]."""
  count = words + frames
  bits = (jnp.arange(2**count)[:, None] >> jnp.arange(count)) & 1
  return bits[:, None, :words] > 0, bits[:, None, words:] > 0


def drawn_coalitions(
  seeds: jax.Array, draws: int, words: int, frames: int, by_size: bool = False
) -> tuple[jax.Array, jax.Array]:
  """`draws` coalitions of each example, in which each token is with probability 1/2: bool [draws, N, T], [draws, N, V].

  Args:
    seeds: uint32 [N], of the examples.
    by_size: a probability drawn for each coalition instead, by which all sizes are equally likely.
  """

  def draw(seed: jax.Array) -> jax.Array:
    first, second = jax.random.split(jax.random.key(seed))
    share = jax.random.uniform(first, (draws, 1)) if by_size else 0.5
    return jax.random.uniform(second, (draws, words + frames)) < share

  bits = jnp.swapaxes(jax.vmap(draw)(seeds), 0, 1)
  return bits[..., :words], bits[..., words:]


def interaction(
  alike: jax.Array,
  text_weights: jax.Array,
  frame_weights: jax.Array,
  text_mask: jax.Array,
  frame_mask: jax.Array,
  coalitions: tuple[jax.Array, jax.Array],
  by_size: bool = False,
) -> jax.Array:
  """The interaction of each word with each frame, [N, T, V], zero where one is padding.

      I_tv = mean over coalitions S without t and v of  phi(S + [tv]) - phi(S + t) - phi(S + v) + phi(S)

  phi of S is the weighted token score of similarities that are 0 outside S, by the softmax of the weights in S. [tv] is
  one player: to the similarities of S only that of t with v is added, and softmaxed weights of S get the raw ones of t
  and v before they are softmaxed again, as jpthu17/HBI@b261e9c has it.

  Args:
    alike: [N, T, V]; text_weights [N, T], frame_weights [N, V], as logarithms.
    coalitions: from `all_coalitions` or `drawn_coalitions`; t and v are taken out of each.
    by_size: of all coalitions, weighs those of each size alike: Shapley's index in the place of Banzhaf's.
  """
  words, frames = alike.shape[1:]
  t, v = (x.reshape(-1) for x in jnp.meshgrid(jnp.arange(words), jnp.arange(frames), indexing="ij"))
  is_t, is_v = t[:, None] == jnp.arange(words), v[:, None] == jnp.arange(frames)  # [T V, T], [T V, V]
  x, a, b = alike[:, None], text_weights[:, None], frame_weights[:, None]  # of every pair (t, v)

  others = jnp.sum(text_mask, 1, keepdims=True) + jnp.sum(frame_mask, 1, keepdims=True)

  def of_coalition(coalition: tuple[jax.Array, jax.Array]) -> jax.Array:
    """[N, T V], of the coalition of each example [N or 1, T], [N or 1, V]."""
    s, r = ((of & mask)[:, None] for of, mask in zip(coalition, (text_mask, frame_mask)))
    s, r = s & ~is_t, r & ~is_v
    without, with_v = (_value(x, a, b, s, frames) for frames in (r, r | is_v))
    with_t = _value(x, a, b, s | is_t, r)
    both = jnp.where((s[..., None] & r[..., None, :]) | (is_t[..., None] & is_v[..., None, :]), x, 0.0)
    again = (_again(a, s, is_t), _again(b, r, is_v))
    found = _score(both, *again) - with_t - with_v + without
    return found * _shapley(others - 2, jnp.sum(s, -1) + jnp.sum(r, -1)) if by_size else found

  def add(total: jax.Array, coalition: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
    return total + of_coalition(coalition), None

  total = lax.scan(add, jnp.zeros((len(alike), words * frames), alike.dtype), coalitions)[0]
  mean = (total / len(coalitions[0])).reshape(alike.shape)
  return jnp.where(text_mask[:, :, None] & frame_mask[:, None], mean, 0.0)


def distillation(student: jax.Array, teacher: jax.Array, mask: jax.Array, axis: int) -> jax.Array:
  """KL(softmax(teacher) || softmax(student)) along one axis of [N, T, V], a mean over the entries that are there."""
  there = jnp.any(mask, axis, keepdims=True)
  logits = (jnp.where(there, jnp.where(mask, x, -jnp.inf), 0.0) for x in (student, teacher))
  ours, theirs = (jnp.where(mask, jax.nn.log_softmax(x, axis), 0.0) for x in logits)
  return jnp.sum(jnp.where(mask, jnp.exp(theirs) * (theirs - ours), 0.0)) / jnp.maximum(jnp.sum(mask), 1)


def _shapley(others: jax.Array, size: jax.Array) -> jax.Array:
  """What a coalition of `size` of so many others weighs in the mean over all: 2^m k! (m - k)! / (m + 1)!."""
  m, k = (jnp.maximum(x, 0).astype(jnp.result_type(float)) for x in (others, size))
  return jnp.exp(m * math.log(2) + gammaln(k + 1) + gammaln(jnp.maximum(m - k, 0) + 1) - gammaln(m + 2))


_OUT = -9e15  # what the weight of a token outside is before the softmax, as released: of none, all weigh the same


def _value(x: jax.Array, a: jax.Array, b: jax.Array, s: jax.Array, r: jax.Array) -> jax.Array:
  """phi of words s and frames r, [N, P]."""
  weights = (jax.nn.softmax(jnp.where(keep, of, _OUT), -1) for of, keep in ((a, s), (b, r)))
  return _score(jnp.where(s[..., None] & r[..., None, :], x, 0.0), *weights)


def _again(weights: jax.Array, keep: jax.Array, itself: jax.Array) -> jax.Array:
  """Softmaxed weights with the raw one of t (or v) beside them, softmaxed."""
  soft = jax.nn.softmax(jnp.where(keep, weights, _OUT), -1)
  return jax.nn.softmax(jnp.where(itself, weights, jnp.where(keep, soft, _OUT)), -1)


def _score(x: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
  """[N, P, T, V], [N, P, T], [N, P, V] -> [N, P]."""
  return (jnp.sum(jnp.max(x, -1) * a, -1) + jnp.sum(jnp.max(x, -2) * b, -1)) / 2
