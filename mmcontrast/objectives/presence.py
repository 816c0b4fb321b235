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

  Args:
    info: "valid" [N] and "present" {modality: [N]}, both optional; a modality without an entry is
      always there.
    names: paths of embeddings.
  """
  present = info.get("present") or {}
  modalities = dict.fromkeys(modality for name in names for modality in parse_embedding(name).modalities)
  masks = [info.get("valid"), *(present.get(modality) for modality in modalities)]
  masks = [mask for mask in masks if mask is not None]
  return functools.reduce(jnp.logical_and, masks) if masks else None
