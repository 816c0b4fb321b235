"""What metrics.jsonl says, as charts: lines over steps, of one run or of several side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

_MOST = 400  # points of a line that are drawn, about
_LINES = 8  # lines of a chart
_USUAL = {
  "learning_rate": "learning rate",
  "gradient_norm": "gradient norm",
  "examples_per_second": "examples a second",
  "data_wait": "share of the time spent waiting for data",
}
_GROUPS = {"temperature": "temperatures", "top1": "top-1 accuracy in the batch", "weight": "weights of terms"}


class Line(NamedTuple):
  """A metric of a run: values float [P] at steps int [P]."""

  run: int
  name: str
  steps: list[int]
  values: list[float]


class Chart(NamedTuple):
  """Lines that share an axis. `group`: the heading that it stands under."""

  group: str
  title: str
  lines: list[Line]


def charts(runs: Sequence[Sequence[Mapping[str, Any]]]) -> list[Chart]:
  """The charts of one run or of several.

  The total loss and each term's loss have a chart each; temperatures, accuracies and weights share one; rates come
  next; evaluations, which have names of three parts, after them; whatever else was written is last.

  Args:
    runs: of each run the records of its metrics.jsonl: {"step": 10, "loss": 3.2}; null is not finite, and left out.
  """
  names = dict.fromkeys(name for records in runs for record in records for name in record if name != "step")
  wanted: dict[tuple[str, str], list[str]] = {}
  for name in names:
    wanted.setdefault(_place(name), []).append(name)
  made = []
  for (group, title), members in wanted.items():
    for start in range(0, len(members), _LINES):
      part = members[start : start + _LINES]
      lines = [line for name in part for run, records in enumerate(runs) if (line := _line(run, name, records))]
      if lines:
        made.append(Chart(group, title, lines))
  order = ["losses", "temperatures and weights", "rates", "evaluation", "everything else"]
  return sorted(made, key=lambda chart: (order.index(chart.group), chart.title != "loss"))


def _place(name: str) -> tuple[str, str]:
  """(group, title) of the chart that a metric is drawn in."""
  if name == "loss" or name.endswith("/loss"):
    return "losses", name
  if name in _USUAL:
    return "rates", _USUAL[name]
  head, _, last = name.rpartition("/")
  if "/" in head:
    return "evaluation", f"{head.partition('/')[2]}: {last}".replace("_", " ")
  if head and last in _GROUPS:
    return "temperatures and weights", _GROUPS[last]
  return "everything else", f"{last} of terms" if head else name


def _line(run: int, name: str, records: Sequence[Mapping[str, Any]]) -> Line | None:
  points = [(record["step"], record[name]) for record in records if record.get(name) is not None]
  if not points:
    return None
  kept = thinned(np.array([value for _, value in points], np.float64))
  steps, values = zip(*(points[place] for place in kept))
  return Line(run, name, list(steps), [float(f"{value:.6g}") for value in values])


def thinned(values: np.ndarray, most: int = _MOST) -> np.ndarray:
  """int [P]: which of the values [N] to draw, of many about `most`: of each stretch the lowest and the highest, so that
  no spike is lost, and the first and the last of all."""
  if len(values) <= most:
    return np.arange(len(values))
  kept = {0, len(values) - 1}
  for part in np.array_split(np.arange(len(values)), most // 2):
    kept |= {int(part[values[part].argmin()]), int(part[values[part].argmax()])}
  return np.array(sorted(kept))
