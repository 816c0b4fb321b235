"""What a config would cost, without training it: the step is compiled and read, nothing runs.

    mmcontrast train --config clip --dry_run --devices 256

Simulated devices are CPU devices: shardings and collectives are those of XLA's partitioner, which
all platforms share; FLOPs and bytes are the CPU compiler's, and only ratios carry over.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
import os
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from mmcontrast.cost import flops, tpu_slice
from mmcontrast.data import pipeline
from mmcontrast.data.batch_schema import batch_schema, of_size
from mmcontrast.data.buckets import buckets_of, widest
from mmcontrast.data.settings import resolve, shown
from mmcontrast.errors import MissingData, UserError
from mmcontrast.interop import possible
from mmcontrast.objectives import terms as objective
from mmcontrast.objectives.global_matrix import choose_impl
from mmcontrast.parallel import sharding
from mmcontrast.training.program import Plan, Program, make_plans, view_shapes

_ASSUMED = {"examples": 1_000_000, "vocab_size": 32_000, "tags": 80}
_QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}  # no machine code will run
_COLLECTIVE = re.compile(
  r"\s(all-reduce|all-gather|reduce-scatter|all-to-all|ragged-all-to-all|collective-permute|collective-broadcast)"
  r"(?:-start)?\("
)
_FORCED = re.compile(r"--xla_force_host_platform_device_count=\S+")


def dry_run(
  config: Mapping, devices: int | None = None, data_dir: str | None = None, topology: str | None = None
) -> str:
  """Compiles the train step of `config`, or of each of its stages, and describes it.

  Args:
    config: a resolved config.
    devices: how many devices to simulate; None: those that are here.
    topology: the TPU slice to compile for, such as "v5e:4x4": tpu_slice.py.
    data_dir: where datasets live; without the dataset its shapes are made up, and the text says so.
  Raises UserError as `train.train` does, before compilation.
  """
  if topology is not None:
    present = tpu_slice.slice_devices(topology)
  else:
    present = simulate(devices) if devices is not None else jax.devices()
  plans = make_plans(config, lambda run: find_spec(run, data_dir)[0], present)
  texts = [f"stage {name}: " * bool(name) + _describe(plan, present, data_dir) for name, plan in plans.items()]
  last = list(plans.values())[-1]  # the stage that is exported
  state = last.program.state
  texts.append("\n".join(possible.lines(possible.exports(last.config, state.params, state.batch_stats))))
  return "\n\n".join(texts)


def _describe(plan: Plan, present: Sequence[jax.Device], data_dir: str | None) -> str:
  """What the compiled step of one stage, or of a run without stages, is and costs."""
  config, mesh, program = plan.config, plan.mesh, plan.program
  size, (_, of_data) = config["batch"]["size"], find_spec(config, data_dir)
  where = sharding.batch_sharding(mesh)
  batch = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), program.batch)
  chosen = loss_lines(config, program, mesh)
  start = time.perf_counter()
  costs = (
    _on_slice(plan, batch, present, data_dir)
    if present[0].platform == "tpu"
    else _costs(program.step.lower(program.state, batch).compile(_QUICK), len(present))
  )
  seconds = time.perf_counter() - start
  return "\n".join(
    [
      f"{len(present)} {present[0].device_kind} devices, mesh "
      f"{' x '.join(f'{axis} {count}' for axis, count in mesh.shape.items())}, sharding {config['sharding']!r}, "
      f"batch {size:,}",
      f"data: {of_data}",
      "",
      "parameters:",
      sharding.overview(program.state.params, _placed(program.state.params)),
      *_state_sizes(program),
      "",
      "loss:",
      *chosen,
      "",
      *costs,
      f"compiled in {seconds:.1f} s; nothing was trained",
    ]
  )


def _on_slice(plan: Plan, batch: Any, present: Sequence[jax.Device], data_dir: str | None) -> list[str]:
  """What the step costs on TPUs; where it does not fit, the first change of the config with which it would."""
  config, program = plan.config, plan.program
  needed, tried = None, []
  for written, other in [("", config), *tpu_slice.roomier(config)]:
    if written:
      tried.append(written)
      try:
        program = make_plans(other, lambda run: find_spec(run, data_dir)[0], present)[""].program
      except UserError as error:
        tried[-1] += f" (not with this config: {error})"
        continue
    try:
      compiled = program.step.lower(program.state, batch).compile()
    except jax.errors.JaxRuntimeError as error:
      memory = tpu_slice.too_much(error)
      if memory is None:
        raise
      needed = needed or memory
      continue
    lines = tpu_slice.costs(
      compiled, present[0], config["batch"]["size"], len(present), forward_flops(program, config["batch"]["size"])
    )
    if not tried:
      return lines
    return [_too_much(needed), "it fits with " + " ".join(tried) + ":", "", *lines]
  return [_too_much(needed), "tried without success: " + "; ".join(tried)]


def _too_much(memory: tuple[int, int]) -> str:
  needed, there = (size / 2**30 for size in memory)
  return f"memory a chip: needs {needed:.2f} GiB of {there:.2f}: IT DOES NOT FIT"


def forward_flops(program: Program, size: int) -> float:
  """Of one example, as the formula of MFU asks: momentum branches are not counted, and of towers that do not train a
  third is, since they have no backward pass."""
  method, state = program.method, program.state
  names = [name for name in objective.required_embeddings(method.terms) if not name.endswith("@momentum")]
  views = view_shapes(method.preparations, program.batch)
  variables = {"params": state.params, "batch_stats": state.batch_stats}

  def count(names):
    embed = functools.partial(method.model.embed, names=names, train=False)
    return flops.forward_flops(embed, variables, views) / size if names else 0.0

  of_head = method.model.node_of_head
  frozen = [name for name in names if f"towers/{of_head.get(name.split('/')[-1])}" in method.model.frozen]
  return count(names) - 2 / 3 * count(frozen)


def simulate(count: int) -> list[jax.Device]:
  """`count` CPU devices; raises UserError when JAX has started with fewer."""
  if count < 1:
    raise UserError(f"--devices {count}: give at least 1")
  try:
    flags = os.environ.get("XLA_FLAGS", "")
    jax.config.update("jax_num_cpu_devices", count)
    jax.config.update("jax_platforms", "cpu")
    os.environ["XLA_FLAGS"] = _FORCED.sub("", flags)  # JAX takes one of the two
  except RuntimeError:  # JAX has started: make do with what there is
    pass
  if len(jax.devices()) < count:
    raise UserError(f"--devices {count}: JAX has started with {len(jax.devices())}; run it in a process of its own")
  return jax.devices()[:count]


def find_spec(config: Mapping, data_dir: str | None) -> tuple[pipeline.Spec, str]:
  """The spec of the data, and a line about it; made up from the config where the data is not here."""
  size = config["batch"]["size"]
  try:
    spec = pipeline.spec(config["data"], size, data_dir)
    name = " + ".join(config["data"].get("mixture") or ()) or config["data"]["dataset"]
    return spec, f"{name}, {spec.examples:,} examples"
  except MissingData as missing:
    reason = str(missing).split(";")[0]
  settings = resolve(config["data"])
  sizes = [tower["vocab_size"] for tower in config["towers"].values() if "vocab_size" in tower]
  has_words = any(modality.words for modality in shown(settings).values())
  vocabulary = max(sizes, default=_ASSUMED["vocab_size"]) if has_words else None
  labels = _label_names(config)
  schema = batch_schema(
    widest(buckets_of(settings, size), size).settings,
    tags=_ASSUMED["tags"],
    labels=labels,
    weighted=_is_weighted(settings),
  )
  examples = max(_ASSUMED["examples"], size)
  spec = pipeline.Spec(
    examples=examples,
    steps_per_epoch=examples // size,
    tag_names=tuple(map(str, range(_ASSUMED["tags"]))),
    label_names={name: ("?",) for name in labels},
    styles=("?",),
    vocab_size=vocabulary,
    mask_id=vocabulary - 1 if vocabulary else None,
    batch=of_size(schema, size),
  )
  text = f", {vocabulary:,} token pieces" if vocabulary else ""
  return spec, f"not here ({reason}); assumed: {examples:,} examples, {_ASSUMED['tags']} tags{text}"


def _is_weighted(settings: Mapping) -> bool:
  """Whether the data bring weights of examples, by the options of their sources."""
  sources = [one.get("source") or {} for one in (settings["mixture"] or {"": settings}).values()]
  return any(source.get("weight") for source in sources)


def loss_lines(config: Mapping, program: Program, mesh: jax.sharding.Mesh) -> list[str]:
  """One line for each matrix of each term: its shape, and the implementation that computes it."""
  terms, model, state, batch = program.method.terms, program.method.model, program.state, program.batch
  views = view_shapes(program.method.preparations, batch)
  variables = {"params": state.params, "batch_stats": state.batch_stats}
  names = objective.required_embeddings(terms)
  embed = functools.partial(model.embed, names=names, train=False)
  found, _ = jax.eval_shape(embed, variables, views)
  devices, impl = sharding.batch_parts(mesh), config["matrix"]["impl"]
  lines = []
  for name, term in terms.items():
    for rows, columns, kind, dim, cells in term.matrices(found, config["batch"]["size"]):
      chosen = choose_impl(rows, columns, dim, devices, cells) if impl == "auto" else impl
      lines.append(f"  {name}: {rows:,} x {columns:,} ({kind}), dim {dim}: {chosen}{' (auto)' * (impl == 'auto')}")
  return lines


def collectives(text: str) -> dict[str, int]:
  """Kind -> how often it stands in a compiled module's text; one in a loop stands once."""
  return dict(collections.Counter(match.group(1) for match in _COLLECTIVE.finditer(text)).most_common())


