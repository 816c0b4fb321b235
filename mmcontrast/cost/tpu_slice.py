"""What a step costs on a slice of TPUs that is not here: libtpu compiles for any, on a machine that has none.

    mmcontrast train --config clip --dry_run --topology v5e:4x4

All figures are the compiler's estimates, not measurements.
"""

from __future__ import annotations

import copy
import importlib.util
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from mmcontrast.cost import flops as floating
from mmcontrast.cost import tpu_program
from mmcontrast.encoders import complete
from mmcontrast.errors import UserError, nearest, one_line

KNOWN = (
  "v4:2x2x1",
  "v4:2x2x2",
  "v4:2x2x4",
  "v5e:2x4",
  "v5e:4x4",
  "v5e:4x8",
  "v5e:8x8",
  "v5e:8x16",
  "v5e:16x16",
  "v5p:2x2x1",
  "v5p:2x2x2",
  "v5p:2x2x4",
  "v5p:4x4x4",
  "v5p:8x8x8",
  "v6e:2x4",
  "v6e:4x4",
  "v6e:8x8",
  "v6e:16x16",
)
_FORM = re.compile(r"(v4|v5e|v5p|v6e):\d+x\d+(x\d+)?")
_TYPE = re.compile(r"(v4|v5litepod|v5e|v5p|v6e)-(\d+)")
_TOO_MUCH = re.compile(r"([\d.]+)([GMK])\) exceeds available HBM \(([\d.]+)([GMK])\)")
_UNIT = {"K": 2**10, "M": 2**20, "G": 2**30}
DEAREST = 10


def slice_devices(topology: str) -> Sequence[jax.Device]:
  """The devices of a slice such as "v5e:2x4", to compile for; nothing can run on them.

  Raises UserError where libtpu is not installed or does not know the slice.
  """
  if not _FORM.fullmatch(topology):
    raise UserError(f"--topology {topology}: no such form; {_nearest(topology)}")
  if importlib.util.find_spec("libtpu") is None:
    raise UserError(
      "--topology needs libtpu, which compiles for TPUs where there are none: pip install 'mmcontrast[tpu_compile]'"
    )
  # Else libtpu asks the metadata server of a machine in Google's cloud, which this may not be, and lets only one
  # process at a time in, which matters for those that compute.
  for name, value in (
    ("TPU_SKIP_MDS_QUERY", "1"),
    ("TPU_WORKER_HOSTNAMES", "localhost"),
    ("TPU_ACCELERATOR_TYPE", "v5litepod-8"),
    ("ALLOW_MULTIPLE_LIBTPU_LOAD", "1"),
  ):
    os.environ.setdefault(name, value)
  jax.config.update("jax_platforms", "cpu")
  jax.config.update("jax_enable_compilation_cache", False)  # without a TPU, what is cached cannot be read again
  from jax.experimental import topologies

  try:
    return topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
  except Exception as error:  # of libtpu's own types
    family = topology.split(":")[0]
    known = ", ".join(name for name in KNOWN if name.startswith(f"{family}:"))
    raise UserError(f"--topology {topology}: {one_line(error)}; slices of {family}: {known}") from error


def _nearest(topology: str) -> str:
  """What may have been meant: of an accelerator type such as "v5litepod-16" the slice of so many chips."""
  kind = _TYPE.fullmatch(topology.lower())
  if kind:
    family = kind[1].replace("litepod", "e")
    chips = int(kind[2]) // (2 if family in ("v4", "v5p") else 1)  # the names of these count cores
    for name in KNOWN:
      sides = name.removeprefix(f"{family}:")
      if sides != name and math.prod(map(int, sides.split("x"))) == chips:
        return f"{topology} is a slice of {chips} chips: {name}"
  return f"{nearest(topology.lower(), KNOWN)}; forms: v5e:4x4, v6e:4x4, v4:2x2x2, v5p:2x2x2, ..."


def too_much(error: Exception) -> tuple[int, int] | None:
  """(bytes a chip that a program needs, bytes there are) where a compilation failed for memory; None for others."""
  found = _TOO_MUCH.search(str(error))
  if found is None:
    return None
  return tuple(round(float(found[i]) * _UNIT[found[i + 1]]) for i in (1, 3))


