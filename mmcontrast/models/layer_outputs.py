"""What each block of a tower makes, as one vector an example: no encoder needs to know of it, calls are intercepted.

A layer is a module that says so (`IS_LAYER`): a transformer's block, a residual block of convolutions, a stage. Its
name is its path in the parameters, "blocks_3", "stages_2/blocks_0", "layer4_1". One that stands within another, as in
a cross-modal layer, is not told apart from it.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.layers import unstack_layers
from mmcontrast.errors import UserError
from mmcontrast.models.model import Model, Variables

LAST = "pooled"
"""The name of what the tower makes itself, after its last layer."""
POOLS = ("mean", "first")


class Made(NamedTuple):
  """What a layer made, [B, ..., D], and the mask that it was given, if any."""

  output: jax.Array
  mask: Any


@contextlib.contextmanager
def kept_layers() -> Iterator[dict[str, Made]]:
  """In this block, what the layers of towers make that are applied, by name, in their order."""
  found: dict[str, Made] = {}
  within: list[bool] = []

  def intercept(call, args, options, context):
    if within or context.method_name != "__call__" or not getattr(context.module, "IS_LAYER", False):
      return call(*args, **options)
    within.append(True)
    try:
      made = call(*args, **options)
    finally:
      within.pop()
    output = made[0] if isinstance(made, tuple) else made
    mask = options.get("mask", args[1] if len(args) > 1 else None)
    found["/".join(context.module.path)] = Made(output, mask if isinstance(mask, jax.Array) else None)
    return made

  with nn.intercept_methods(intercept):
    yield found


def one_by_one(model: Model, variables: Variables, tower: str) -> tuple[Model, Variables]:
  """The same model, whose tower has no loop over its blocks and computes none of them again, so that each is called."""
  module, owner = model.towers[tower], model.same_as.get(tower, tower)
  if any(getattr(one, "scan", False) for one in (module, *_within(module).values())):
    flat = traverse_util.flatten_dict(variables["params"]["towers"][owner], sep="/")
    params = traverse_util.unflatten_dict(unstack_layers(flat), sep="/")
    towers = {**variables["params"]["towers"], owner: params}
    variables = {**variables, "params": {**variables["params"], "towers": towers}}
  return dataclasses.replace(model, towers={**model.towers, tower: _without_loops(module)}), variables


def _within(module: nn.Module) -> dict[str, nn.Module]:
  """Option -> the tower that it is."""
  return {name: getattr(module, name) for name in getattr(module, "NESTED", ())}


def _without_loops(module: nn.Module) -> nn.Module:
  changes = {name: off for name, off in (("scan", False), ("remat", "none")) if hasattr(module, name)}
  return module.clone(**changes, **{name: _without_loops(one) for name, one in _within(module).items()})


def vectors_of(layers: dict[str, Made], encoded: Encoded, pool: str = "mean") -> dict[str, jax.Array]:
  """float32 [B, D] of each layer, and of the tower itself (LAST), in their order.

  Args:
    layers: of `kept_layers`. encoded: what the tower made.
    pool: "mean" of the positions that are real, learned ones among them; "first": the first position.
  """
  batch = len(jax.tree.leaves(encoded)[0])
  out = {}
  for name, made in layers.items():
    x = made.output.astype(jnp.float32).reshape(batch, -1, made.output.shape[-1])
    if pool == "first":
      out[name] = x[:, 0]
      continue
    real = _real(made, encoded.mask, x.shape[:2])
    out[name] = x.mean(1) if real is None else (x * real).sum(1) / jnp.maximum(real.sum(1), 1)
  return out | ({} if encoded.pooled is None else {LAST: encoded.pooled.astype(jnp.float32)})


def check_pool(module: nn.Module, tower: str, pool: str, where: str) -> None:
  """Raises UserError, which begins with `where`, unless a tower has a learned position in front to be the first."""
  of = getattr(module, "pool", "")
  if pool == "first" and of not in ("cls", "cls_distillation", "queries"):
    raise UserError(
      f"{where}: pool 'first' is of towers with a learned token in front, and {tower!r} has pool={of!r}; use 'mean'"
    )


def _real(made: Made, mask: jax.Array | None, shape: tuple[int, int]) -> jax.Array | None:
  """float32 [B, L, 1]: which positions are real, by the mask of the tower's tokens, else by what the layer was told."""
  told = made.mask
  if mask is not None and mask.shape == shape:
    found = mask
  elif told is not None and told.shape == shape:
    found = told
  elif told is not None and told.ndim == made.output.ndim and told.shape[-1] == 1:  # of maps: [B, T, 1, 1]
    found = jnp.broadcast_to(told[..., 0], made.output.shape[:-1]).reshape(shape)
  else:
    return None
  return found[..., None].astype(jnp.float32)
