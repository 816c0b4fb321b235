"""Regions of an image against their texts: in the manner of CLOC (Chen et al. 2024, arXiv:2410.02746) and of DITO (Kim
et al. 2023, arXiv:2310.00161), of neither of which code or exact formulas could be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError
from mmcontrast.modalities import MODALITIES
from mmcontrast.modalities.boxes import in_view, roi_align, upright
from mmcontrast.objectives.embedding_path import parse_embedding
from mmcontrast.objectives.means import mean_of_valid, of_valid
from mmcontrast.objectives.module_loss import Facts, ModuleLoss
from mmcontrast.objectives.part_contrast import compare, mean_of_parts
from mmcontrast.objectives.score import normalize, widen
from mmcontrast.objectives.term import Run


class Regions(ModuleLoss):
  """The base of terms of regions: the first of `embeddings` is the map of an image view, the others are texts of
  regions, `text_region[r]` (VIEWS), one vector each. Images and texts are of one length.

  A region takes part where it has an area and at least `seen` of it is in the view; its box is moved into the view,
  mirrored where that is.

  Attributes:
    temperature: of the softmax, a number or a schedule.
    seen: the share of a region's area that must be in the view.
    alike: texts of more than this cosine are no negatives of each other (CLOC: 0.9).
  """

  TAKES: ClassVar[tuple[str, ...]] = ("tokens", "grid", "pooled")
  VIEW_FACTS: ClassVar[tuple[str, ...]] = ("box",)
  VIEWS: ClassVar[str] = "text_region"
  SCHEDULED: ClassVar[tuple[str, ...]] = ("temperature",)
  WHOLE: ClassVar[tuple[str, ...]] = ()  # options that are whole numbers

  temperature: Any = 0.07
  seen: float = 0.5
  alike: float = 0.9

  def __post_init__(self):
    super().__post_init__()
    if not 0 < self.seen <= 1:
      raise UserError(f"seen: {self.seen!r} is not a share of a region's area; give a number over 0 and at most 1")

    if not self.alike > 0:
      raise UserError(f"alike: {self.alike!r} is not a cosine above 0; CLOC uses 0.9")
    for name in self.WHOLE:
      value = getattr(self, name)
      if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"{name}: {value!r} is not a whole number of 1 or more")

  def takes(self, place: int) -> tuple[str, ...]:
    return ("pooled",) if place else ("tokens", "grid")

  def check_views(self, names: Sequence[str], run: Run) -> None:
    sets = [parse_embedding(name).views for name in names]
    if len(sets) < 2 or sets[0] == self.VIEWS or any(one != self.VIEWS for one in sets[1:]):
      plural = self.VIEWS.removeprefix("text_") + "s"
      raise UserError(
        f"embeddings: {list(names)}; name the map of an image, 'image[0]/HEAD', then texts of {plural}, "
        f"'{self.VIEWS}[0]/HEAD', '{self.VIEWS}[1]/HEAD' ({MODALITIES['text'].count_key(self.VIEWS)})"
      )

  def boxes(self, facts: Facts, count: int) -> tuple[jax.Array, jax.Array]:
    """The boxes of regions in shares of the view's sides, [N, R, 4], x0 > x1 where mirrored; who takes part, [N, R]."""
    if self.is_initializing():
      return jnp.tile(jnp.array([0.0, 0.0, 1.0, 1.0]), (len(facts.valid), count, 1)), jnp.ones(
        (len(facts.valid), count), bool
      )
    view = of_valid(facts.of_view(facts.names[0], "box"), facts.valid)
    whole = [of_valid(facts.of_view(name, "box"), facts.valid) for name in facts.names[1:]]
    within_view, some = zip(*(in_view(box, view, self.seen) for box in whole))
    return jnp.stack(within_view, 1), facts.valid[:, None] & jnp.stack(some, 1)

  def texts(self, views: Sequence[Encoded], facts: Facts) -> jax.Array:
    """[N, R, D], of unit length."""
    return jnp.stack([normalize(of_valid(view.pooled, facts.valid)) for view in views[1:]], 1)

  def contrast(self, regions: jax.Array, texts: jax.Array, some: jax.Array, facts: Facts) -> tuple[jax.Array, dict]:
    """The mean of both directions' cross entropies over the regions of the batch; metrics."""
    tau, words = facts.scheduled["temperature"], lax.stop_gradient(texts)
    to_text = compare(regions, texts, some, tau, words, self.alike)
    to_region = compare(texts, regions, some, tau, words, self.alike)
    loss = (mean_of_parts(to_text.loss, some) + mean_of_parts(to_region.loss, some)) / 2
    taking_part = mean_of_valid(jnp.sum(some, 1).astype(jnp.float32), facts.valid)
    metrics = {"top1": mean_of_parts(to_text.right, some), "negatives": mean_of_parts(to_text.others, some)}
    return loss, {**metrics, "regions": taking_part}


