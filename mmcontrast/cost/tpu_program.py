"""Reads a program that XLA compiled for a TPU: estimated cycles, what they are spent on, and its collectives.

The compiler writes its own estimate of cycles with each instruction of the scheduled program; the body of a loop
counts as often as the loop turns. These are estimates, not measurements. A kernel has none: its operations, as the
kernel itself states them, are counted with half of the matrix units' rate (heads of 64 fill half of their depth),
VECTOR_STEPS vector operations for each exponential, and the way to memory, whichever takes longest, so that a program
cannot look faster by hiding work in one.
"""

from __future__ import annotations

import collections
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

MOVING = "move"  # the kind of a fusion that computes nothing
_MOVES = re.compile(
  r"parameter|constant|iota|tuple|get-tuple-element|bitcast|broadcast|copy|reshape|transpose|slice|pad|concatenate|"
  r"reverse|dynamic-slice|dynamic-update-slice|reduce-precision"
)
UNKNOWN = 10**12  # the compiler's "I do not know" is 2^63 - 1
VECTOR_STEPS = 16
VECTOR_WIDTH = 4096  # numbers a cycle: four units of 8 x 128 lanes
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_NAME = re.compile(r'op_name="([^"]*)"')
_OPERATION = re.compile(r"= (.*?) ([a-z][a-z\-]*)\(")
_KERNEL = re.compile(r'"cost_estimate":\{"flops":"(\d+)","transcendentals":"(\d+)","bytes_accessed":"(\d+)"')
_CALLED = re.compile(r"(?:calls|to_apply|body|condition)=%?([\w.\-]+)")
_COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_ARRAY = re.compile(r"\b(pred|[a-z]+(\d+)\w*)\[([\d,]*)\]")
_BLOCK = re.compile(r"\bblocks_\d+")
_PART = re.compile(r"\b(towers|heads)\.(\w+)|\b(augmentation|loss|optimizer|momentum)\b")


class Chip(NamedTuple):
  """What a chip can do: bfloat16 operations a second, cycles a second, bytes of memory a second, bytes of memory that
  the compiler grants, bytes a second to and from its neighbours along all axes of the torus."""

  peak: float
  clock: float
  bandwidth: float
  memory: float
  links: float


# By the device's kind. Google's figures; clocks follow from the peak and the number of matrix units; memory is what the
# compiler (libtpu 0.0.42.1) says that there is; links: two or three axes of the specifications in "How to Scale Your
# Model" (jax-ml.github.io/scaling-book), both directions.
CHIPS = {
  "TPU v4": Chip(137.5e12, 1.05e9, 614e9, 15.25 * 2**30, 1.35e11),  # a core: a chip has two
  "TPU v5 lite": Chip(197e12, 1.5e9, 819e9, 15.75 * 2**30, 1.8e11),
  "TPU v5": Chip(459e12, 1.75e9, 2765e9, 95.74 * 2**30, 5.4e11),  # v5p
  "TPU v6 lite": Chip(918e12, 1.75e9, 1640e9, 31.25 * 2**30, 3.6e11),
}


class Instruction(NamedTuple):
  """One instruction of the schedule: its cycles with all turns of its loops, its kind (that of XLA, or MOVING), its
  result, and the name of its source."""

  cycles: float
  kind: str
  result: str
  source: str


class Collective(NamedTuple):
  """Transfers of one kind between devices for one part of a step: how many a step, bytes of their results, and how many
  go on while the device computes."""

  kind: str
  part: str
  count: int
  bytes: int
  hidden: int


def instructions(text: str, chip: Chip) -> list[Instruction]:
  """All instructions with an estimate, of `compiled.as_text()`, the dearest first."""
  computations, entry = _computations(text)
  return sorted(_walk(computations, entry, 1, chip), reverse=True)


def by_source(listed: list[Instruction]) -> list[Instruction]:
  """Those of one source, kind and result as one, the dearest first: the same line of code on the same shapes, in all
  blocks."""
  total = collections.Counter()
  for one in listed:
    total[one._replace(cycles=0, source=_BLOCK.sub("blocks_*", one.source))] += one.cycles
  return [key._replace(cycles=cycles) for key, cycles in total.most_common()]


def copies(listed: Sequence[Instruction]) -> int:
  """How many of `listed` only move an array of some size to another place or layout."""
  return sum(one.kind in ("copy", "copy-start", MOVING) for one in listed)


def part(source: str) -> str:
  """Which part of a step an instruction is of: "towers.image", "heads.image_joint", "loss", "optimizer", ..."""
  found = None
  for found in _PART.finditer(source):
    if found[1] or found[3] in ("augmentation", "momentum", "optimizer"):
      break
  if found is None:
    return "other"
  return f"{found[1]}.{found[2]}" if found[1] else found[3]


def by_part(listed: list[Instruction]) -> dict[str, float]:
  """Cycles of each part, the dearest first."""
  total = collections.Counter()
  for instruction in listed:
    total[part(instruction.source)] += instruction.cycles
  return dict(total.most_common())


