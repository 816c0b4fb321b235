"""A graph as it is stored, JSON, and as it is read: nodes with texts or numbers, edges of named kinds.

    {"nodes": ["a dog", "a wolf"], "edges": [[0, 1, "hypernym"]], "centre": 0}
    {"nodes": {"dog": [0.1, 0.7], "wolf": [0.3, 0.2]}, "edges": [["dog", "wolf"]], "centre": "dog"}

Nodes are a list, and called by their places, or a table, and called by its keys. An edge is [from, to] or
[from, to, kind]. Without a "centre" it is the first node.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

import numpy as np

from mmcontrast.data.record import BadRecord
from mmcontrast.errors import nearest, one_line

_KEYS = ("nodes", "edges", "centre")
_OTHERS = {"links": "edges", "center": "centre", "vertices": "nodes"}
_MOST = 1e300  # JSON has whole numbers that no float holds


class ReadGraph(NamedTuple):
  """A graph of n nodes.

  nodes: their texts, or float32 [n, F].
  edges: int32 [E, 3]: from, to, kind.
  kinds: the names of the kinds.
  """

  nodes: tuple[str, ...] | np.ndarray
  edges: np.ndarray
  centre: int
  kinds: tuple[str, ...]


def read_graph(raw: bytes, kinds: Sequence[str] | None = None) -> ReadGraph:
  """The graph that `raw` says.

  Args:
    kinds: the names that kinds of edges may have; (): all edges are of one, whatever they are called; None: those that
      there are.

  Raises BadRecord for what is none.
  """
  try:
    table = json.loads(raw, object_pairs_hook=_table)
  except BadRecord:
    raise
  except (ValueError, RecursionError) as error:
    raise BadRecord(f"not readable as JSON: {one_line(error)}") from None
  if not isinstance(table, Mapping) or not isinstance(table.get("nodes"), list | Mapping):
    raise BadRecord('not a graph, {"nodes": [...], "edges": [[from, to, kind], ...]}')
  for key in table:
    if key not in _KEYS and (meant := _OTHERS.get(key) or next(iter(get_close_matches(key, _KEYS, 1, 0.7)), "")):
      raise BadRecord(f"a graph has no {one_line(repr(key), 40)}; did you mean {meant!r}?")
  nodes = table["nodes"]
  if not nodes:
    raise BadRecord("a graph without nodes")
  names = list(nodes) if isinstance(nodes, Mapping) else list(range(len(nodes)))
  at = {name: place for place, name in enumerate(names)}
  values = _values(list(nodes.values()) if isinstance(nodes, Mapping) else nodes, names)
  listed = table.get("edges", [])
  if not isinstance(listed, list):
    raise BadRecord(f"edges are {one_line(repr(listed), 40)}, not a list of [from, to] or [from, to, kind]")
  known = {} if kinds is None else {kind: number for number, kind in enumerate(kinds)}
  edges = np.array(
    [_edge(number, edge, at, known, kinds) for number, edge in enumerate(listed)], np.int32
  ).reshape(-1, 3)  # fmt: skip
  centre = _place(table.get("centre", names[0]), at, "the centre is")
  return ReadGraph(values, edges, centre, tuple(known) or ("edge",))


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  """A table of JSON. Raises BadRecord where a key stands twice, for of two such nodes only the last would be left."""
  table = dict(pairs)
  if len(table) < len(pairs):
    twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
    raise BadRecord(f"{one_line(repr(twice), 40)} stands twice in one table")
  return table


def _values(values: list, names: list) -> tuple[str, ...] | np.ndarray:
  """Texts, or numbers: all nodes alike."""
  if all(isinstance(value, str) for value in values):
    return tuple(values)
  first_is_text = isinstance(values[0], str)
  for name, value in zip(names, values):
    if first_is_text and isinstance(value, str):
      continue
    if first_is_text or not isinstance(value, list) or not value or not all(map(_is_number, value)):
      raise BadRecord(f"node {name!r} is {one_line(repr(value), 40)}; nodes are all texts, or all lists of numbers")
    if len(value) != len(values[0]):
      raise BadRecord(f"node {name!r} has {len(value)} numbers, and node {names[0]!r} has {len(values[0])}")
    for place, number in enumerate(value):
      if isinstance(number, float) and not math.isfinite(number):
        raise BadRecord(f"node {name!r} has a feature that is not finite: number {place} is {number}")
  with np.errstate(over="ignore"):
    try:
      found = np.array(values, np.float32)
    except OverflowError:
      found = np.array([[min(max(number, -_MOST), _MOST) for number in value] for value in values], np.float32)
  if not np.isfinite(found).all():
    node, place = np.argwhere(~np.isfinite(found))[0]
    raise BadRecord(
      f"node {names[node]!r} has a feature that no float32 holds: number {place} is {one_line(values[node][place], 40)}"
    )
  return found


def _is_number(value: Any) -> bool:
  return isinstance(value, int | float) and not isinstance(value, bool)


def _edge(number: int, edge: Any, at: Mapping, known: dict[str, int], kinds: Sequence[str] | None) -> tuple:
  if not isinstance(edge, list) or len(edge) not in (2, 3):
    raise BadRecord(f"edge {number} is {one_line(repr(edge), 40)}; give [from, to] or [from, to, kind]")
  ends = [_place(end, at, f"edge {number} names") for end in edge[:2]]
  if kinds is not None and not kinds:
    return (*ends, 0)
  kind = edge[2] if len(edge) == 3 else "edge" if kinds is None else None
  if not isinstance(kind, str):
    raise BadRecord(f"edge {number} is of kind {kind!r}; give one of data.graph.kinds by its name")
  if kinds is None:
    known.setdefault(kind, len(known))
  elif kind not in known:
    raise BadRecord(f"edge {number} is of kind {kind!r}, which is not in data.graph.kinds; {nearest(kind, known)}")
  return (*ends, known[kind])


def _place(name: Any, at: Mapping, what: str) -> int:
  if isinstance(name, bool) or not isinstance(name, int | str) or name not in at:
    by_text = type(name) is int and len(str(name)) < 40 and str(name) in at
    hint = f"; nodes of a table are called by texts, {str(name)!r}" if by_text else ""
    raise BadRecord(
      f"{what} node {one_line(repr(name), 40)}, which is not there; the graph has {len(at)} node{'s' * (len(at) > 1)}"
      f"{hint}"
    )
  return at[name]