def _label_names(config: Mapping) -> tuple[str, ...]:
  """The labels that the config's targets name."""
  targets = [term.get("target") for term in config["objective"].values()]
  targets = [target for target in targets if isinstance(target, Mapping)]
  named = {target["label"] for target in targets if "label" in target}
  return tuple(sorted(named.union(*(target.get("labels", ()) for target in targets))))


def _placed(shapes: Any) -> Any:
  return jax.tree.map(lambda leaf: leaf.sharding, shapes)


def _state_sizes(program: Program) -> list[str]:
  lines = []
  for field in dataclasses.fields(program.state):
    leaves = jax.tree.leaves(getattr(program.state, field.name))
    count = sum(leaf.size for leaf in leaves)
    if field.name != "step" and count:
      held = sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves)
      lines.append(f"{field.name}: {count:,} numbers, {held / 2**20:,.1f} MiB a device")
  return lines


def _costs(compiled: Any, devices: int) -> list[str]:
  costs = compiled.cost_analysis()
  flops = (costs[0] if isinstance(costs, list) else costs or {}).get("flops", math.nan)
  memory = compiled.memory_analysis()
  counts = collectives(compiled.as_text())
  return [
    f"FLOPs a step: {flops:.3e} a device, {flops * devices:.3e} in all (the body of a loop is counted once)",
    f"bytes a device: {memory.temp_size_in_bytes:,} of temporaries ({memory.temp_size_in_bytes / 2**20:,.1f} MiB), "
    f"{memory.argument_size_in_bytes:,} of state and batch",
    "collectives: " + (", ".join(f"{kind} {count}" for kind, count in counts.items()) or "none"),
  ]
