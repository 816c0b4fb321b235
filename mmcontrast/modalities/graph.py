"""Graphs whose nodes have texts or numbers and whose edges have kinds: static arrays of a part about the centre.

graph        [V, N, F]  float32, config.data.views.graph parts of config.data.graph.nodes nodes, the centre first
graph_edges  [V, E, 3]  int32, from which node to which, of which kind; -1 of one that is padding
graph_nodes  [V]        int32, how many nodes are real; 0 of an example without a graph
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from mmcontrast.data import noise, transforms
from mmcontrast.data.checks import check_counts, check_share
from mmcontrast.data.record import BadRecord, Record
from mmcontrast.errors import UserError
from mmcontrast.modalities.graph_picture import drawn
from mmcontrast.modalities.graph_reading import ReadGraph, read_graph
from mmcontrast.modalities.graph_sampling import Neighbours, induced, nearest_first, steps_of, walked
from mmcontrast.modalities.graph_use import GraphsInUse
from mmcontrast.modalities.hashed_words import hashed_words
from mmcontrast.modalities.modality import Modality
from mmcontrast.modalities.use import Shown
from mmcontrast.modalities.views import Inputs, Preparation, Schema, Settings

_STREAM = noise.stream("graph")


class Graph(GraphsInUse, Modality):
  """Decoded: `ReadGraph` by column. As evaluation shows one: a single row of a structured array (`_row`)."""

  name, a, nouns, asked = "graph", "a graph", "graphs", "the path of a graph"
  source_option, absent, view_sets = "graph", "no graph", ("graph",)
  source_options: ClassVar = {"graph": None}
  defaults: ClassVar = {
    "graph": {
      "nodes": 32,  # of a view
      "edges": 96,  # between them; of more, those between the first nodes
      "features": 256,  # numbers of a node: hashes of its words (hashed_words.py), or as many as nodes have
      "kinds": (),  # the names of the kinds of edges; (): all are of one
      "restart": 0.3,  # with which probability a step of the walk that draws nodes begins at the centre again
      # View k follows paths[k % how many] from the centre: a list of kinds, "~hypernym" against its direction,
      # "part_of|member_of" either. (): any edge.
      "paths": (),
      "drop_edges": 0.0,  # with which probability an edge, and a number of all nodes, is hidden in training
      "drop_features": 0.0,
    }
  }

  def check(self, settings: Settings) -> None:
    of = settings["graph"]
    check_counts(of, {"nodes": 1, "edges": 1, "features": 1}, "data.graph")
    for key in ("restart", "drop_edges", "drop_features"):
      check_share(of, key, "data.graph")
    kinds = of["kinds"]
    if not isinstance(kinds, list | tuple) or not all(
      isinstance(kind, str) and kind and kind[0] != "~" for kind in kinds
    ):
      raise UserError(f"data.graph.kinds: {kinds!r} is not a list of names, such as ('hypernym', 'part_of')")
    if len(set(kinds)) < len(kinds):
      raise UserError(
        f"data.graph.kinds: {next(kind for kind in kinds if list(kinds).count(kind) > 1)!r} is named twice"
      )
    lists = isinstance(of["paths"], list | tuple) and all(isinstance(path, list | tuple) for path in of["paths"])
    if not lists or not all(of["paths"]):
      raise UserError(
        f"data.graph.paths: {of['paths']!r} is not a list of lists of kinds, such as (('hypernym', '~hypernym'),)"
      )
    for path in of["paths"]:
      steps_of(path, kinds)

  def tower_options(self, settings: Settings) -> dict[str, Any]:
    return {"kinds": max(1, len(settings["graph"]["kinds"]))}

  def check_tower(self, options: dict[str, Any], settings: Settings, vocab_size: int | None, where: str) -> None:
    least = self.tower_options(settings)["kinds"]
    if options.get("kinds", least) < least:
      raise UserError(
        f"{where}.kinds is {options['kinds']}, and config.data.graph.kinds names {least}; leave the key out"
      )

  # On the host.

  def arrays(self, settings: Settings) -> Schema:
    views, row = settings["views"]["graph"], _row(settings)
    return {name: ((views, *row[name].shape), row[name].dtype) for name in row.dtype.names} if views else {}

  def decode(self, record: Record, settings: Settings) -> dict[str, ReadGraph]:
    return {key: self._decoded(raw, settings) for key, raw in record.get("graph", {}).items()}

  def nbytes(self, value: Mapping[str, ReadGraph]) -> int:
    return sum(one.edges.nbytes + 100 * len(one.nodes) for one in value.values())

  def numbers(self, settings: Settings) -> dict[int, int]:
    return {_STREAM: 2 * settings["views"]["graph"]}  # which column, and where the walk goes

  def view(self, value: Mapping[str, ReadGraph], numbers: Mapping, settings: Settings, into: Mapping) -> None:
    if not value:
      return
    which, draws = np.split(numbers[_STREAM], 2)
    for view, graph in enumerate(transforms.choose_distinct(list(value.values()), which)):
      shown = _part(graph, settings, None if settings.get("as_evaluated") else draws[view], view)
      for name in shown.dtype.names:
        into[name][view] = shown[name]

  def _decoded(self, raw: bytes, settings: Settings) -> ReadGraph:
    of = settings["graph"]
    found = read_graph(raw, of["kinds"])
    if isinstance(found.nodes, np.ndarray) and found.nodes.shape[1] != of["features"]:
      raise BadRecord(f"nodes of {found.nodes.shape[1]} numbers where data.graph.features is {of['features']}")
    return found

  # On the device.

  def preparation(self, config: Mapping[str, Any]) -> GraphPreparation:
    if (recipe := config["augment"].get("graph", "none")) != "none":
      raise UserError(f"config.augment.graph: {recipe!r}; graphs are changed by data.graph.drop_edges, .drop_features "
                      "and .restart alone, leave it out")  # fmt: skip
    settings = config["data"]
    of = settings["graph"]
    return GraphPreparation(tuple(self.arrays(settings)), float(of["drop_edges"]), float(of["drop_features"]))

  # In use.

  def evaluation_view(self, raw: bytes, settings: Mapping) -> np.ndarray:
    return _part(self._decoded(raw, settings), settings, None)

  def size(self, settings: Mapping) -> str:
    return f"graphs of {settings['graph']['nodes']} nodes"

  def show(self, thing: Any) -> Shown:
    if isinstance(thing, bytes):
      graph = read_graph(thing)
      texts = graph.nodes if isinstance(graph.nodes, tuple) else ()
      return Shown(drawn(len(graph.nodes), graph.edges, graph.centre, texts), self.describe(thing))
    edges = thing["graph_edges"]
    return Shown(drawn(max(1, int(thing["graph_nodes"])), edges[edges[:, 0] >= 0], 0), f"{thing['graph_nodes']} nodes")


@dataclasses.dataclass(frozen=True)
class GraphPreparation(Preparation):
  """Edges, and numbers of all nodes of a view, are hidden in training, each example by its seed."""

  drop_edges: float
  drop_features: float

  def __call__(self, batch: Mapping[str, jax.Array], train: bool) -> dict[str, Inputs]:
    values, edges = batch["graph"], batch["graph_edges"]
    real = jnp.arange(values.shape[2]) < batch["graph_nodes"][..., None]
    values = jnp.where(real[..., None], values, 0)
    if train and (self.drop_edges or self.drop_features):
      values, edges = jax.vmap(self._dropped)(values, edges, batch["seed"])
    return {"graph": Inputs(values, real, edges=edges)}

  def _dropped(self, values: jax.Array, edges: jax.Array, seed: jax.Array) -> tuple[jax.Array, jax.Array]:
    """[V, N, F], [V, E, 3], the views of one example."""
    of_edges, of_numbers = jax.random.split(jax.random.fold_in(jax.random.key(seed), _STREAM % 2**31))
    hidden = jax.random.uniform(of_edges, edges.shape[:2]) < self.drop_edges
    kept = jax.random.uniform(of_numbers, (len(values), 1, values.shape[2])) >= self.drop_features
    return values * kept.astype(values.dtype), jnp.where(hidden[..., None], -1, edges)


def _row(settings: Mapping) -> np.ndarray:
  """What is seen of one graph, its arrays by name, of no nodes and no edges."""
  of = settings["graph"]
  parts = [("graph", np.float32, (of["nodes"], of["features"])), ("graph_edges", np.int32, (of["edges"], 3)),
           ("graph_nodes", np.int32)]  # fmt: skip
  row = np.zeros((), parts)
  row["graph_edges"] = -1
  return row


def _part(graph: ReadGraph, settings: Mapping, draw: float | None, view: int = 0) -> np.ndarray:
  """A row of what a view shows of a graph: by a uniform number, or, without one, what is nearest to the centre.

  In evaluation all kinds that paths name are followed, whichever the view.
  """
  of, row, near = settings["graph"], _row(settings), Neighbours(len(graph.nodes), graph.edges)
  paths = [steps_of(path, of["kinds"]) for path in of["paths"]]
  if draw is not None and paths:
    paths = [paths[view % len(paths)]]
  kinds = sorted({kind for path in paths for step in path for kind, _ in step}) if paths else None
  if draw is None:
    both = [[(kind, against) for kind in kinds for against in (False, True)]] if paths else ()
    nodes = nearest_first(near, graph.centre, of["nodes"], both)
  else:
    nodes = walked(near, graph.centre, of["nodes"], of["restart"], float(draw), paths[0] if paths else ())
  edges = induced(graph.edges, nodes, of["edges"], kinds)
  texts = graph.nodes
  row["graph"][: len(nodes)] = (
    texts[nodes] if isinstance(texts, np.ndarray) else hashed_words([texts[node] for node in nodes], of["features"])
  )
  row["graph_edges"][: len(edges)], row["graph_nodes"] = edges, len(nodes)
  return row
