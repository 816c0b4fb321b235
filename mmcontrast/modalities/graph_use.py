"""Graphs in use: taken from tables, from files and from outside, told and put into batches."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmcontrast.data.record import BadRecord
from mmcontrast.errors import UserError, one_line
from mmcontrast.modalities.graph_reading import read_graph
from mmcontrast.modalities.use import InUse, as_list


class GraphsInUse(InUse):
  """Raw: the bytes of a JSON file (graph_reading.py). From outside: a path, such bytes, or the table itself."""

  field = "graph"
  suffixes = (".graph",)  # JSON; of that name, what crawlers leave beside images would be taken for graphs
  taken = 'give a path or the bytes of a JSON file, or a table {"nodes": [...], "edges": [[from, to, kind], ...]}'

  def raw_of(self, value: Any, column: str, row: Mapping[str, Any], options: Mapping[str, Any]) -> bytes | None:
    if not isinstance(value, Mapping) or "nodes" not in value:
      return value.encode() if isinstance(value, str) and value.lstrip()[:1] == "{" else None
    try:
      return _table(value)
    except (TypeError, ValueError) as error:
      raise BadRecord(f"column {column!r}: not a graph: {one_line(error)}") from None

  def many(self, things: Any, where: str) -> list:
    return [things] if self.takes(things) else as_list(things, where, f"not {self.a}", self.taken)

  def takes(self, thing: Any) -> bool:
    return isinstance(thing, Mapping) or super().takes(thing)

  def file_of(self, thing: Any, name: str) -> bytes:
    if not isinstance(thing, Mapping):
      return super().file_of(thing, name)
    try:
      return _table(thing)
    except (TypeError, ValueError) as error:
      raise UserError(f"{name}: not a graph: {one_line(error)}; {self.taken}") from None

  def batch(self, values: Sequence, settings: Mapping, tokenizer: Any) -> dict[str, np.ndarray]:
    """The arrays of one view of N graphs."""
    if isinstance(values, Mapping):
      return dict(values)
    rows = np.stack(list(values))
    return {name: rows[name] for name in rows.dtype.names}

  def described(self, records: Sequence[Sequence[bytes]]) -> str:
    found = [raw for things in records for raw in things]
    if not found:
      return f"none in {len(records)} records"
    nodes, edges, kinds, bad = [], [], {}, 0
    for raw in found:
      try:
        graph = read_graph(raw)
      except BadRecord:
        bad += 1
        continue
      nodes.append(len(graph.nodes))
      edges.append(len(graph.edges))
      kinds |= dict.fromkeys(graph.kinds)
    text = f"{len(found)} of {len(records)} records; {sum(map(len, found)) / len(found) / 1024:.1f} KiB each"
    for name, counts in (("nodes", sorted(nodes)), ("edges", sorted(edges))):
      if counts:
        text += f"; {counts[0]} / {counts[len(counts) // 2]} / {counts[-1]} {name}"
    text += f" (least / median / most); kinds {', '.join(sorted(kinds))}" if nodes else ""
    return text + (f"; NOT READABLE {bad}" if bad else "")

  def describe(self, raw: bytes) -> str:
    try:
      graph = read_graph(raw)
    except BadRecord as error:
      return f"NOT READABLE: {error}"
    centre = f", about {graph.nodes[graph.centre]!r}" if isinstance(graph.nodes, tuple) else ""
    return f"{len(graph.nodes)} nodes, {len(graph.edges)} edges{centre}"


def _table(graph: Mapping) -> bytes:
  """The JSON of a table, whose nodes may be called by numbers, as JSON has none of. Raises ValueError, TypeError."""
  plain = _plain(graph)
  nodes, edges = plain.get("nodes"), plain.get("edges")
  if isinstance(nodes, Mapping) and any(not isinstance(name, str) for name in nodes):
    plain["nodes"] = {str(name): value for name, value in nodes.items()}
    if len(plain["nodes"]) < len(nodes):
      raise ValueError("two nodes are called alike, by a number and by its text")
    if isinstance(edges, list) and all(isinstance(edge, list) for edge in edges):
      plain["edges"] = [[*map(str, edge[:2]), *edge[2:]] for edge in edges]
    if "centre" in plain:
      plain["centre"] = str(plain["centre"])
  return json.dumps(plain).encode()


def _plain(value: Any) -> Any:
  """A value of tables and lists without numpy's arrays and numbers."""
  if isinstance(value, Mapping):
    return {key: _plain(one) for key, one in value.items() if one is not None}
  if isinstance(value, np.ndarray | np.generic):
    return _plain(value.tolist())
  return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
