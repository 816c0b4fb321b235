"""The table of results for the terminal: a row a metric, a column a dataset, trained on or held out."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table

_NOT_SHOWN = ("queries", "candidates", "tags", "tags_left_out", "l2", "described", "tokens", "texts", "pairs",
              "layers_of_one", "layers_of_other", "examples")  # fmt: skip
_NOT_SHOWN_ENDS = ("_l2", "_classes")
_LABELS = {True: "trained on", False: "held out"}
_NOT_A_FRACTION = (
  *("gap", "alignment", "uniformity_one", "uniformity_other", "cosine_of_pairs", "cosine_of_others"),
  *("layer_of_one", "layer_of_other"),
  *("median_rank", "mean_rank", "cider_d", "of_a_token"),
)


def table(results: Mapping[str, float], seen: Mapping[str, bool]) -> Table:
  """The flat results of `run_suite` as a table; fractions in per cent, counts left out.

  Args:
    results: {"dataset/task/metric": value}.
    seen: dataset -> whether the run trained on it, or on some of it.
  """
  cells: dict[tuple[str, str], dict[str, float]] = {}
  for name, value in results.items():
    dataset, task, metric = name.split("/", 2)
    if shown_metric(metric):
      cells.setdefault((task, metric), {})[dataset] = value
  datasets = list(dict.fromkeys(name.split("/", 1)[0] for name in results))
  out = Table(title="Results (per cent unless said)", title_justify="left", header_style="bold")
  out.add_column("task")
  out.add_column("metric")
  for dataset in datasets:
    out.add_column(f"{dataset}\n{_LABELS.get(seen.get(dataset), '')}", justify="right")
  previous = None
  for (task, metric), values in cells.items():
    if previous not in (None, task):
      out.add_section()
    words = metric.replace("_", " ")
    row = [number(metric, values[d]) if d in values else "-" for d in datasets]
    out.add_row("" if task == previous else task.replace("_", " "), words, *row)
    previous = task
  return out


def show(results: Mapping[str, float], seen: Mapping[str, bool], file: TextIO | None = None) -> str:
  """Prints the table, in plain ASCII when `file` is not a terminal; returns the plain text."""
  file = sys.stdout if file is None else file
  plain = Console(file=io.StringIO(), width=120, force_terminal=False, color_system=None)
  made = table(results, seen)
  if file.isatty():
    Console(file=file).print(made)
  made.box = box.ASCII2
  plain.print(made)
  text = plain.file.getvalue()
  if not file.isatty():
    file.write(text)
  return text


def shown_metric(metric: str) -> bool:
  """Whether a metric is a score, and no count of what it is of."""
  return metric not in _NOT_SHOWN and not metric.endswith(_NOT_SHOWN_ENDS)


def number(metric: str, value: float) -> str:
  """A score as it is written in tables: in per cent where it is a fraction."""
  return f"{value:,.4g}" if metric in _NOT_A_FRACTION else f"{100 * value:.1f}"
