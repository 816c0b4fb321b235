"""Which nodes of a graph a view shows: those of a random walk about its centre, or those that are nearest to it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmcontrast.errors import choose

Steps = Sequence[Sequence[tuple[int, bool]]]
"""Of a meta-path, for each step the kinds of edges that may be followed, and whether against their direction."""
_STEPS = 8  # of a walk for each node that is asked for


def steps_of(path: Sequence[str], kinds: Sequence[str]) -> Steps:
  """Of each step of a path the kinds, by number, and whether against their direction. Raises UserError."""
  steps = []
  for step in path:
    named = [(one.removeprefix("~"), one[:1] == "~") for one in str(step).split("|")]
    steps.append([
      (list(kinds).index(choose(kind, kinds, "data.graph.paths: kinds of edges")), back) for kind, back in named
    ])  # fmt: skip
  return steps


class Neighbours:
  """For each node the nodes that edges of some kinds lead to, in either direction."""

  def __init__(self, count: int, edges: np.ndarray):
    self._lists: list[list[tuple[int, int, bool]]] = [[] for _ in range(count)]
    for start, end, kind in edges.tolist():
      self._lists[start].append((end, kind, False))
      self._lists[end].append((start, kind, True))

  def of(self, node: int, allowed: Sequence[tuple[int, bool]] | None) -> list[int]:
    """`allowed`: (kind, against its direction) of the edges that count; None: all."""
    found = self._lists[node]
    return [one[0] for one in found] if allowed is None else [one[0] for one in found if one[1:] in allowed]


def walked(near: Neighbours, centre: int, count: int, restart: float, draw: float, path: Steps = ()) -> list[int]:
  """At most `count` nodes in the order in which a random walk comes upon them, the centre first.

  Args:
    restart: probability that the next step begins at the centre again, as it does where no edge leads on.
    draw: a uniform number, which the walk is a function of.
    path: step i of a walk from the centre follows path[i % len(path)] alone; (): any edge.
  """
  rng = np.random.Generator(np.random.Philox(int(draw * 2**53)))
  found, node, step = {centre: None}, centre, 0
  for again, choice in rng.random((_STEPS * count, 2)).tolist():
    if len(found) == count:
      break
    if again < restart and step:
      node, step = centre, 0
    leads = near.of(node, path[step % len(path)] if path else None)
    if not leads:
      if not step:
        break  # the centre stands alone
      node, step = centre, 0
      continue
    node, step = leads[int(choice * len(leads))], step + 1
    found.setdefault(node)
  return list(found)


def nearest_first(near: Neighbours, centre: int, count: int, path: Steps = ()) -> list[int]:
  """At most `count` nodes, those that fewest edges lead to first, by place where as many do; of a path, as many steps
  of it."""
  found, edge, step = {centre: None}, [centre], 0
  seen = {(centre, 0)}
  while edge and len(found) < count:
    allowed = path[step % len(path)] if path else None
    step += 1
    reached = {end for node in edge for end in near.of(node, allowed)}
    edge = sorted(node for node in reached if (node, step % max(1, len(path))) not in seen)
    seen |= {(node, step % max(1, len(path))) for node in edge}
    found |= dict.fromkeys(edge)
  return list(found)[:count]


def induced(edges: np.ndarray, nodes: Sequence[int], most: int, kinds: Sequence[int] | None = None) -> np.ndarray:
  """int32 [E', 3], the edges between some nodes, which are called by their places among these; of more than `most`
  those between the first ones. `kinds`: those that count; None: all."""
  at = np.full(int(max(edges[:, :2].max(initial=0), max(nodes))) + 1, -1, np.int64)
  at[np.asarray(nodes)] = np.arange(len(nodes))
  ends = at[edges[:, :2]]
  kept = (ends >= 0).all(1)
  if kinds is not None:
    kept &= np.isin(edges[:, 2], kinds)
  found = np.concatenate([ends, edges[:, 2:]], 1)[kept].astype(np.int32)
  return found[np.argsort(found[:, :2].max(1), kind="stable")[:most]] if len(found) else found
