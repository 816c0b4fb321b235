"""The losses of a run over its steps, as a picture."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from mmcontrast import folders
from mmcontrast.report.canvas import GREY, INK

_MOST = 8  # terms with a line of their own


def draw_losses(records: Sequence[Mapping[str, Any]], path: str | pathlib.Path) -> folders.Folder | None:
  """Draws what metrics.jsonl says of the losses into a PNG; nothing, and None, when it says nothing.

  The loss is one line, and each term another where there are several.
  """
  names = list(dict.fromkeys(name for record in records for name in record))
  terms = [name for name in names if name.endswith("/loss")]
  shown = ["loss", *(terms[:_MOST] if len(terms) > 1 else [])]
  lines = {
    name: [(record["step"], record[name]) for record in records if record.get(name) is not None] for name in shown
  }
  if not lines["loss"]:
    return None
  figure = Figure(figsize=(7, 4), layout="constrained")
  axes = figure.add_subplot()
  for name, points in lines.items():
    steps, values = zip(*points) if points else ((), ())
    style = {"color": INK, "linewidth": 2} if name == "loss" else {"linewidth": 1}
    axes.plot(steps, values, label=name.removesuffix("/loss"), marker="." if len(points) < 3 else None, **style)
  axes.set_xlabel("step", color=GREY)
  axes.set_ylabel("loss", color=GREY)
  axes.spines[["top", "right"]].set_visible(False)
  axes.grid(alpha=0.3)
  if len(lines) > 1:
    axes.legend(frameon=False, fontsize=8)
  path = folders.at(path, "losses.png")
  with folders.written(path) as file:
    figure.savefig(file, dpi=120, format="png")
  return path
