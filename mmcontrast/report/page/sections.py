"""The parts of the page that are plain HTML: results, confusions, galleries, configs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from mmcontrast.modalities import MODALITIES
from mmcontrast.report.page.outcomes import Confusion, Direction, Found, Query
from mmcontrast.report.page.projection import Gap
from mmcontrast.report.table import number, shown_metric


class Result(NamedTuple):
  """A metric of a run: its value, the interval of it, and that of its difference to the first run; None: not known."""

  value: float
  interval: tuple[float, float] | None = None
  difference: tuple[float, float] | None = None


def results_table(runs: Sequence[str], results: Sequence[Mapping[str, Result]]) -> str:
  """A row a metric ("emoji_noto/image_to_text/recall@1"), a column a run, fractions in per cent; counts left out."""
  names = [name for name in dict.fromkeys(name for one in results for name in one) if name.count("/") >= 2]
  names = [name for name in names if shown_metric(name.split("/", 2)[2])]
  if not names:
    return "<p>No results yet: <code>mmcontrast evaluate</code> makes them.</p>"
  head = "".join(f'<th scope="col">{escape(run)}</th>' for run in runs)
  rows, before = [], None
  known = {name for one in results for name, result in one.items() if result.interval}
  sets = list(dict.fromkeys(name.partition("/")[0] for name in names))
  # Within a set first what has an interval: what the run is trained for.
  tasks = {name.split("/", 2)[1] for name in known}
  for name in sorted(names, key=lambda name: (sets.index(name.split("/")[0]), name.split("/")[1] not in tasks)):
    dataset, task, metric = name.split("/", 2)
    if dataset != before:
      rows.append(f'<tr class="set"><th scope="rowgroup" colspan="{2 + len(runs)}">{escape(dataset)}</th></tr>')
    before = dataset
    cells = "".join(_cell(metric, one.get(name)) for one in results)
    rows.append(f'<tr><th scope="row">{_words(task)}</th><td>{_words(metric)}</td>{cells}</tr>')
  return (
    f'<div class="scroll" tabindex="0" role="region" aria-label="Table of results"><table><thead><tr><th scope="col">'
    f'task</th><th scope="col">metric</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
  )


def _words(name: str) -> str:
  return escape(name.replace("_", " "))


def _cell(metric: str, result: Result | None) -> str:
  if result is None:
    return '<td class="number">–</td>'
  said = number(metric, result.value)
  if result.interval:
    low, high = (number(metric, one) for one in result.interval)
    said += f' <span class="interval">{low} to {high}</span>'
  if result.difference:
    low, high = result.difference
    sure = "better" if low > 0 else "worse" if high < 0 else "level"
    said += f' <span class="interval {sure}">{100 * low:+.1f} to {100 * high:+.1f}</span>'
  return f'<td class="number">{said}</td>'


def gap_table(gaps: Mapping[tuple[str, str], Gap]) -> str:
  """The distance between modalities, and the cosines within and across concepts."""
  rows = "".join(
    f'<tr><th scope="row">{escape(one)} and {escape(other)}</th>'
    + "".join(f'<td class="number">{"–" if math.isnan(value) else f"{value:.3f}"}</td>' for value in gap)
    + "</tr>"
    for (one, other), gap in gaps.items()
  )
  return (
    '<table id="gap"><thead><tr><th scope="col">modalities</th><th scope="col">modality gap</th><th scope="col">mean '
    'cosine of a pair</th><th scope="col">of what is no pair</th></tr></thead><tbody>' + rows + "</tbody></table>"
  )


def confusion_table(found: Confusion) -> str:
  """Rows: the class; columns: what it was taken for; a cell is darker the larger its share of the row."""
  total = found.counts.sum(axis=1, keepdims=True).clip(min=1)
  head = "".join(f'<th scope="col"><span>{escape(name)}</span></th>' for name in found.names)
  rows = []
  for name, counts, shares in zip(found.names, found.counts.tolist(), (found.counts / total).tolist()):
    cells = "".join(
      f'<td style="--share:{share:.3f}"{" class=right" if other == name else ""} title="{escape(name)} taken for '
      f'{escape(other)}: {count} ({share:.0%})">{count or ""}</td>'
      for other, count, share in zip(found.names, counts, shares)
    )
    rows.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
  caption = f"{found.label}: rows are the classes, columns what they were taken for"
  return (
    f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table class="confusion"><caption>'
    f"{escape(caption)}</caption><thead><tr><td></td>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
  )


Show = Callable[[str, int], str]
"""(modality, place) -> a thing as HTML."""


def gallery(found: Direction, show: Show) -> str:
  """Hits, then misses, of one direction."""
  hits, total = int((found.rank == 1).sum()), len(found.rank)
  asked, given = (MODALITIES[one].a.partition(" ")[2] for one in (found.query, found.gallery))
  title = f"{asked.capitalize()} to {given}"
  parts = [
    f"<h3>{escape(title)}</h3><p>{hits:,} of {total:,} queries bring up a right one first ({hits / total:.1%}). "
    "Drawn at random.</p>"
  ]
  for name, queries in (("hits", found.hits), ("misses", found.misses)):
    listed = "".join(_query(found, query, show) for query in queries) or f"<li>There are no {name}.</li>"
    parts.append(f'<h4>{name.capitalize()}</h4><ol class="queries {name}">{listed}</ol>')
  return f'<section class="direction" data-way="{found.query}_to_{found.gallery}">{"".join(parts)}</section>'


def _query(direction: Direction, query: Query, show: Show) -> str:
  found = "".join(_found(direction.gallery, one, show) for one in query.found)
  listed = " listed" if MODALITIES[direction.gallery].words else ""
  return (
    f'<li class="query" data-rank="{query.rank}"><div class="asked">{show(direction.query, query.place)}'
    f'<p class="rank">right one: rank {query.rank:,}</p></div><ol class="found{listed}">{found}</ol></li>'
  )


def _found(modality: str, one: Found, show: Show) -> str:
  mark = "right" if one.right else "wrong"
  return (
    f'<li class="{mark}">{show(modality, one.place)}<p class="rank">{one.rank:,} · {one.score:.3f}'
    f'{" ✓" if one.right else ""}<span class="hidden"> {mark}</span></p></li>'
  )


def flat(config: Mapping[str, Any], before: str = "") -> dict[str, str]:
  """A config as "towers.image.width" -> what is written there, as JSON."""
  found: dict[str, str] = {}
  for key, value in config.items():
    name = f"{before}{key}"
    if isinstance(value, Mapping) and value:
      found |= flat(value, f"{name}.")
    else:
      found[name] = json.dumps(value, default=str, ensure_ascii=False)
  return found


def config_difference(runs: Sequence[str], configs: Sequence[Mapping[str, Any]]) -> str:
  """The keys in which runs differ, a column a run."""
  flats = [flat(config) for config in configs]
  keys = [key for key in sorted({*(key for one in flats for key in one)}) if len({one.get(key) for one in flats}) > 1]
  if not keys:
    return "<p>The configs are the same.</p>"
  head = "".join(f'<th scope="col">{escape(run)}</th>' for run in runs)
  rows = "".join(
    f'<tr><th scope="row"><code>{escape(key)}</code></th>'
    + "".join(f"<td><code>{escape(one[key]) if key in one else '–'}</code></td>" for one in flats)
    + "</tr>"
    for key in keys
  )
  return (
    '<div class="scroll" tabindex="0" role="region" aria-label="Keys in which the configs differ"><table '
    f'id="difference"><thead><tr><th scope="col">config</th>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
  )
