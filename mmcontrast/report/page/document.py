"""The page as a whole: what is known of a run and of those that it is compared with, as one HTML file."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

import numpy as np

from mmcontrast.evaluation.embedded_set import EmbeddedSet
from mmcontrast.modalities import MODALITIES
from mmcontrast.report.page import sections
from mmcontrast.report.page.curves import Chart
from mmcontrast.report.page.outcomes import Confusion, Direction
from mmcontrast.report.page.points import Points, captions_of, picture_of, words_of
from mmcontrast.report.page.projection import Gap
from mmcontrast.report.page.sprite import Sprite

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


@dataclasses.dataclass
class Looked:
  """An evaluation set as a run sees it.

  Attributes:
    views: the points in the plane, by what put them there ("PCA", "UMAP"): float [P, 2].
    notes: what could not be shown, and why.
  """

  test: EmbeddedSet
  directions: list[Direction]
  confusions: list[Confusion]
  points: Points
  views: dict[str, np.ndarray]
  gaps: dict[tuple[str, str], Gap]


@dataclasses.dataclass
class Page:
  """All that the page shows; of several runs the first is the one that it is of.

  Attributes:
    title: of the page. facts: what is said of the run, by name. runs: what they are called.
    graph: an SVG element, "" where the graph is not known. notes: of a section's id, what is said there.
  """

  title: str
  facts: Mapping[str, str]
  runs: Sequence[str]
  charts: Sequence[Chart]
  results: Sequence[Mapping[str, sections.Result]]
  configs: Sequence[Mapping[str, Any]]
  graph: str = ""
  looked: Looked | None = None
  notes: dict[str, list[str]] = dataclasses.field(default_factory=dict)


def document(page: Page) -> str:
  """The page as HTML: it asks nothing of any host."""
  sprite = Sprite()
  parts = {
    "results": ("Results", _results(page)),
    "curves": ("Curves", _curves(page)),
    "mixture": ("Mixture", _graph(page)),
    "retrieval": ("Retrieval", _retrieval(page, sprite)),
    "zero_shot": ("Zero-shot", _zero_shot(page)),
    "map": ("Map of embeddings", _map(page)),
    "config": ("Config", _config(page)),
  }
  data = {
    "runs": list(page.runs),
    "charts": [
      {"group": one.group, "title": one.title, "lines": [_line(line) for line in one.lines]} for one in page.charts
    ],
    "map": _map_data(page.looked, sprite) if page.looked and len(page.looked.points.place) else None,
  }
  data |= {"tile": sprite.tile, "columns": sprite.columns}
  sheet = f".tile {{ --tile: {sprite.tile}px; background-image: url({sprite.address()}); }}" if len(sprite) else ""
  links = "".join(f'<li><a href="#{name}">{title}</a></li>' for name, (title, _) in parts.items())
  body = "".join(
    f'<section id="{name}" aria-labelledby="{name}-title"><h2 id="{name}-title">{title}</h2>{_notes(page, name)}{made}'
    "</section>"
    for name, (title, made) in parts.items()
  )
  facts = " · ".join(f"{escape(name)} {escape(value)}" for name, value in page.facts.items())
  return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escape(page.title)}</title>
<link rel="icon" href="data:,">
<style>
{_asset("page.css")}{sheet}
</style>
</head>
<body>
<a class="skip" href="#results">Skip to the results</a>
<header><h1>{escape(page.title)}</h1><p class="note">{facts}</p></header>
<nav aria-label="Sections"><ul>{links}</ul></nav>
<main>{body}</main>
<footer><p class="note">Made by mmcontrast report.</p></footer>
<template id="drawing"><svg></svg></template>
<script type="application/json" id="data">{_json(data)}</script>
<script>
{_asset("page.js")}</script>
</body>
</html>
"""


def _asset(name: str) -> str:
  return (resources.files("mmcontrast.report.page") / name).read_text(encoding="utf-8")


def _json(data: Any) -> str:
  """JSON within a script element: nothing in it ends the element."""
  return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _line(line: Any) -> dict[str, Any]:
  return {"run": line.run, "name": line.name, "x": line.steps, "y": line.values}


def _notes(page: Page, name: str) -> str:
  return "".join(f'<p class="message">{escape(note)}</p>' for note in page.notes.get(name, ()))


def _results(page: Page) -> str:
  known = any(result.interval for one in page.results for result in one.values())
  text = "Per cent, unless said."
  if known:
    text += " In grey: 95 % bootstrap intervals, over concepts."
  if len(page.runs) > 1:
    text += f" A second interval is that of the difference to {escape(page.runs[0])}, in points, drawn pair by pair."
  return f"<p>{text}</p>{sections.results_table(page.runs, page.results)}"


def _curves(page: Page) -> str:
  groups = list(dict.fromkeys(chart.group for chart in page.charts))
  made = ['<div class="controls"><label><input type="checkbox" id="log"> logarithmic scale for losses</label></div>']
  for group in groups:
    grid = f'<div class="charts" data-group="{group}"></div>'
    if group == "everything else":
      made.append(f"<details><summary>{group.capitalize()}</summary>{grid}</details>")
    else:
      made.append(f"<h3>{group.capitalize()}</h3>{grid}")
  return "".join(made)


