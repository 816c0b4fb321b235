"""Vectors of the places of an image, in the joint space of a model."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.heads import takes
from mmcontrast.errors import UserError, choose
from mmcontrast.inference.kinds import Kind, run_node
from mmcontrast.inference.trained_model import Inference
from mmcontrast.modalities import MODALITIES


def image_maps(model: Inference, values: Any, head: str = "") -> np.ndarray:
  """Unit rows float32 [N, rows, columns, D] of the places of images, as evaluation shows them.

  A head that gives tokens gives them; one that reads the pooled vector is applied to each place that its tower makes,
  as MaskCLIP does (arXiv:2112.01071).

  Args:
    head: of an image tower; "": that of config.evaluation.image.
  Raises UserError for no such head, and for a tower whose output has no places, or a head that reads more than them.
  """
  where = "segment: head"
  of_images = [name for name in model.model.heads if model.model.node_of(name) == "image"]
  head = choose(head or model.heads.get("image", ""), of_images, where)
  tower = model.model.tower_of_head[head]
  line = model.model._line(head)
  if head not in model.model.token_heads and any(takes(model.model.heads[one]) != ("pooled",) for one in line):
    raise UserError(f"{where}: {head!r} does not read the places of its tower {tower!r}; name one that does")
  encode = jax.jit(functools.partial(_encode, model, tower, head))
  found = []
  for batch, count in model._batches(values, lambda part: model._batch("image", part)):
    found.append(np.asarray(encode(model.variables, batch))[:count])
  return np.concatenate(found)


def _encode(model: Inference, tower: str, head: str, variables: Any, values: Any) -> jax.Array:
  inputs = {"image": MODALITIES["image"].inputs(values, {**model.config, "data": model.data})}
  if head in model.model.token_heads:
    made = run_node(model.model, variables, Kind(("image",), tower, head, "tokens"), inputs).map
  else:
    places = run_node(model.model, variables, Kind(("image",), tower, "", "tokens"), inputs).map
    made = None
    if places is not None:
      flat = Encoded(places.reshape(-1, places.shape[-1]))
      made = model.model.embed_through(variables, head, flat).pooled.reshape(*places.shape[:3], -1)
  if made is None:
    raise UserError(f"segment: head: what tower {tower!r} makes has no places; that of vit, resnet and convnext has")
  made = made.astype(jnp.float32)
  return made / jnp.maximum(jnp.linalg.norm(made, axis=-1, keepdims=True), 1e-12)
