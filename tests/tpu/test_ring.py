"""The ring of the global matrix in a program that was compiled for a TPU: blocks travel while tiles are computed."""

import re
import sys

import pytest
from test_pages import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
from matrix_precision import compile_loss

from mmcontrast.cost import tpu_program, tpu_slice


@pytest.fixture(scope="module")
def programs():
  devices = tpu_slice.slice_devices("v5e:2x4")
  return {precision: compile_loss(devices, 8192, 128, 512, precision) for precision in ("highest", "high")}


def _between(lines):
  """What stands between the first start and the first end of a transfer in a schedule."""
  starts = [i for i, line in enumerate(lines) if " collective-permute-start(" in line]
  ends = [i for i, line in enumerate(lines) if " collective-permute-done(" in line]
  return lines[starts[0] + 1 : ends[0]] if starts and ends else []


def test_tiles_are_computed_between_start_and_end_of_a_transfer(programs):
  """In the loop over the stops of the ring, forward and backward."""
  computations, _ = tpu_program._computations(programs["highest"].as_text())
  loops = [lines for lines in computations.values() if any(" collective-permute-start(" in line for line in lines)]
  with_tiles = [lines for lines in loops if any(re.search(r" while\(| fusion\(", line) for line in _between(lines))]
  assert len(with_tiles) >= 2
  assert all(line.count("collective-permute(") == 0 for lines in computations.values() for line in lines)


def test_a_lower_precision_takes_fewer_cycles(programs):
  chip = tpu_program.CHIPS["TPU v5 lite"]
  cycles = {
    name: sum(one.cycles for one in tpu_program.instructions(program.as_text(), chip))
    for name, program in programs.items()
  }
  assert cycles["high"] < cycles["highest"]
