"""What every layer of a tower makes of things: see models/layer_outputs.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from mmcontrast.data.things import taken_at
from mmcontrast.errors import UserError, choose
from mmcontrast.inference.kinds import Kind, modalities_of, run_node
from mmcontrast.inference.trained_model import Inference
from mmcontrast.modalities import MODALITIES
from mmcontrast.models.layer_outputs import POOLS, check_pool, kept_layers, one_by_one, vectors_of


def layer_rows(
  model: Inference, tower: str, values: Any, pool: str = "mean", where: str = "layers"
) -> dict[str, np.ndarray]:
  """float32 [N, D] of each layer of a tower, in their order, and last of what the tower makes ("pooled").

  Args:
    values: as of `Inference.embed`: of the tower's modality; of one that reads others modality -> values, of N each.
    pool: "mean" of the real positions, or "first", of towers with a learned token in front.
  Raises UserError, which begins with `where`: no such tower or pool, rows that are not finite.
  """
  choose(tower, model.model.towers, where)
  choose(pool, POOLS, f"{where}: pool")
  check_pool(model.model.towers[tower], tower, pool, where)
  modalities = modalities_of(model.model, tower)
  parts = {modalities[0]: values} if len(modalities) == 1 and not isinstance(values, Mapping) else values
  names: list[str] = []

  def encode(variables: Any, values: Mapping[str, Any]) -> list[jax.Array]:
    made = _encode(model, tower, pool, variables, values)
    names[:] = made  # in their order, which a table that leaves a compiled function loses
    return list(made.values())

  encode = jax.jit(encode)

  def prepare(places: np.ndarray) -> dict[str, Any]:
    return {one: model._batch(one, taken_at(of, places)) for one, of in parts.items()}

  found = [
    [np.asarray(rows)[:count] for rows in encode(model.variables, batch)]
    for batch, count in model._batches(np.arange(len(next(iter(parts.values())))), prepare)
  ]
  rows = {name: np.concatenate(of) for name, of in zip(names, zip(*found))}
  check_finite(rows, tower, where)
  return rows


def check_finite(rows: Mapping[str, np.ndarray], tower: str, where: str) -> None:
  """Raises UserError, which begins with `where`, for a layer of which a row is not finite."""
  for name, of in rows.items():
    if bad := int((~np.isfinite(of)).any(axis=1).sum()):
      raise UserError(
        f"{where}: layer {name} of tower {tower!r} is NaN or infinite for {bad} of {len(of)} examples; look at an "
        "earlier checkpoint"
      )


def _encode(model: Inference, tower: str, pool: str, variables: Any, values: Mapping[str, Any]) -> dict[str, jax.Array]:
  config = {**model.config, "data": model.data}
  inputs = {one: MODALITIES[one].inputs(part, config) for one, part in values.items()}
  if reads := model.model.reads.get(tower):
    encoded = [run_node(model.model, variables, Kind((), one, "", "tokens"), inputs) for one in reads]
  plain, variables = one_by_one(model.model, variables, tower)
  with kept_layers() as layers:
    if reads:
      made = plain.fuse(variables, tower, encoded)[0]
    else:
      made = plain.encode(variables, tower, inputs[plain.modality_of_tower[tower]])[0]
  return vectors_of(layers, made, pool)