def collectives(text: str) -> list[Collective]:
  """Transfers by kind and part, the most bytes first. Bytes are those of results; one in a loop counts as often as the
  loop turns."""
  computations, entry = _computations(text)
  times = collections.Counter()
  _count_turns(computations, entry, 1, times)
  hidden_in = {name for name, lines in computations.items() if any("AsyncCollective" in line for line in lines)}
  channels: dict[tuple[str, str], Collective] = {}  # one that is fused stands in many computations
  for name, lines in computations.items():
    for line in lines:
      operation = _OPERATION.search(line)
      kind = operation[2].removesuffix("-start") if operation else ""
      if kind in _COLLECTIVES:
        channel, source = re.search(r"channel_id=(\d+)", line), _NAME.search(line)
        key = (kind, channel[1] if channel else line)
        before = channels.get(key, Collective(kind, "other", 0, 0, 0))
        hidden = bool(before.hidden) or operation[2].endswith("-start") or name in hidden_in
        turns = max(times[name], before.count)
        where = part(source[1]) if source else before.part
        channels[key] = Collective(kind, where, turns, _bytes_of_result(operation[2], operation[1]), turns * hidden)
  summed: dict[tuple[str, str], Collective] = {}
  for one in channels.values():
    before = summed.get((one.kind, one.part), one._replace(count=0, bytes=0, hidden=0))
    summed[one.kind, one.part] = before._replace(
      count=before.count + one.count, bytes=before.bytes + one.count * one.bytes, hidden=before.hidden + one.hidden
    )
  return sorted(summed.values(), key=lambda one: -one.bytes)


def seconds_waited(transfers: Sequence[Collective], devices: int, chip: Chip) -> float:
  """What transfers that are not hidden take at least: by the rings' formulas at the full rate of a chip's links.

  An all-reduce carries its result twice, a reduce-scatter the whole of what it sums, all others their result once.
  """
  carried = {"all-reduce": 2, "reduce-scatter": devices}
  return sum(
    carried.get(one.kind, 1) * one.bytes * (1 - one.hidden / one.count) / chip.links for one in transfers if one.count
  )


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
  computations, current, entry = {}, None, ""
  for line in text.splitlines():
    if (head := _COMPUTATION.match(line)) and not line.startswith(" "):
      current = computations.setdefault(head[2], [])
      entry = head[2] if head[1] else entry
    elif line.startswith("}"):
      current = None
    elif current is not None:
      current.append(line)
  return computations, entry


def _walk(computations: Mapping[str, list[str]], name: str, times: int, chip: Chip) -> Iterator[Instruction]:
  for line in computations.get(name, ()):
    if " while(" in line:
      body, condition = (re.search(rf"{key}=%?([\w.\-]+)", line)[1] for key in ("body", "condition"))
      yield from _walk(computations, body, times * _turns(computations, condition), chip)
      continue
    cycles = _cycles(line, chip)
    if cycles is not None:
      operation, source = _OPERATION.search(line), _NAME.search(line)
      kind, result = (operation[2], operation[1]) if operation else ("?", "")
      if kind == "fusion" and (called := _CALLED.search(line)) and _only_moves(computations, called[1]):
        kind = MOVING
      yield Instruction(cycles * times, kind, result, source[1] if source else "")
    elif called := re.search(r" (?:call|conditional)\(.*?to_apply=%?([\w.\-]+)", line):
      yield from _walk(computations, called[1], times, chip)


def _only_moves(computations: Mapping[str, list[str]], name: str) -> bool:
  """Whether a fused computation reads an array and writes it elsewhere, and no more."""
  kinds = [(found[2], line) for line in computations.get(name, ()) if (found := _OPERATION.search(line))]
  if all(kind in ("parameter", "constant", "iota", "broadcast", "tuple", "bitcast") for kind, _ in kinds):
    return False  # fills an array
  return all(
    _MOVES.fullmatch(kind)
    or (kind == "fusion" and (called := _CALLED.search(line)) and _only_moves(computations, called[1]))
    for kind, line in kinds
  )


def _cycles(line: str, chip: Chip) -> float | None:
  if kernel := _KERNEL.search(line):
    flops, exponentials, moved = map(int, kernel.groups())
    computed = 2 * flops / chip.peak * chip.clock + exponentials * VECTOR_STEPS / VECTOR_WIDTH
    return max(computed, moved / chip.bandwidth * chip.clock)
  estimate = _CYCLES.search(line)
  return int(estimate[1]) if estimate and int(estimate[1]) < UNKNOWN else None


def _turns(computations: Mapping[str, list[str]], condition: str) -> int:
  """How often a loop turns: the largest constant of its condition."""
  most = 1
  for line in computations.get(condition, ()):
    most = max([most, *map(int, re.findall(r"s32\[\]\S* constant\((\d+)\)", line))])
    for called in re.findall(r"(?:calls|to_apply)=%?([\w.\-]+)", line):
      most = max(most, _turns(computations, called))
  return most


def _count_turns(computations: Mapping[str, list[str]], name: str, times: int, total: collections.Counter) -> None:
  """Adds how often each computation runs in a step."""
  total[name] += times
  for line in computations.get(name, ()):
    turns = 1
    if " while(" in line:
      turns = _turns(computations, re.search(r"condition=%?([\w.\-]+)", line)[1])
    for called in _CALLED.findall(line):
      _count_turns(computations, called, times * turns, total)


def _bytes_of_result(operation: str, result: str) -> int:
  """Of what a transfer brings; those that start one stand for (operands, results, counters)."""
  sizes = _sizes(result)
  if operation in ("all-gather-start", "collective-permute-start"):
    arrays = [size for size in sizes if size > 4]
    sizes = arrays[len(arrays) // 2 :]
  return sum(sizes)


def _sizes(result: str) -> list[int]:
  """Bytes of an array or of each array of a tuple, as a result is written."""
  return [
    math.prod(int(side) for side in shape.split(",") if side) * int(bits or 8) // 8  # of a bool, 8
    for _, bits, shape in _ARRAY.findall(result)
  ]
