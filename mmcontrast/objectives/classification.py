"""Classes from the logits of a head: of its images, of its texts, or of a fusion of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError, choose
from mmcontrast.objectives.embedding_path import parse_embedding
from mmcontrast.objectives.module_loss import Facts, ModuleLoss
from mmcontrast.objectives.term import Run

EXAMPLE = "example"


class Classification(ModuleLoss):
  """Cross entropy of logits [N, K] with a label of the dataset, a mean over examples that have the label.

      subgroup = dict(module=dict(name="classification", label="subgroup"),
                      embeddings="fusion(text[0], image[0])/subgroup", weight=1.0)

  Several embeddings are averaged. The head gives as many logits as the label has classes: dict(name="match",
  dim=...).

  Attributes:
    label: of the dataset; -1 is none. "example": each example of the training set is a class of its own.
    smoothing: how much of the target is spread evenly over all classes (Szegedy et al., arXiv:1512.00567).
  """

  TAKES = ("logits",)

  label: str = ""
  smoothing: float = 0.0

  def __post_init__(self):
    super().__post_init__()
    if not 0 <= self.smoothing < 1:
      raise UserError(f"smoothing: {self.smoothing} is not in [0, 1); 0 is none")

  def __call__(self, views: Sequence[Encoded], facts: Facts) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`views`: logits [N, K] each."""
    if self.is_initializing():
      return jnp.float32(0), {}
    labels = facts.batch["index"] if self.label == EXAMPLE else facts.batch["labels"][self.label]
    known = facts.valid & (labels >= 0)
    count = jnp.maximum(jnp.sum(known), 1)
    losses, hits = [], []
    for view in views:
      logits = view.logits.astype(jnp.promote_types(view.logits.dtype, jnp.float32))
      target = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
      target = target * (1 - self.smoothing) + self.smoothing / logits.shape[-1]
      each = -jnp.sum(target * jax.nn.log_softmax(logits, -1), -1)
      losses.append(jnp.sum(jnp.where(known, each, 0.0)) / count)
      hits.append(jnp.sum(known & (jnp.argmax(logits, -1) == labels)) / count)
    return sum(losses) / len(losses), {"top1": sum(hits) / len(hits)}

  @property
  def _called(self) -> str:
    return "the training set" if self.label == EXAMPLE else f"label {self.label!r}"

  def check_views(self, names: Sequence[str], run: Run) -> None:
    choose(self.label, [*run.labels, EXAMPLE], "module.label")
    classes = run.examples
    if self.label != EXAMPLE:
      classes = len(run.labels[self.label]) if isinstance(run.labels, Mapping) else None
    for name in names:
      head = parse_embedding(name).head
      if classes and run.head_dims.get(head, classes) != classes:
        raise UserError(
          f"embeddings: head {head!r} gives {run.head_dims[head]} logits and {self._called} has {classes} "
          f"classes; set config.heads.{head}.dim={classes}"
        )
