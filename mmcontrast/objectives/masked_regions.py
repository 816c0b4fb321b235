"""Masked regions: what a hidden region of an image shows, guessed from the others and from the text (LXMERT)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError
from mmcontrast.objectives.embedding_path import of_momentum
from mmcontrast.objectives.means import of_valid
from mmcontrast.objectives.module_loss import Facts, ModuleLoss
from mmcontrast.objectives.score import widen
from mmcontrast.objectives.term import Run

_WHERE = (
  "let it read what a tower 'region_transformer' that hides some (hide=0.15) made, through a fusion and a tower "
  "'second_stream'"
)


class MaskedRegions(ModuleLoss):
  """The base: the sum of each hidden region's loss, over the number of all regions of the batch, over `share`.

  With the share that the tower hides, that is the mean over hidden regions, but for how many the draw has hidden.
  Source: LXMERT (arXiv:1908.07490), visual losses of airsplay/lxmert@0db1182, src/lxrt/modeling.py, with confidence 1,
  as boxes are true.

  Attributes:
    share: of the regions that is hidden, `hide` of the region_transformer (LXMERT: 0.15).
  """

  share: float = 0.15

  def __post_init__(self):
    super().__post_init__()
    if not 0 < self.share <= 1:
      raise UserError(f"share: {self.share!r} is not a share of the regions; give a number over 0 and at most 1")

  def mean(self, each: jax.Array, hidden: jax.Array, real: jax.Array) -> jax.Array:
    """each [N, R] -> [], of those that are `hidden` among the `real` ones."""
    return jnp.sum(jnp.where(hidden & real, each, 0)) / (self.share * jnp.maximum(jnp.sum(real), 1))


class RegionWords(MaskedRegions):
  """Cross entropy of logits [N, R, V] of each region with the words of its text, all equally probable.

      region_words = dict(module="region_words", embeddings="seen(fusion(text[0], regions(cells(image[0]))))/words")

  LXMERT's label classification, whose classes are a detector's: where a text is one word, the same cross entropy.
  Texts are the views `text_region` (config.data.regions), of which data.facts tells "ids"; their start and end tokens
  are no words. Several embeddings are averaged.

  Attributes:
    start: whether texts begin with a start token.
  """

  TAKES = ("logits",)

  start: bool = True

  def __call__(self, views: Sequence[Encoded], facts: Facts) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`views`: logits [N, R, V] each, with what was hidden."""
    losses, hits = [], []
    for name, view in zip(facts.names, views, strict=True):
      hidden, real = _regions(name, view, facts)
      if self.is_initializing():
        return jnp.float32(0), {}
      logits = of_valid(widen(view.logits), facts.valid)
      words = _words_of_regions(facts, *logits.shape[1:], self.start)
      real &= jnp.any(words, -1)
      target = words / jnp.maximum(jnp.sum(words, -1, keepdims=True), 1)
      losses.append(self.mean(-jnp.sum(target * jax.nn.log_softmax(logits, -1), -1), hidden, real))
      hit = jnp.take_along_axis(words, jnp.argmax(logits, -1)[..., None], -1)[..., 0]
      hits.append(jnp.sum(hit & hidden & real) / jnp.maximum(jnp.sum(hidden & real), 1))
    return sum(losses) / len(losses), {"top1": sum(hits) / len(hits)}

  def check_views(self, names: Sequence[str], run: Run) -> None:
    _check_regions(run, "ids")
    if self.start != (run.token_ids.get("bos", -1) >= 0):
      has = "no start token" if self.start else "a start token"
      raise UserError(f"module.start: {self.start}, and the tokenizer has {has}; set it to {not self.start}")


