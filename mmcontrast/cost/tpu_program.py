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
from collections.abc import Iterator, Mapping
from typing import NamedTuple

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
_PART = re.compile(r"\b(towers|heads)\.(\w+)|\b(augmentation|loss|optimizer|momentum)\b")


class Chip(NamedTuple):
  """What a chip can do: bfloat16 operations a second, cycles a second, bytes of memory a second."""

  peak: float
  clock: float
  bandwidth: float


CHIPS = {  # by the device's kind. Google's figures; clocks follow from the peak and the number of matrix units.
  "TPU v4": Chip(137.5e12, 1.05e9, 614e9),  # a core: a chip has two
  "TPU v5 lite": Chip(197e12, 1.5e9, 819e9),
  "TPU v5": Chip(459e12, 1.75e9, 2765e9),  # v5p
  "TPU v6 lite": Chip(918e12, 1.75e9, 1640e9),
}


class Instruction(NamedTuple):
  """One instruction of the schedule: its cycles with all turns of its loops, its result, and the name of its source."""

  cycles: float
  kind: str
  result: str
  source: str


class Collective(NamedTuple):
  """Transfers of one kind between devices: how many a step, bytes of their results, and how many go on while the
  device computes."""

  count: int
  bytes: int
  hidden: int


def instructions(text: str, chip: Chip) -> list[Instruction]:
  """All instructions with an estimate, of `compiled.as_text()`, the dearest first."""
  computations, entry = _computations(text)
  return sorted(_walk(computations, entry, 1, chip), reverse=True)


def by_source(listed: list[Instruction]) -> list[Instruction]:
  """Those of one source, kind and result as one, the dearest first: the same line of code on the same shapes."""
  total = collections.Counter()
  for one in listed:
    total[one._replace(cycles=0)] += one.cycles
  return [key._replace(cycles=cycles) for key, cycles in total.most_common()]


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


def collectives(text: str) -> dict[str, Collective]:
  """Transfers by kind. Bytes are those of results; one in a loop counts as often as the loop turns."""
  computations, entry = _computations(text)
  times = collections.Counter()
  _count_turns(computations, entry, 1, times)
  hidden_in = {name for name, lines in computations.items() if any("AsyncCollective" in line for line in lines)}
  found: dict[tuple[str, str], tuple[int, int, bool]] = {}
  for name, lines in computations.items():
    for line in lines:
      operation = _OPERATION.search(line)
      kind = operation[2].removesuffix("-start") if operation else ""
      if kind in _COLLECTIVES:
        channel = re.search(r"channel_id=(\d+)", line)
        key = (kind, channel[1] if channel else line)
        before = found.get(key, (0, 0, False))
        found[key] = (
          max(times[name], before[0]),
          _bytes(operation[1]),
          before[2] or operation[2].endswith("-start") or name in hidden_in,
        )
  summed: dict[str, Collective] = {}
  for (kind, _), (turns, size, asynchronous) in found.items():
    before = summed.get(kind, Collective(0, 0, 0))
    summed[kind] = Collective(before.count + turns, before.bytes + turns * size, before.hidden + turns * asynchronous)
  return summed


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
      yield Instruction(
        cycles * times,
        operation[2] if operation else "?",
        operation[1] if operation else "",
        source[1] if source else "",
      )
    elif called := re.search(r" (?:call|conditional)\(.*?to_apply=%?([\w.\-]+)", line):
      yield from _walk(computations, called[1], times, chip)


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


def _bytes(result: str) -> int:
  """Of an array or of a tuple of arrays, as a result is written."""
  sizes = [
    math.prod(int(side) for side in shape.split(",") if side) * int(bits or 8) // 8  # of a bool, 8
    for _, bits, shape in _ARRAY.findall(result)
  ]
  return sum(sizes)
