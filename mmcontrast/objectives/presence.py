"""Which examples take part: padding does not, nor does an example that lacks a modality in what reads it."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mmcontrast.objectives.embedding_path import parse_embedding


def taking_part(info: Mapping[str, Any], names: Iterable[str]) -> jax.Array | None:
  """Bool [N]: the valid examples that have the modality of every embedding in `names`; None: all.

  Of what is drawn (drawn_pairs.py) there must be another example, of another id, that has it.

  Args:
    info: "valid" [N] and "present" {modality: [N]}, both optional; a modality without an entry is
      always there. "id" [N], where something is drawn.
    names: paths of embeddings.
  """
  paths = [parse_embedding(name) for name in names]
  drawn: dict[str, dict[str, None]] = {}  # term -> the modalities that are drawn by it
  for leaf in (leaf for path in paths for leaf in path.drawn):
    drawn.setdefault(leaf.drawn, {})[leaf.modality] = None
  masks = [_having(info, dict.fromkeys(modality for path in paths for modality in path.modalities))]
  masks += [_others_having(info, modalities) for modalities in drawn.values()]
  masks = [mask for mask in masks if mask is not None]
  return functools.reduce(jnp.logical_and, masks) if masks else None


def ids_of(info: Mapping[str, Any], count: int) -> jax.Array:
  """int [N]: equal for examples that show the same thing; of a batch without "id" all differ."""
  return jnp.asarray(info["id"]) if "id" in info else jnp.arange(count)


def _having(info: Mapping[str, Any], modalities: Iterable[str]) -> jax.Array | None:
  """The valid examples that have all of the modalities; None: all."""
  present = info.get("present") or {}
  masks = [info.get("valid"), *(present.get(modality) for modality in modalities)]
  masks = [mask for mask in masks if mask is not None]
  return functools.reduce(jnp.logical_and, masks) if masks else None


def _others_having(info: Mapping[str, Any], modalities: Iterable[str]) -> jax.Array | None:
  """The examples for which there is another one, of another id, that is valid and has all of the modalities; None
  where nothing is known of the batch."""
  leaves = jax.tree.leaves(info)
  if not leaves:
    return None
  count = len(leaves[0])
  ids, having = ids_of(info, count), _having(info, modalities)
  having = jnp.ones(count, bool) if having is None else having
  least = jnp.min(jnp.where(having, ids, jnp.iinfo(ids.dtype).max))
  most = jnp.max(jnp.where(having, ids, jnp.iinfo(ids.dtype).min))
  return jnp.any(having) & ((least != ids) | (most != ids))
