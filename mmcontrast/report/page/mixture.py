"""The mixture of a run as a graph: views, towers, heads and terms, in columns from left to right, as SVG."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, NamedTuple

from mmcontrast.models.model import Model
from mmcontrast.objectives.embedding_path import Source, parse_embedding
from mmcontrast.objectives.terms import parse_terms

_COLUMNS = ("view", "tower", "head", "term")
_WIDTH, _HEIGHT, _GAP, _LINE = 170, 40, 90, 60  # of a box, between columns, from box to box; pixels


class Node(NamedTuple):
  """A box. `column`: how far to the right; `kind`: one of "view", "tower", "head", "term"."""

  kind: str
  name: str
  said: str
  column: int


class Graph(NamedTuple):
  """Boxes by "kind name", and the edges between them: (from, to) -> what is said of one, "momentum" or ""."""

  nodes: dict[str, Node]
  edges: dict[tuple[str, str], str]


def graph_of(config: Mapping[str, Any], model: Model) -> Graph:
  """The graph of a run: each tower reads views or other towers, each head a tower or a head, each term heads."""
  nodes: dict[str, Node] = {}
  edges: dict[tuple[str, str], str] = {}
  depths = {tower: _depth(model, tower) for tower in model.towers}
  deepest = max(depths.values(), default=0)
  for tower, options in config["towers"].items():
    nodes[f"tower {tower}"] = Node("tower", tower, _tower_said(tower, options, model), 1 + depths[tower])
    for read in model.reads.get(tower, ()):
      edges[f"tower {read}", f"tower {tower}"] = ""
  head_depths = {head: _head_depth(model, head) for head in model.heads}
  for head, options in config["heads"].items():
    nodes[f"head {head}"] = Node("head", head, _head_said(options), 2 + deepest + head_depths[head])
    read = model.head_of_head.get(head)
    edges[f"head {read}" if read else f"tower {model.tower_of_head[head]}", f"head {head}"] = ""
  last = 3 + deepest + max(head_depths.values(), default=0)
  for name, term in parse_terms(config["objective"]).items() if config["objective"] else ():
    nodes[f"term {name}"] = Node("term", name, _term_said(config["objective"][name]), last)
    for path in map(parse_embedding, term.embeddings):
      edge = f"head {path.head}", f"term {name}"
      edges[edge] = edges.get(edge, "") or ("momentum" if path.momentum else "")
      for leaf, tower in _views(path.source, model.tower_of_head[path.head], model):
        view = f"{leaf.views}[{leaf.view}]"
        nodes.setdefault(f"view {view}", Node("view", view, leaf.modality, 0))
        edges[f"view {view}", f"tower {tower}"] = ""
  return Graph(nodes, edges)


def _views(source: Source, tower: str, model: Model) -> Iterator[tuple[Source, str]]:
  """The views at the ends of what a tower reads, each with the tower that encodes it."""
  if not source.inputs:
    yield source, tower
  for inner, read in zip(source.inputs, model.reads.get(tower, ())):
    yield from _views(inner, read, model)


def _tower_said(tower: str, options: Mapping[str, Any], model: Model) -> str:
  """What kind of tower it is, or whose parameters it takes; whether it learns."""
  kind = f"same as {model.same_as[tower]}" if tower in model.same_as else str(options["name"])
  return f"{kind}, frozen" if f"towers/{tower}" in model.frozen else kind


def _depth(model: Model, tower: str) -> int:
  return 1 + max(_depth(model, read) for read in model.reads[tower]) if tower in model.reads else 0


def _head_depth(model: Model, head: str) -> int:
  return 1 + _head_depth(model, model.head_of_head[head]) if head in model.head_of_head else 0


def _head_said(options: Mapping[str, Any]) -> str:
  return f"{options['name']}, {options['dim']}" if options.get("dim") else str(options["name"])


def _term_said(options: Mapping[str, Any]) -> str:
  """What kind of term it is, and its weight where that is not 1."""
  kind = next((_name(options[key]) for key in ("module", "regularizer", "auxiliary") if options.get(key)), "")
  if not kind:
    kind = f"{_name(options.get('score', 'cosine'))}, {_name(options.get('criterion', 'softmax'))}"
  weight = options.get("weight", 1)
  return kind if weight == 1 else f"{kind}, weight {weight if not isinstance(weight, Mapping) else 'scheduled'}"


def _name(option: Any) -> str:
  return str(option.get("name", "")) if isinstance(option, Mapping) else str(option)


def draw_graph(graph: Graph) -> str:
  """The graph as an SVG element, whose colours are those of the page (classes `node-tower`, `edge`, ...)."""
  columns: dict[int, list[str]] = {}
  for key, node in graph.nodes.items():
    columns.setdefault(node.column, []).append(key)
  order = sorted(columns)
  rows = max(map(len, columns.values()), default=1)
  place: dict[str, tuple[float, float]] = {}
  for number, column in enumerate(order):
    middle: dict[str, float] = {}  # of what leads to a box: boxes that are close cross fewer lines
    for key in columns[column]:
      before = [place[one][1] for one, other in graph.edges if other == key and one in place]
      middle[key] = sum(before) / len(before) if before else 0.0
    members = sorted(columns[column], key=lambda key: middle[key])
    top = (rows - len(members)) * _LINE / 2
    for row, key in enumerate(members):
      place[key] = number * (_WIDTH + _GAP) + 1, top + row * _LINE + 1
  width, height = len(order) * (_WIDTH + _GAP) - _GAP + 2, rows * _LINE - (_LINE - _HEIGHT) + 2
  parts = [
    f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-labelledby="graph-title">',
    '<title id="graph-title">Views, towers, heads and terms of the run, and what each reads</title>',
  ]
  for (one, other), said in graph.edges.items():
    (x0, y0), (x1, y1) = place[one], place[other]
    x0, y0, y1 = x0 + _WIDTH, y0 + _HEIGHT / 2, y1 + _HEIGHT / 2
    bend = (x0 + x1) / 2
    parts.append(
      f'<path class="edge{" " + said if said else ""}" '
      f'd="M{x0:g} {y0:g}C{bend:g} {y0:g} {bend:g} {y1:g} {x1:g} {y1:g}">'
      f"<title>{escape(f'{one} to {other}' + (f' ({said} branch)' if said else ''))}</title></path>"
    )
  for key, node in graph.nodes.items():
    x, y = place[key]
    said = escape(f"{key}: {node.said}")
    parts.append(
      f'<g class="node-{node.kind}"><title>{said}</title><rect x="{x:g}" y="{y:g}" width="{_WIDTH}" height="{_HEIGHT}" '
      f'rx="6"/><text x="{x + 10:g}" y="{y + 16:g}">{escape(_short(node.name))}</text>'
      f'<text class="small" x="{x + 10:g}" y="{y + 32:g}">{escape(_short(node.said, 28))}</text></g>'
    )
  return "".join([*parts, "</svg>"])


def _short(words: str, most: int = 22) -> str:
  return words if len(words) <= most else words[: most - 1] + "…"