class RegionFeatures(MaskedRegions):
  """Smooth L1 of a guess with a region's features, a mean over the F of them.

      region_features = dict(module="region_features", embeddings=(
        "seen(fusion(text[0], regions(cells(image[0]))))/as_they_are", "cells(image[0])/as_they_are@momentum"))

      d = W LN(gelu(W' token)) - features;  d^2 / 2 where |d| < 1, else |d| - 1/2

  Biases aside. Heads "token_identity" give both as they are. Parameters: transform, norm, fc1.

  LXMERT's targets are a detector's features, which stay; those of a momentum branch stay with `momentum.decay=1`.

  Attributes:
    normalised: whether from each target its mean is taken off and it is divided by its standard deviation, so that
      features that shrink do not make the loss small. LXMERT: False.
  """

  TAKES = ("tokens",)
  ONE_SPACE: ClassVar[bool] = False

  normalised: bool = False

  @nn.compact
  def __call__(self, views: Sequence[Encoded], facts: Facts) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`views`: tokens [N, R, D] of regions with what was hidden, and features [N, R, F]."""
    name, (first, target) = facts.names[0], views
    hidden, real = _regions(name, first, facts)
    if first.tokens.shape[:2] != target.tokens.shape[:2]:
      of_both = f"{first.tokens.shape[1]} regions and {target.tokens.shape[1]}"
      raise UserError(f"embeddings: {list(facts.names)} are of {of_both}; name the same regions twice")
    tokens, wanted = (of_valid(widen(x), facts.valid) for x in (first.tokens, target.tokens))
    x = nn.Dense(tokens.shape[-1], name="transform")(tokens)
    x = nn.LayerNorm(epsilon=1e-12, name="norm")(nn.gelu(x, approximate=False))
    x = nn.Dense(wanted.shape[-1], name="fc1")(x)
    if self.normalised:
      centred = wanted - wanted.mean(-1, keepdims=True)
      wanted = centred * jax.lax.rsqrt(jnp.mean(centred**2, -1, keepdims=True) + 1e-6)
    return self.mean(smooth_l1(x, wanted).mean(-1), hidden, real), {}

  def check_views(self, names: Sequence[str], run: Run) -> None:
    if [of_momentum(name) for name in names] != [False, True]:
      raise UserError(
        f"embeddings: {list(names)}; name regions of the online branch and their features of the momentum branch, "
        "'seen(fusion(text[0], regions(cells(image[0]))))/HEAD' and 'cells(image[0])/HEAD@momentum', HEAD a "
        "'token_identity' of each tower"
      )
    _check_regions(run, "box")


def smooth_l1(guess: jax.Array, target: jax.Array) -> jax.Array:
  """d^2 / 2 where |d| < 1, else |d| - 1/2, of each difference d."""
  size = jnp.abs(guess - target)
  return jnp.where(size < 1, size**2 / 2, size - 0.5)


def _regions(name: str, view: Encoded, facts: Facts) -> tuple[jax.Array, jax.Array]:
  """Bool [N, R] each: which regions were hidden; which there are, of examples that take part."""
  if view.hidden is None:
    raise UserError(f"embeddings: {name!r} says of no region that it was hidden; {_WHERE}")
  real = jnp.ones(view.hidden.shape, bool) if view.mask is None else view.mask
  return view.hidden, real & facts.valid[:, None]


def _words_of_regions(facts: Facts, regions: int, words: int, start: bool) -> jax.Array:
  """Bool [N, R, V]: the words of each region's text, without its end token and, where it has one, its start token."""
  ids = jnp.stack([facts.batch["views"][f"text_region[{r}]"]["ids"] for r in range(regions)], 1)
  length = jnp.sum(ids >= 0, -1, keepdims=True)
  place = jnp.arange(ids.shape[-1])
  inner = (place >= start) & (place < length - 1)
  rows = jnp.arange(ids.shape[0])[:, None, None], jnp.arange(regions)[:, None]
  return jnp.zeros((*ids.shape[:2], words), bool).at[(*rows, jnp.where(inner, ids, words))].set(True, mode="drop")


def _check_regions(run: Run, fact: str) -> None:
  if not run.views.get("text_region"):
    raise UserError("embeddings: this run has no regions; set config.data.regions.views, such as 4")
  for view, one in (("image", "box"), ("text_region", fact)):
    if one not in run.facts.get(view, ()):
      raise UserError(f"embeddings: asks for the {one!r} of {view} views; add it to config.data.facts")
