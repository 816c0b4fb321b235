"""CLIP2Scene: points show what the pixels show that they are seen in, and what a text says of these (Chen et al. 2023,
arXiv:2301.04926), as in loss_nuscenes of runnanchen/CLIP2Scene@f37dae7, with super-nodes of our own."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError, choose
from mmcontrast.modalities.boxes import sampled
from mmcontrast.objectives.embedding_path import parse_embedding
from mmcontrast.objectives.means import of_valid
from mmcontrast.objectives.module_loss import Facts, ModuleLoss
from mmcontrast.objectives.part_contrast import mean_of_parts
from mmcontrast.objectives.score import matmul_precision, normalize, widen
from mmcontrast.objectives.term import Run
from mmcontrast.optimization.schedules import extremes

STREAM = zlib.crc32(b"point_pixels")


class PointPixels(ModuleLoss):
  """Point-pixel-text consistency, a mean over the groups of points whose centre is seen in the image view.

      points = dict(module=dict(name="point_pixels", label="group", classes=12),
                    embeddings=("points[0]/points_dense", "image[0]/image_dense"))

      p = a group's token, q = the image's map at the pixel of its centre, without gradient; t_c = the prompt of class c
      y = argmax_c cos(q, t_c);  where an example trains itself, argmax_c cos(p, t_c)
      loss = -log softmax_c(cos(p, t_c) / temperature)[y] + consistency (1 - cos(p, q))

  Prompts are as the epoch hook `class_means` writes them: of each class the mean of its texts; a class without one is
  no answer, and until there are prompts the first part is 0. Which examples train themselves is drawn by their own
  seeds, the share `self_training` of them. Labels of the dataset are only told beside the answers (metrics). The
  reference takes superpixels for groups, text embeddings of class names for prompts, and draws for the whole batch,
  from epoch 10 on with probability 1/2; there the loss of points without a pixel is lost by an assignment.

  State: prototypes [classes, D], the prompts.

  Attributes:
    label: of the dataset, whose classes are the answers.
    classes: how many it has.
    temperature: of the softmax, a number or a schedule.
    self_training: the share of examples, from 0 to 1, a number or a schedule.
    consistency: weight of the second part.
  """

  SCHEDULED: ClassVar[tuple[str, ...]] = ("temperature", "self_training")

  label: str
  classes: int
  temperature: Any = 0.07
  self_training: Any = 0.0
  consistency: float = 1.0

  def __post_init__(self):
    super().__post_init__()
    if isinstance(self.classes, bool) or not isinstance(self.classes, int) or self.classes < 2:
      raise UserError(f"classes: {self.classes!r} is not a whole number of 2 or more")
    for share in extremes(self.self_training, "self_training"):
      if not 0 <= share <= 1:
        raise UserError(f"self_training: {share!r} is not a share from 0 to 1; CLIP2Scene's is 0.5 in the end")
    if not self.consistency >= 0:
      raise UserError(f"consistency: {self.consistency!r} is not a weight of 0 or more")

  def takes(self, place: int) -> tuple[str, ...]:
    return ("tokens", "grid") if place else ("tokens",)

  def view_facts(self, name: str) -> tuple[str, ...]:
    return ("pixel",) if parse_embedding(name).modality == "points" else ("box",)

  @nn.compact
  def __call__(self, views: Sequence[Encoded], facts: Facts) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`views`: tokens [N, G, D] of groups and which point each is about; a map, tokens [N, L, D]."""
    tokens, image = normalize(of_valid(views[0].tokens, facts.valid)), widen(of_valid(views[1].map, facts.valid))
    prompts = self.variable("state", "prototypes", jnp.zeros, (self.classes, tokens.shape[-1]), jnp.float32).value
    if self.is_initializing():
      return jnp.sum(tokens), {}
    if views[0].places is None:
      raise UserError(
        f"point_pixels: {facts.names[0]!r} does not say which point a token is about; let it be of a point_transformer"
      )
    at, some = self._in_view(views[0].places, facts)
    pixels = normalize(lax.stop_gradient(sampled(image, at)))
    of_points, of_pixels = (_answers(x, prompts) for x in (tokens, pixels))
    label = jnp.where(self._trains_itself(facts)[:, None], jnp.argmax(of_points, -1), jnp.argmax(of_pixels, -1))
    log_p = jax.nn.log_softmax(of_points / facts.scheduled["temperature"], -1)
    told = jnp.take_along_axis(log_p, label[..., None], -1)[..., 0]
    semantic = jnp.where(jnp.any(prompts), mean_of_parts(-told, some), 0.0)
    apart = mean_of_parts(1.0 - jnp.sum(tokens * pixels, -1), some)
    truth = facts.batch["labels"][self.label][:, None]
    metrics = {
      "semantic": semantic,
      "consistency": apart,
      "seen": mean_of_parts(some.astype(tokens.dtype), jnp.broadcast_to(facts.valid[:, None], some.shape)),
      "points_right": mean_of_parts((jnp.argmax(of_points, -1) == truth).astype(tokens.dtype), some),
      "pixels_right": mean_of_parts((jnp.argmax(of_pixels, -1) == truth).astype(tokens.dtype), some),
    }
    return semantic + self.consistency * apart, metrics

  def check_views(self, names: Sequence[str], run: Run) -> None:
    if [parse_embedding(name).source.first.modality for name in names] != ["points", "image"]:
      raise UserError(
        f"embeddings: {list(names)}; name tokens of points, then the map of the image that shows them: "
        "'points[0]/HEAD', 'image[0]/HEAD'"
      )
    choose(self.label, run.labels, "module.label")
    known = len(run.labels[self.label]) if hasattr(run.labels, "keys") else self.classes
    if known != self.classes:
      raise UserError(f"module.classes: label {self.label!r} has {known}, not {self.classes}; set it to {known}")

  def _in_view(self, places: jax.Array, facts: Facts) -> tuple[jax.Array, jax.Array]:
    """Where the centre of each group is in the image view [N, G, 2]; whether it is seen there [N, G]."""
    pixel = of_valid(facts.of_view(facts.names[0], "pixel"), facts.valid)
    box = of_valid(facts.of_view(facts.names[1], "box"), facts.valid)[:, None]
    pixel = jnp.take_along_axis(pixel, places[..., None], 1)
    sides = box[..., 2:] - box[..., :2]
    at = (pixel - box[..., :2]) / jnp.where(sides == 0, 1.0, sides)
    some = facts.valid[:, None] & jnp.all((pixel >= 0) & (at >= 0) & (at <= 1), -1)
    return jnp.where(some[..., None], at, 0.5), some

  def _trains_itself(self, facts: Facts) -> jax.Array:
    def uniform(seed: jax.Array) -> jax.Array:
      return jax.random.uniform(jax.random.fold_in(jax.random.key(seed), STREAM), dtype=jnp.float32)

    return jax.vmap(uniform)(facts.batch["seed"]) < facts.scheduled["self_training"]


def _answers(x: jax.Array, prompts: jax.Array) -> jax.Array:
  """Cosines [N, G, C] of unit [N, G, D] with prompts [C, D], unit or zeros; -inf of a class that has none, while any
  has one."""
  there = jnp.any(prompts, -1)
  cosines = jnp.einsum("ngd,cd->ngc", x, prompts.astype(x.dtype), precision=matmul_precision())
  return jnp.where(there | ~jnp.any(there), cosines, -jnp.inf)
