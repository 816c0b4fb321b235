"""A whole set embedded between steps, by all processes together: what epoch hooks look at."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from mmcontrast.data import pipeline
from mmcontrast.data.evaluation_set import open_configured_set
from mmcontrast.data.settings import resolve
from mmcontrast.data.sources import Source, open_source
from mmcontrast.encoders.lowering import lowered_for
from mmcontrast.errors import UserError, choose
from mmcontrast.objectives.presence import taking_part
from mmcontrast.parallel import sharding
from mmcontrast.parallel.compilation import compiler_options
from mmcontrast.runs.train_state import TrainState
from mmcontrast.stores.hook import Examples
from mmcontrast.training.program import Plan
from mmcontrast.training.step import embed_as_evaluated


def open_set(config: Mapping, name: str, where: str, data_dir: str | None = None) -> Source:
  """The training set ("") or one of config.evaluation.data; raises UserError naming the sets there are."""
  if not name:
    settings = resolve(config["data"])
    return open_source(settings, settings["split"], data_dir)
  sets = config["evaluation"].get("data", {})
  if not sets:
    raise UserError(
      f"{where}: no set {name!r}, as config.evaluation.data names none; leave it out for the training set"
    )
  return open_configured_set(choose(name, sets, where), sets[name], config["data"], data_dir)


def embed_examples(
  plan: Plan,
  state: TrainState,
  source: Source,
  function: Callable[..., Any],
  doing: Callable[[str], object] = lambda words: None,
) -> Examples:
  """All examples of `source` through nodes by the state as it is, each with the views that it has in epoch 0, cropped
  as in evaluation.

  Args:
    function: `compiled_embed` of the paths.
    doing: told which batch is read or embedded, for a watchdog.
  """
  config, mesh, size = plan.config, plan.mesh, plan.config["batch"]["size"]
  batches = pipeline.batches_in_order(
    config["data"], source, seed=config["seed"], batch_size=size,
    process_index=jax.process_index(), process_count=jax.process_count(),
  )  # fmt: skip
  count = -(-len(source) // size)
  parts = []
  with contextlib.closing(batches):
    for number in range(count):
      doing(f"reading batch {number + 1} of {count} to embed")
      batch = sharding.put_batch(next(batches), mesh)
      doing(f"embedding batch {number + 1} of {count}")
      parts.append(jax.tree.map(lambda leaf: np.asarray(leaf.addressable_data(0)), function(state, batch)))
  nodes, present, facts = jax.tree.map(lambda *leaves: np.concatenate(leaves)[: len(source)], *parts)
  usable = facts.pop("valid") & (facts.pop("index") == np.arange(len(source)))  # another's record stands for a bad one
  return Examples(nodes, {name: there & usable for name, there in present.items()}, facts)


def compiled_embed(plan: Plan, names: tuple[str, ...]) -> Callable[..., Any]:
  """(state, batch) -> (nodes, present, facts), all of them on every device; compiled at its first call."""
  method, mesh = plan.program.method, plan.mesh
  platform = mesh.devices.flat[0].platform

  def embed(state, batch):
    with lowered_for(platform, mesh):
      nodes = embed_as_evaluated(method, state, batch, names)
    every = batch["valid"]
    present = {name: every if (part := taking_part(batch, [name])) is None else part for name in names}
    kept = ("id", "index", "valid", "labels", "tags")
    return nodes, present, {name: batch[name] for name in kept if name in batch}

  return jax.jit(embed, out_shardings=sharding.replicated(mesh), compiler_options=compiler_options(platform))
