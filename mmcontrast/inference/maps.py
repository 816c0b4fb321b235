"""Vectors of the places of an image, in the joint space of a model."""

from __future__ import annotations

import functools
from collections.abc import Callable
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

_WHERE = "segment: head"


def image_maps(model: Inference, values: Any, head: str = "") -> np.ndarray:
  """Unit rows float32 [N, rows, columns, D] of the places of images, as evaluation shows them.

  A head that gives tokens gives them; one that reads the pooled vector is applied to each place that its tower makes,
  as MaskCLIP does (arXiv:2112.01071).

  Args:
    head: of an image tower; "": that of config.evaluation.image.
  Raises UserError for no such head, and for a tower whose output has no places, or a head that reads more than them.
  """
  tower, head = _read_by(model, head)
  line = model.model._line(head)
  if head not in model.model.token_heads and any(takes(model.model.heads[one]) != ("pooled",) for one in line):
    raise UserError(f"{_WHERE}: {head!r} does not read the places of its tower {tower!r}; name one that does")
  return _of_all(model, functools.partial(_joint, model, tower, head), values)


def tower_maps(model: Inference, values: Any, head: str = "") -> np.ndarray:
  """float32 [N, rows, columns, F]: what the tower that a head reads makes of each place; arguments as of `image_maps`.

  Raises UserError for no such head, and for a tower whose output has no places.
  """
  tower, _ = _read_by(model, head)
  return _of_all(model, functools.partial(_places, model, tower), values)


def _read_by(model: Inference, head: str) -> tuple[str, str]:
  """The image tower that a head reads, and the head."""
  of_images = [name for name in model.model.heads if model.model.node_of(name) == "image"]
  head = choose(head or model.heads.get("image", ""), of_images, _WHERE)
  return model.model.tower_of_head[head], head


def _of_all(model: Inference, function: Callable[[Any, Any], jax.Array], values: Any) -> np.ndarray:
  """`function(variables, batch)` of all images, batch by batch."""
  encode, found = jax.jit(function), []
  for batch, count in model._batches(values, lambda part: model._batch("image", part)):
    found.append(np.asarray(encode(model.variables, batch))[:count])
  return np.concatenate(found)


def _joint(model: Inference, tower: str, head: str, variables: Any, values: Any) -> jax.Array:
  if head in model.model.token_heads:
    made = _places(model, tower, variables, values, head)
  else:
    places = _places(model, tower, variables, values)
    flat = Encoded(places.reshape(-1, places.shape[-1]))
    made = model.model.embed_through(variables, head, flat).pooled.reshape(*places.shape[:3], -1)
    made = made.astype(jnp.float32)
  return made / jnp.maximum(jnp.linalg.norm(made, axis=-1, keepdims=True), 1e-12)


def _places(model: Inference, tower: str, variables: Any, values: Any, head: str = "") -> jax.Array:
  """The map of a tower, or of a head on its tokens."""
  inputs = {"image": MODALITIES["image"].inputs(values, {**model.config, "data": model.data})}
  made = run_node(model.model, variables, Kind(("image",), tower, head, "tokens"), inputs).map
  if made is None:
    raise UserError(f"{_WHERE}: what tower {tower!r} makes has no places; that of vit, resnet and convnext has")
  return made.astype(jnp.float32)
