"""What a modality is: all that the rest of the house asks of images, texts, sounds.

A modality is a class in a file of its name and a line in modalities/__init__.py; nothing else names it.
docs/tutorials/new_modality.md adds one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from mmcontrast.modalities.use import InUse
from mmcontrast.modalities.views import Inputs, Views


class Modality(InUse, Views):
  """A modality: in training (`Views`) and in use (`InUse`)."""

  def inputs(self, batch: Any, config: Mapping[str, Any]) -> Inputs:
    """What a tower reads of a batch as `InUse.batch` gives it, one view an example, as in evaluation; in JAX.

    Args:
      config: of a run, its `data` resolved.
    """
    arrays = batch if isinstance(batch, Mapping) else {self.name: batch}
    views = {name: jnp.asarray(array)[:, None] for name, array in arrays.items()}
    seeds = jnp.zeros(next(iter(views.values())).shape[0], jnp.uint32)  # a size that is only known later has no len
    return self.preparation(self._shown(config))({**views, "seed": seeds}, train=False)[self.name].view(0)

  def zeros(self, count: int, config: Mapping[str, Any]) -> Inputs:
    """What a tower reads of so many examples that say nothing: black pixels, one token. Arguments as of `inputs`."""
    schema = self.arrays(self._shown(config)["data"])
    others = tuple(name for name in self.view_sets if name != self.name)
    arrays = {name: of for name, of in schema.items() if not name.startswith(others or ("/",))}
    blank = {
      name: jnp.full((count, *shape[1:]), jnp.issubdtype(dtype, jnp.signedinteger), dtype)
      for name, (shape, dtype) in arrays.items()
    }
    return self.inputs(blank, config)

  def _shown(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """`config` with a view of the modality: it may be used where nothing of it is trained on."""
    views = config["data"]["views"]
    return {**config, "data": {**config["data"], "views": {**views, self.name: max(1, views.get(self.name, 0))}}}
