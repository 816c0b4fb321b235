"""Which exports a config allows: known before anything is trained, said by `mmcontrast train --dry_run`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from mmcontrast.errors import UserError
from mmcontrast.interop.formats import FORMATS
from mmcontrast.interop.program import check_expressible
from mmcontrast.interop.run import PROGRAMS, describe_run
from mmcontrast.models.model import complete_config


def exports(config: Mapping[str, Any], params: Mapping[str, Any], batch_stats: Mapping[str, Any]) -> dict[str, str]:
  """Format of `mmcontrast export --to` -> "", or why a run of this config cannot be written in it.

  Args:
    config: a resolved config.
    params, batch_stats: of the run; shapes (jax.ShapeDtypeStruct) will do.
  """
  shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), (dict(params), dict(batch_stats)))
  found = {
    "params": {**shapes[0], "terms": jax.tree.map(lambda leaf: np.ones(leaf.shape), shapes[0].get("terms", {}))},
    "batch_stats": shapes[1],
  }
  whole = complete_config(config)
  said = {}

  def ask(name, check):
    try:
      check()
      said[name] = ""
    except UserError as error:
      said[name] = str(error).removeprefix(f"{name}: ")

  for name, one in FORMATS.items():
    if one.writes:
      ask(
        name,
        lambda name=name, one=one: one.plan(
          describe_run(whole, found, name, config["data"].get("tokenizer", "")), name
        ),
      )
  for name in PROGRAMS:
    ask(name, lambda: check_expressible(config))
  return said


def lines(said: Mapping[str, str]) -> list[str]:
  """What `exports` says, for people: those that are possible in a line, a line for each of the others."""
  able = [name for name, why in said.items() if not why]
  return [
    f"exports (mmcontrast export --to): {', '.join(able) or 'none'}",
    *(f"  no {name}: {why}" for name, why in said.items() if why),
  ]
