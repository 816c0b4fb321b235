"""WordNet's nouns, each with what it means and its neighbourhood as a graph, cut as it is read.

dataset="wordnet", split="train"                 # no synset of a held-out subtree, not in a graph either
dataset="wordnet", split="test"                  # synsets of such subtrees, in graphs of all nouns
dataset="wordnet", source=dict(nodes=64, fan=8, text="names")
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
from collections.abc import Mapping, Sequence

from mmcontrast.data import build
from mmcontrast.data.record import Record
from mmcontrast.data.sources.emoji import EmojiSource, open_built
from mmcontrast.errors import UserError, choose
from mmcontrast.registry import check_options

TEXTS = ("names", "glosses")
KIND_OF = ("hypernym", "instance_of")
_DEFAULTS = {"nodes": 64, "fan": 8, "text": "names", "steps_up": 0}


class WholeGraph:
  """All synsets and relations.

  Attributes:
    kinds: the names of the kinds of edges.
    texts: what nodes say, by TEXTS.
    split: of each node.
  """

  def __init__(self, table: Mapping):
    self.kinds = tuple(table["kinds"])
    self.split = tuple(table["split"])
    glosses = [f"{name}: {gloss}" for name, gloss in zip(table["names"], table["glosses"])]
    self.texts = {"names": tuple(table["names"]), "glosses": tuple(glosses)}
    self._up = [(self.kinds.index(kind), False) for kind in KIND_OF if kind in self.kinds]
    self._leads: list[dict[tuple[int, bool], list[int]]] = [{} for _ in self.split]
    for start, end, kind in table["edges"]:
      self._leads[start].setdefault((kind, False), []).append(end)
      self._leads[end].setdefault((kind, True), []).append(start)

  def around(self, centre: int, nodes: int, fan: int, splits: Sequence[str]) -> list[int]:
    """A node and those nearest to it, at most so many, of some splits.

    Of each node, kind and direction at most `fan` are followed, always the same ones, chosen by a hash of both nodes.
    """
    found, waiting = {centre: None}, [centre]
    for node in waiting:  # which grows
      for ends in self._leads[node].values():
        ends = [end for end in ends if self.split[end] in splits]
        if len(ends) > fan:
          ends = sorted(ends, key=lambda end: ((end * 2654435761) ^ (centre * 40503)) % 2**32 % 65521)[:fan]
        for end in ends:
          if end not in found:
            found[end] = None
            waiting.append(end)
            if len(found) == nodes:
              return list(found)
    return list(found)

  def above(self, node: int, steps: int) -> list[int]:
    """What a node is a kind or an instance of, 1 to `steps` steps up, the nearest first."""
    found, edge = {node: None}, [node]
    for _ in range(steps):
      edge = [end for one in edge for way in self._up for end in self._leads[one].get(way, ())]
      found |= dict.fromkeys(edge)
    return list(found)[1:]

  def name(self, node: int) -> str:
    """Its first word."""
    return self.texts["names"][node].partition(", ")[0]

  def between(self, nodes: Sequence[int]) -> list[list]:
    """[from, to, kind] of all edges between some nodes, which are called by their places among these."""
    at = {node: place for place, node in enumerate(nodes)}
    return [
      [place, at[end], self.kinds[kind]]
      for node, place in at.items()
      for (kind, against), ends in self._leads[node].items()
      if not against
      for end in ends
      if end in at
    ]


class Neighbourhoods:
  """The synsets of a split, with their graphs."""

  def __init__(self, base: EmojiSource, graph: WholeGraph, split: str, nodes: int, fan: int, text: str,
               steps_up: int = 0):  # fmt: skip
    self._base, self._graph, self._options, self._steps_up = base, graph, (nodes, fan), steps_up
    self._texts = graph.texts[text]
    self._splits = ("train",) if split == "train" else tuple(dict.fromkeys(graph.split))
    base.info = dataclasses.replace(base.info, keys={})  # what is read of it is no thing but its texts
    self.info = dataclasses.replace(base.info, keys={"graph": ("neighbourhood",)})

  def __len__(self) -> int:
    return len(self._base)

  def __getitem__(self, index: int) -> Record:
    record = self._base[index]
    nodes = self._graph.around(record["id"], *self._options, self._splits)
    table = {"nodes": [self._texts[node] for node in nodes], "edges": self._graph.between(nodes), "centre": 0}
    found = {**record, "graph": {"neighbourhood": json.dumps(table).encode()}}
    if above := self._graph.above(record["id"], self._steps_up):
      more = [f"a kind of {self._graph.name(one)}" for one in above]
      found["captions"] = {field: [*texts, *more] for field, texts in record["captions"].items()}
    return found


def open_wordnet(path: str, options: Mapping, split: str, data_dir: str | os.PathLike | None) -> Neighbourhoods:
  """Opens wordnet.

  Args:
    options: nodes: of a synset's neighbourhood, of which views draw some. fan: how many edges of a kind are followed
      from a node. text: what nodes say: "names", the words of a synset, or "glosses", what they mean too. steps_up: how
    far up there is a text "a kind of animal" for each that a synset is a kind of; 0: only the data set's own texts.
  """
  if path:
    raise UserError(f"data.dataset: wordnet takes no path, not {path!r}")
  check_options(options, _DEFAULTS, "wordnet: data.source")
  chosen = {**_DEFAULTS, **options}
  choose(chosen["text"], TEXTS, "data.source.text")
  for key, least in (("nodes", 1), ("fan", 1), ("steps_up", 0)):
    if isinstance(chosen[key], bool) or not isinstance(chosen[key], int) or chosen[key] < least:
      raise UserError(f"data.source.{key}: {chosen[key]!r}; give a whole number, at least {least}")
  base = open_built("wordnet", split, data_dir)
  return Neighbourhoods(base, _whole(build.data_folder(data_dir) / "wordnet" / "graph.json"), split, **chosen)


@functools.lru_cache(maxsize=2)
def _whole(path: pathlib.Path) -> WholeGraph:
  return WholeGraph(json.loads(path.read_text(encoding="utf-8")))
