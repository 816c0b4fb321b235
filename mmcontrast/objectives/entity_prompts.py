"""ALPRO: what a region of an image shows, as a frozen model sees it, from the rest of the image and its text (Li et al.
2021, "Align and prompt: video-and-language pre-training with entity prompts", arXiv:2112.09583)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError, choose
from mmcontrast.objectives.embedding_path import of_momentum, parse_embedding
from mmcontrast.objectives.means import mean_of_valid
from mmcontrast.objectives.module_loss import Facts, ModuleLoss
from mmcontrast.objectives.score import normalize, widen
from mmcontrast.objectives.term import Run


class EntityPrompts(ModuleLoss):
  """Cross entropy with a prompter's soft label of the region, a mean over examples.

      entities = dict(module=dict(name="entity_prompts", label="subgroup", classes=98),
                      embeddings=("looking(image_masked[0], text[0])/looked", "image_region[0]/image_joint@momentum"))

      q = softmax over entities e of cos(crop, prompt_e) / temperature, without gradient
      p = softmax(W2 relu(W1 mean of the tokens of the region)),   loss = -sum_e q_e log p_e

  The first path gives the tokens of the image's patches, of which those of the region were hidden; the second what the
  frozen prompter makes of the region alone (data.masked.shape="square"). Prompts are as the epoch hook `class_means`
  writes them of the prompter's texts: of each class their mean; a class without one is no entity, and until there are
  prompts the loss is 0. An example takes part whose region has a patch, and whose largest q reaches `threshold`: the
  intention of salesforce/ALPRO@4ff6163, which compares the number of the class with it.

  State: prototypes [classes, D], the prompts.

  Attributes:
    label: of the dataset, whose classes are the entities.
    classes: how many it has.
    temperature: of the prompter.
    threshold: of its largest probability (ALPRO: 0.2).
    hidden: width of the layer of ReLU; None: twice that of the tokens, as in ALPRO.
  """

  SCHEDULED: ClassVar[tuple[str, ...]] = ("temperature",)
  ONE_SPACE: ClassVar[bool] = False

  label: str
  classes: int
  temperature: Any = 0.07
  threshold: float = 0.2
  hidden: int | None = None

  def __post_init__(self):
    super().__post_init__()
    if isinstance(self.classes, bool) or not isinstance(self.classes, int) or self.classes < 2:
      raise UserError(f"classes: {self.classes!r} is not a whole number of 2 or more")
    if not 0 <= self.threshold < 1:
      raise UserError(f"threshold: {self.threshold!r} is not a probability below 1; ALPRO's is 0.2, 0 takes all")

  def takes(self, place: int) -> tuple[str, ...]:
    return ("pooled",) if place else ("tokens",)

  def view_facts(self, name: str) -> tuple[str, ...]:
    return ("masked",) if parse_embedding(name).source.first.views == "image_masked" else ()

  @nn.compact
  def __call__(self, views: Sequence[Encoded], facts: Facts) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`views`: tokens [N, L, D] of patches, pooled [N, E] of the prompter."""
    tokens, crop = widen(views[0].tokens), normalize(lax.stop_gradient(views[1].pooled))
    width = tokens.shape[-1]
    inner = nn.Dense(self.hidden or 2 * width, dtype=tokens.dtype, name="fc1")
    outer = nn.Dense(self.classes, dtype=tokens.dtype, name="fc2")
    prompts = self.variable("state", "prototypes", jnp.zeros, (self.classes, crop.shape[-1]), jnp.float32)
    if self.is_initializing():
      return jnp.sum(outer(nn.relu(inner(tokens.mean(1))))), {}
    region = facts.of_view(facts.names[0], "masked")
    if region.shape != tokens.shape[:2]:
      raise UserError(
        f"entity_prompts: {facts.names[0]!r} gives {tokens.shape[1]} tokens of {region.shape[1]} patches; let it be of "
        "a tower that reads the image first, and leaves no patch out"
      )
    target = soft_labels(crop, prompts.value, facts.scheduled["temperature"])
    size = jnp.sum(region, 1)
    mean = jnp.sum(jnp.where(region[..., None], tokens, 0.0), 1) / jnp.maximum(size, 1)[:, None]
    log_p = jax.nn.log_softmax(outer(nn.relu(inner(mean))), -1)
    some = facts.valid & (size > 0) & jnp.any(prompts.value) & (jnp.max(target, -1) >= self.threshold)
    right = jnp.argmax(log_p, -1) == jnp.argmax(target, -1)
    share = jnp.sum(some) / jnp.maximum(jnp.sum(facts.valid), 1)
    loss = mean_of_valid(-jnp.sum(target * log_p, -1), some)
    return loss, {"top1": mean_of_valid(right.astype(loss.dtype), some), "sure": share}

  def check_views(self, names: Sequence[str], run: Run) -> None:
    sets = [parse_embedding(name).source.first.views for name in names]
    if len(names) != 2 or sets != ["image_masked", "image_region"] or not of_momentum(names[1]):
      raise UserError(
        f"embeddings: {list(names)}; name tokens of an image of which a region is hidden, and what the frozen branch "
        "makes of that region: 'looking(image_masked[0], text[0])/HEAD', 'image_region[0]/HEAD@momentum'"
      )
    choose(self.label, run.labels, "module.label")
    known = len(run.labels[self.label]) if hasattr(run.labels, "keys") else self.classes
    if known != self.classes:
      raise UserError(f"module.classes: label {self.label!r} has {known}, not {self.classes}; set it to {known}")


def soft_labels(crop: jax.Array, prompts: jax.Array, temperature: jax.Array | float) -> jax.Array:
  """Unit [N, D] and [E, D], unit or zeros where there is no prompt -> shares [N, E] of the entities."""
  there = jnp.any(prompts, -1)
  logits = jnp.einsum("nd,ed->ne", crop, prompts.astype(crop.dtype), precision="highest") / temperature
  return jax.nn.softmax(jnp.where(there | ~jnp.any(there), logits, -jnp.inf), -1)