class PooledRegions(Regions):
  """DITO-style: a region is its cells, by RoI-align, through a layer of ReLU and a linear one, and their mean.

      -log softmax of cos(region, text) / temperature among the texts of all regions of the batch, and the reverse;
      half of each

  DITO trains the heads of a detector so, on whole captions; here on texts of regions. Tested by properties.

  Attributes:
    cells: a side, of the map of a region.
    hidden: width of the layer of ReLU.
  """

  WHOLE: ClassVar[tuple[str, ...]] = ("cells", "hidden")

  cells: int = 3
  hidden: int = 256

  @nn.compact
  def __call__(self, views: Sequence[Encoded], facts: Facts) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`views`: a map, tokens [N, L, D]; texts, pooled [N, D] each."""
    box, some = self.boxes(facts, len(views) - 1)
    image = widen(of_valid(views[0].map, facts.valid))
    points = max(1, -(-max(views[0].grid) // self.cells))
    of_one = jax.vmap(lambda box: roi_align(image, box, (self.cells, self.cells), points), 1, 1)
    x = nn.relu(nn.Dense(self.hidden, name="fc1")(of_one(box)))
    regions = nn.Dense(image.shape[-1], name="fc2")(x).mean((2, 3))
    return self.contrast(normalize(regions), self.texts(views, facts), some, facts)


class PromptedRegions(Regions):
  """CLOC-style: a region is what its box, as a prompt, draws from the tokens of the image; and a text finds its box.

      L_region: -log softmax of cos(Prompter(box, tokens), text) / temperature among the texts of all regions of the
        batch, and the reverse; half of each
      L_ground: mean over regions and four sides of (MLP(Prompter(text, tokens)) - box)^2
      loss = L_region + ground L_ground

  The prompter is one pre-norm transformer layer over [prompt; tokens], of which the prompt's place is read; boxes are
  in the view, as sines and cosines of their sides. CLOC's prompter is not public. Tested by properties.

  Attributes:
    ground: weight of L_ground; 0: without it.
    heads: of the attention.
  """

  WHOLE: ClassVar[tuple[str, ...]] = ("heads",)

  ground: float = 1.0
  heads: int = 4

  @nn.compact
  def __call__(self, views: Sequence[Encoded], facts: Facts) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`views`: a map, tokens [N, L, D]; texts, pooled [N, D] each."""
    box, some = self.boxes(facts, len(views) - 1)
    tokens = widen(of_valid(views[0].tokens, facts.valid))
    texts, width = self.texts(views, facts), tokens.shape[-1]
    box = jax.vmap(upright, 1, 1)(box)
    prompter = Prompter(self.heads, name="prompter")
    regions = prompter(nn.Dense(width, name="box")(waves(box)), tokens)
    loss, metrics = self.contrast(normalize(regions), texts, some, facts)
    if not self.ground:
      return loss, metrics
    hidden = nn.relu(nn.Dense(width, name="ground1")(prompter(nn.Dense(width, name="text")(texts), tokens)))
    found = nn.Dense(4, name="ground2")(hidden)
    ground = mean_of_parts(jnp.mean((found - box) ** 2, -1), some)
    return loss + self.ground * ground, {**metrics, "ground": ground}

  def check_views(self, names: Sequence[str], run: Run) -> None:
    super().check_views(names, run)
    width = run.head_dims.get(parse_embedding(names[0]).head)
    if width and width % self.heads:
      raise UserError(f"module.heads: {self.heads} heads do not divide the {width} dimensions of {names[0]!r}")


class Prompter(nn.Module):
  """One pre-norm transformer layer over [prompt; tokens] of an example, read at the prompt's place."""

  heads: int

  @nn.compact
  def __call__(self, prompts: jax.Array, tokens: jax.Array) -> jax.Array:
    """[N, R, D], each by itself, and [N, L, D] -> [N, R, D]."""
    norm, width = nn.LayerNorm(name="norm1"), prompts.shape[-1]
    parts = (*prompts.shape[:2], self.heads, width // self.heads)
    asks, seen = norm(prompts), norm(tokens)
    dense = {name: nn.Dense(width, name=name) for name in ("q", "k", "v")}
    query = dense["q"](asks).reshape(parts) / parts[-1] ** 0.5
    own = [dense[name](asks).reshape(parts) for name in ("k", "v")]
    others = [dense[name](seen).reshape(len(tokens), -1, *parts[2:]) for name in ("k", "v")]
    to_self = jnp.einsum("nrhd,nrhd->nrh", query, own[0])[..., None]
    to_others = jnp.einsum("nrhd,nlhd->nrhl", query, others[0])
    share = jax.nn.softmax(jnp.concatenate([to_self, to_others], -1), -1)
    drawn = share[..., :1] * own[1] + jnp.einsum("nrhl,nlhd->nrhd", share[..., 1:], others[1])
    x = prompts + nn.Dense(width, name="proj")(drawn.reshape(prompts.shape))
    hidden = nn.gelu(nn.Dense(4 * width, name="fc1")(nn.LayerNorm(name="norm2")(x)))
    return x + nn.Dense(width, name="fc2")(hidden)


def waves(box: jax.Array) -> jax.Array:
  """[..., 4] -> [..., 64]: sines and cosines of each side at eight octaves."""
  angle = box[..., None] * (jnp.pi * 2.0 ** jnp.arange(8) / 2)
  return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1).reshape(*box.shape[:-1], -1)