def _graph(page: Page) -> str:
  if not page.graph:
    return ""
  return (
    "<p>Views go through towers and heads to the terms that compare them; dashed: through the momentum branch too.</p>"
    f'<div class="scroll" tabindex="0" role="region" aria-label="Graph of the mixture">{page.graph}</div>'
  )


def _thing(test: EmbeddedSet, sprite: Sprite, captions: Mapping[int, str], modality: str, place: int) -> str:
  """A thing as HTML: its words, or its tile, which says under the mouse what it shows."""
  words = " ".join(words_of(test, modality, np.array([place]), captions)[0].split())
  if MODALITIES[modality].words:
    return f'<span class="words">{escape(words)}</span>'
  number = sprite.add((modality, place), picture_of(test, modality, place))
  said = f"{MODALITIES[modality].a.partition(' ')[2]} {place}{': ' if words else ''}{words}"
  return (
    f'<span class="tile" role="img" aria-label="{escape(said)}" title="{escape(said)}" data-tile="{number}"></span>'
  )


def _retrieval(page: Page, sprite: Sprite) -> str:
  if page.looked is None:
    return ""
  test, captions = page.looked.test, captions_of(page.looked.test)
  said = f"<p>On {escape(test.name)}, {'trained on' if test.seen else 'held out'}.</p>"
  made = [sections.gallery(one, functools.partial(_thing, test, sprite, captions)) for one in page.looked.directions]
  return said + "".join(made)


def _zero_shot(page: Page) -> str:
  return "".join(sections.confusion_table(one) for one in page.looked.confusions) if page.looked else ""


def _map(page: Page) -> str:
  if page.looked is None or not len(page.looked.points.place):
    return ""
  looked = page.looked
  counts = [(one, looked.points.modality.count(one)) for one in dict.fromkeys(looked.points.modality)]
  said = " and ".join(f"{count:,} {MODALITIES[one].nouns}" for one, count in counts)
  views = "".join(f"<option>{escape(name)}</option>" for name in looked.views)
  colours = '<option value="modality">modality</option>'
  if looked.points.label_name:
    colours += f'<option value="label">{escape(looked.points.label_name)}</option>'
  of = (
    f"<p>{said} of {escape(looked.test.name)}. Point at one, or focus the map and use the arrow keys; "
    "Enter goes to what belongs with it, + and − enlarge, Escape ends.</p>"
  )
  return (
    (sections.gap_table(looked.gaps) if looked.gaps else "") + of + '<div class="controls">'
    f'<label>projection <select id="view">{views}</select></label>'
    f'<label>colour by <select id="colours">{colours}</select></label>'
    '<label>find <input id="find" type="search" placeholder="words of a caption"></label>'
    '<span id="matched" role="status"></span>'
    '<button type="button" id="larger" aria-label="enlarge">+</button>'
    '<button type="button" id="smaller" aria-label="reduce">−</button>'
    '<button type="button" id="whole">all</button></div>'
    f'<div id="plane"><canvas tabindex="0" role="application" aria-label="Map of {escape(said)}" '
    f'data-points="{len(looked.points.place)}"></canvas><div id="shown" hidden></div></div>'
    '<p id="spoken" class="hidden" aria-live="polite"></p><div id="legend"></div>'
  )


def _map_data(looked: Looked, sprite: Sprite) -> dict[str, Any]:
  points, test = looked.points, looked.test
  modalities = list(dict.fromkeys(points.modality))
  tiles = [
    sprite.add((modality, place), picture_of(test, modality, place)) if MODALITIES[modality].pictured else -1
    for modality, place in zip(points.modality, points.place.tolist())
  ]
  # What has no picture shows that of what it belongs with.
  of_concept: dict[int, int] = {}
  for tile, concept in zip(tiles, points.concept.tolist()):
    if tile >= 0:
      of_concept.setdefault(concept, tile)
  tiles = [tile if tile >= 0 else of_concept.get(concept, -1) for tile, concept in zip(tiles, points.concept.tolist())]
  return {
    "modalities": modalities,
    "words_of": [MODALITIES[one].words for one in modalities],
    "modality": [modalities.index(one) for one in points.modality],
    "concept": points.concept.tolist(),
    "words": [" ".join(words.split()) for words in points.words],
    "label": points.label.tolist(),
    "labels": points.names,
    "tile": tiles,
    "views": {name: _placed(at) for name, at in looked.views.items()},
  }


def _placed(at: np.ndarray) -> dict[str, Any]:
  """Points with the lowest at 0 and the longer side 1, and how far they reach."""
  low = at.min(axis=0)
  placed = (at - low) / max(float((at.max(axis=0) - low).max()), 1e-12)
  x, y = (np.round(placed[:, side], 4).tolist() for side in (0, 1))
  return {"x": x, "y": y, "size": np.maximum(placed.max(axis=0), 1e-3).round(4).tolist()}


def _config(page: Page) -> str:
  made = sections.config_difference(page.runs, page.configs) if len(page.configs) > 1 else ""
  for run, config in zip(page.runs, page.configs):
    text = json.dumps(config, indent=1, default=str, ensure_ascii=False)
    made += f"<details><summary>The whole config of {escape(run)}</summary><pre>{escape(text)}</pre></details>"
  return made
