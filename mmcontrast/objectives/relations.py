"""Relations of two regions of an image against the phrases that say them: in the manner of 3DSG-VLP (3D Scene Graph
Guided Vision-Language Pre-training, 2024), of which neither code nor exact formulas could be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.modalities.boxes import in_view, roi_align
from mmcontrast.objectives.means import of_valid
from mmcontrast.objectives.module_loss import Facts
from mmcontrast.objectives.regions import Regions, waves
from mmcontrast.objectives.score import normalize, widen


class RegionRelations(Regions):
  """An edge of a scene graph: what two regions show and where both are, through a layer of ReLU and a linear one.

      r = W2 relu(W1 [mean of the subject's cells; mean of the object's cells; waves(subject); waves(object)])
      -log softmax of cos(r, phrase) / temperature among the phrases of all relations of the batch, and the reverse;
      half of each

  Cells by RoI-align; waves are sines and cosines of a box's sides in the view. A relation takes part where `seen` of
  both regions is in the view, and the view is not mirrored, of which left and right would be said the wrong way round.

  Attributes:
    cells: a side, of the map of a region.
    hidden: width of the layer of ReLU.
  """

  VIEWS: ClassVar[str] = "text_relation"
  VIEW_FACTS: ClassVar[tuple[str, ...]] = ("subject", "object")
  WHOLE: ClassVar[tuple[str, ...]] = ("cells", "hidden")

  cells: int = 3
  hidden: int = 256

  @nn.compact
  def __call__(self, views: Sequence[Encoded], facts: Facts) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`views`: a map, tokens [N, L, D]; phrases, pooled [N, D] each."""
    ends, some = self._ends(facts, len(views) - 1)
    image = widen(of_valid(views[0].map, facts.valid))
    points = max(1, -(-max(views[0].grid) // self.cells))
    of_one = jax.vmap(lambda box: roi_align(image, box, (self.cells, self.cells), points).mean((1, 2)), 1, 1)
    x = jnp.concatenate([*map(of_one, ends), *map(waves, ends)], -1)
    edges = nn.Dense(image.shape[-1], name="fc2")(nn.relu(nn.Dense(self.hidden, name="fc1")(x)))
    loss, metrics = self.contrast(normalize(edges), self.texts(views, facts), some, facts)
    return loss, {**metrics, "relations": metrics.pop("regions")}

  def view_facts(self, name: str) -> tuple[str, ...]:
    return self.VIEW_FACTS if name.startswith(self.VIEWS) else ("box",)

  def _ends(self, facts: Facts, count: int) -> tuple[list[jax.Array], jax.Array]:
    """Subjects and objects in shares of the view's sides, [N, K, 4] each; who takes part, [N, K]."""
    if self.is_initializing():
      whole = jnp.tile(jnp.array([0.0, 0.0, 1.0, 1.0]), (len(facts.valid), count, 1))
      return [whole, whole], jnp.ones(whole.shape[:2], bool)
    view = of_valid(facts.of_view(facts.names[0], "box"), facts.valid)
    some = (facts.valid & (view[:, 0] < view[:, 2]))[:, None]
    ends = []
    for end in self.VIEW_FACTS:
      boxes = [of_valid(facts.of_view(name, end), facts.valid) for name in facts.names[1:]]
      within_view, there = zip(*(in_view(box, view, self.seen) for box in boxes))
      ends.append(jnp.stack(within_view, 1))
      some = some & jnp.stack(there, 1)
    return ends, some