def roomier(config: Mapping) -> Iterator[tuple[str, dict[str, Any]]]:
  """What would need less memory, in the order to try: (how it is written, the config), each with those before."""
  config = copy.deepcopy(dict(config))
  for policy in ("keep_products", "full"):
    towers = {
      name: tower
      for name, tower in config["towers"].items()
      if not tower.get("same_as") and "remat" in complete(tower) and _rank(tower) < _rank({"remat": policy})
    }
    if towers:
      for tower in towers.values():
        tower["remat"] = policy
      yield " ".join(f"--config.towers.{name}.remat={policy}" for name in towers), copy.deepcopy(config)
  if config["sharding"] == "dp":
    config = {**config, "sharding": "fsdp", "mesh": {"data": 1, "fsdp": -1, "tensor": 1}}
    yield "--config.sharding=fsdp --config.mesh.data=1 --config.mesh.fsdp=-1", copy.deepcopy(config)
  for chunks in (2, 4, 8):
    if chunks > config["batch"]["microbatches"] and config["batch"]["size"] % chunks == 0:
      config["batch"] = {**config["batch"], "microbatches": chunks}
      yield f"--config.batch.microbatches={chunks}", copy.deepcopy(config)


def costs(compiled: Any, device: jax.Device, batch_size: int, devices: int, forward_flops: float) -> list[str]:
  """Memory, time, utilisation, parts, the dearest instructions and collectives of a compiled step, as lines.

  forward_flops: of one example: flops.py.
  """
  chip, text, memory = tpu_program.CHIPS[device.device_kind], compiled.as_text(), compiled.memory_analysis()
  held, temporary = memory.argument_size_in_bytes, memory.temp_size_in_bytes
  listed = tpu_program.instructions(text, chip)
  cycles = sum(instruction.cycles for instruction in listed)
  seconds, mine = cycles / chip.clock, batch_size / devices
  utilisation = floating.utilisation(forward_flops, mine / seconds, chip.peak) if cycles else math.nan
  lines = [
    f"memory a chip: {(held + temporary) / 2**30:.2f} of {chip.memory / 2**30:.2f} GiB, {held / 2**30:.2f} of state "
    f"and batch, {temporary / 2**30:.2f} of temporaries: it fits",
    f"step: {cycles / 1e6:,.1f} M cycles, {seconds * 1e3:,.1f} ms, {mine / seconds:,.0f} examples/s a chip, "
    f"MFU {utilisation:.1%}",
    f"  (MFU = 3 x forward FLOPs x examples/s / peak = 3 x {forward_flops:.3e} x {mine / seconds:,.0f} / "
    f"{chip.peak:.3e})",
    "",
    "cycles by part:",
  ]
  lines += [
    f"  {share / cycles:6.1%}  {share / 1e6:9,.1f} M  {name}" for name, share in tpu_program.by_part(listed).items()
  ]
  dearest, transfers = tpu_program.by_source(listed)[:DEAREST], tpu_program.collectives(text)
  lines += ["", f"the {DEAREST} most expensive instructions, copies among them: {tpu_program.copies(dearest)}:"]
  lines += [
    f"  {one.cycles / cycles:6.1%}  {one.cycles / 1e6:9,.1f} M  {one.kind} {_short(one.result)}  {_where(one)}"
    for one in dearest
  ]
  lines += ["", "collectives a step:"]
  lines += [
    f"  {one.kind} for {one.part}: {one.count}, {one.bytes / 2**20:,.1f} MiB, {one.hidden} while the chip computes"
    for one in transfers
  ] or ["  none"]
  waited = tpu_program.seconds_waited(transfers, devices, chip)
  lines.append(
    f"  not hidden, so not in the step above: {waited * 1e3:,.2f} ms at the full rate of a chip's links, "
    f"{chip.links / 1e9:,.0f} GB/s"
  )
  return [
    *lines,
    "",
    "These are the compiler's estimates, not measurements; those of kernels are ours (tpu_program.py).",
  ]


def _rank(tower: Mapping) -> int:
  policies = ("none", "dots_saveable", "keep_products", "dots_with_no_batch_dims_saveable", "full")
  return policies.index(tower.get("remat", "none"))


def _short(result: str) -> str:
  return re.sub(r"\{[^}]*\}", "", result)[:60]


def _where(instruction: tpu_program.Instruction) -> str:
  return (
    re.sub(
      r"jit\(train_step\)/|while/body/closed_call/|blocks\.<lambda>/|checkpoint/|blocks\.body/", "", instruction.source
    )[-90:]
    or "no source"
  )
