"""The table of `mmcontrast benchmark`: JSON with everything, CSV a row a metric, Markdown a row a set."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from typing import Any

from mmcontrast import folders
from mmcontrast.evaluation.protocols import names_in
from mmcontrast.evaluation.protocols.outcomes import NO_SHARE


def written(folder: folders.Folder, stem: str, table: Mapping[str, Any]) -> list[folders.Folder]:
  """Writes `stem`.json, .csv and .md into `folder`; returns their paths."""
  texts = {".json": json.dumps(table, indent=1) + "\n", ".csv": as_csv(table), ".md": as_markdown(table)}
  paths = []
  for suffix, text in texts.items():
    with folders.written(folder / f"{stem}{suffix}") as path:
      path.write_text(text, encoding="utf-8", newline="")
    paths.append(folder / f"{stem}{suffix}")
  return paths


def as_csv(table: Mapping[str, Any]) -> str:
  """A row a metric of a set, fractions; of two runs with the second's, their difference and its interval."""
  out = io.StringIO()
  two = len(table["runs"]) > 1
  rows = csv.writer(out, lineterminator="\n")
  rows.writerow(
    ["set", "metric", "value", "main", "examples", *(("compared", "difference", "low", "high") if two else ())]
  )
  for name, row in table["sets"].items():
    for metric, value in row["metrics"].items():
      more = []
      if two:
        difference = row["difference"].get(metric, [value - row["compared"]["metrics"][metric], "", ""])
        more = [row["compared"]["metrics"][metric], *difference]
      rows.writerow([name, metric, value, int(metric == row["main_metric"]), row["examples"], *more])
  return out.getvalue()


def as_markdown(table: Mapping[str, Any]) -> str:
  """A row a set, per cent."""
  two = len(table["runs"]) > 1
  run = table["runs"][0]
  lines = [
    f"# {table['suite']}, {table['split']}",
    "",
    f"Protocol {_protocols(table)}; {_run(run)}" + (f"; compared with {_run(table['runs'][1])}" if two else "") + ".",
    _unit(table) + (" Difference: the first minus the second, with 95 % of a paired bootstrap." if two else ""),
    "",
    "| set | pictures | metric | value |" + (" compared | difference |" if two else ""),
    "|---|---|---|---|" + ("---|---|" if two else ""),
  ]
  for name, row in table["sets"].items():
    lines.append(_line(name, row, row["main_metric"], two, f"**{row['main_metric']}**"))
    lines += [_line("", row, metric, two, metric) for metric in row["metrics"] if metric != row["main_metric"]]
  return "\n".join([*lines, "", *_closing(table)]) + "\n"


def _unit(table: Mapping[str, Any]) -> str:
  found = [one for one in NO_SHARE if any(one in row["metrics"] for row in table["sets"].values())]
  return f"Per cent, but for {' and '.join(found)}." if found else "Per cent."


def _protocols(table: Mapping[str, Any]) -> str:
  return ", ".join(names_in({name: row["protocol"] for name, row in table["sets"].items()}))


def _run(run: Mapping[str, Any]) -> str:
  return f"{run['workdir']}, step {run['step']}"


def _line(name: str, row: Mapping[str, Any], metric: str, two: bool, called: str) -> str:
  left_out = f" ({row['left_out']} left out)" if row["left_out"] else ""
  cells = [name, f"{row['examples']:,}{left_out}" if name else "", called, _number(row["metrics"].get(metric), metric)]
  if two:
    cells.append(_number(row["compared"]["metrics"].get(metric), metric))
    found = row["difference"].get(metric)
    first, low, high = (_times(metric) * one for one in found) if found else (0, 0, 0)
    cells.append(f"{first:+.2f} ({low:+.2f} to {high:+.2f})" if found else "")
  return f"| {' | '.join(cells)} |"


def _number(value: float | None, metric: str) -> str:
  return "not measured" if value is None else f"{_times(metric) * value:.2f}"


def _times(metric: str) -> int:
  return 1 if metric in NO_SHARE else 100


def _closing(table: Mapping[str, Any]) -> list[str]:
  average, missing = table["average"], table["datacomp"]["missing"]
  lines = []
  if average["main"] is not None:
    compared = f" ({100 * average['compared']:.2f} the other)" if "compared" in average else ""
    lines.append(f"Mean of the main metric over {len(average['sets'])} sets: {100 * average['main']:.2f}{compared}.")
  if table["without_main"]:
    lines.append(f"Not in it, since their main metric is not measured: {', '.join(table['without_main'])}.")
  if table["left_by_sets"]:
    lines.append(f"Not asked for (--sets), and not in it: {', '.join(table['left_by_sets'])}.")
  if missing:
    lines.append(
      f"It is no DataComp average: {table['datacomp']['sets']} of its {table['datacomp']['of']} sets; missing: "
      f"{', '.join(missing)}."
    )
  elif missing is not None:
    lines.append(f"DataComp's {table['datacomp']['of']} sets are all there.")
  return lines
