"""What an evaluator sees of a model: one function, `embed`, and what it can be asked for; unit rows, chunks of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from mmcontrast.errors import UserError, choose

Embed = Callable[[str, Any], Any]
"""embed(kind, values) -> float32 [N, D]; or `Tokens` of N things, where a `Compare` goes with it. A kind is a modality
("image", "text", "audio"): rows in the joint space; or "image_features": the pooled output of the tower that probes
look at; or a node of the model, such as "audio/audio_ssl" or "image/image.tokens". The values are of that modality:
uint8 [N, H, W, 3], N strings."""
Compare = Callable[[str, Any, Any], np.ndarray]
"""compare(way, queries, gallery) -> [Q, G], of what `Embed` gave: how well each of the gallery matches each query;
way: "image_to_text"."""
Seen = Callable[[str, Any], Any]
"""seen(modality, values) -> what the model sees of N values, an array [N, ...] or N texts: equal ones are one to it."""
Match = Callable[[str, Mapping[str, Any], np.ndarray], np.ndarray]
"""match(head, {modality: values}, pairs int [P, 2]) -> float32 [P]: how well the things of two modalities, in this
order, belong together, by the logits of a head of a tower that reads both."""
Scale = Callable[[str, str], float | None]
"""scale(modality, other) -> what the cosine of two things is multiplied by, as training learned it; None where nothing
was learned."""

Guess = Callable[[str, Mapping[str, Any], Mapping[str, np.ndarray]], tuple[np.ndarray, np.ndarray, np.ndarray]]
"""guess(head, {modality: values}, {modality: places int [P]}) -> (loss, hits, words), float64 [P] each: of the words
that are taken from the text in each place, guessed with the other thing."""


class Tuned(Protocol):
  """A model with prompts that have learned."""

  def cosines(self, values: Any, classes: Sequence[str]) -> np.ndarray:
    """float32 [N, K], of things and classes."""


Tune = Callable[..., Tuned]
"""tune(values, labels int [N], classes, modality=..., **recipe): prompts beside a model, see inference/prompts.py."""

Layers = Callable[[str, Any, str, str], Mapping[str, np.ndarray]]
"""layers(tower, values, pool, where) -> rows float32 [N, D] of each layer of a tower, in their order; see
inference/layers.py. UserErrors begin with `where`."""


class Words(NamedTuple):
  """How a model describes things: the decoder of a run.

  Attributes:
    modality: (head) -> of what is described. A head names one decoder of several, "" the only one.
    write: (values, head, **search) -> a caption of each, list of str.
    losses: (values, texts, head) -> (minus the log probability of each text for the value in its place, of how many
      tokens it is), float64 [N] each.
  """

  modality: Callable[[str], str]
  write: Callable[..., list[str]]
  losses: Callable[..., tuple[np.ndarray, np.ndarray]]


class Space(NamedTuple):
  """What a model can be asked for.

  Attributes:
    joint: the modalities that have a head in the joint space, each with the others that it can be compared with; None:
      all, with each other.
    probed: the modality of the tower that probes look at; "" where there is none, None where it is not known.
    nodes: towers and heads by name -> the modalities that they are of: one, or those of a fusion.
    matches: heads that say of two things whether they belong together -> the two modalities.
    describes: heads that write captions; None: not known.
    guesses: heads that guess words of a text -> the modalities that they read.
    towers: the nodes that are towers.
    outputs: node -> what it makes, of "pooled", "tokens", "map", "logits", and how long its vectors are; None: not
      known.
    room: node -> what its kinds begin with, its modality or the name of its fusion; None: its modality.
  """

  joint: Mapping[str, tuple[str, ...]] | None = None
  probed: str | None = None
  nodes: Mapping[str, tuple[str, ...]] = {}
  matches: Mapping[str, tuple[str, ...]] = {}
  describes: Sequence[str] | None = None
  outputs: Callable[[str], Mapping[str, int]] | None = None
  room: Callable[[str], str] | None = None
  guesses: Mapping[str, tuple[str, ...]] = {}
  towers: Sequence[str] = ()

  def ways(self, modalities: Sequence[str] = ()) -> list[tuple[str, str]]:
    """(query, gallery) of all modalities that are compared: a pair, then the same pair the other way round.

    `modalities`: those that count where nothing is known of the model.
    """
    names = list(modalities) if self.joint is None else list(self.joint)
    pairs = [(one, other) for place, one in enumerate(names) for other in names[place + 1 :]]
    known = [(one, other) for one, other in pairs if self.joint is None or other in self.joint[one]]
    return [way for one, other in known for way in ((one, other), (other, one))]

  def kind_of(self, node: str, where: str) -> str:
    """The kind of a node that a config names, with what of it is wanted: "audio/audio_ssl.tokens" of
    "audio_ssl.tokens". UserError where there is none of that name."""
    name, _, field = node.partition(".")
    choose(name, self.nodes, where)
    has = (field or "pooled",) if self.outputs is None else self.outputs(name)
    if (field or "pooled") not in has:
      raise UserError(
        f"{where}: {name!r} makes no {field or 'pooled'} output; write {' or '.join(f'{name}.{one}' for one in has)}"
      )
    return f"{self.room(name) if self.room else self.nodes[name][0]}/{name}.{field or 'pooled'}"

  def check_comparable(self, nodes: Sequence[str], where: str) -> None:
    """Raises UserError unless vectors of two nodes can be compared by their cosine."""
    for node in nodes:
      self.kind_of(node, where)
    if self.outputs is None:
      return
    lengths = [self.outputs(node.partition(".")[0])[node.partition(".")[2] or "pooled"] for node in nodes]
    if len(set(lengths)) > 1:
      said = " and ".join(f"{node!r} {length}" for node, length in zip(nodes, lengths))
      raise UserError(f"{where}: vectors of different lengths cannot be compared ({said}); name two of one length")


def features_of(modality: str) -> str:
  """The kind that is the pooled output of the tower which probes look at: "image_features"."""
  return f"{modality}_features"


ANYTHING = Space()  # of a model of which nothing is known


def way_of(query: str, gallery: str) -> str:
  """What retrieval of one modality by another is called in results: "image_to_text"."""
  return f"{query}_to_{gallery}"


def unit(x: np.ndarray) -> np.ndarray:
  """Rows of `x` [N, D] as float32, L2-normalised; a row of zeros stays zero."""
  x = np.asarray(x, np.float32)
  out = np.empty_like(x)
  for rows in row_chunks(len(x), x[:1].size, 1 << 19):  # what stays in a core's cache
    length = np.linalg.norm(x[rows], axis=-1)  # rounded as torch's, so that what is equal there is equal here
    np.divide(x[rows], np.maximum(length, 1e-12)[:, None], out=out[rows])
  return out


def cosines(way: str, queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
  """float32 [Q, G]: cosines of unit rows [Q, D] and [G, D], whatever the way."""
  del way
  return queries @ gallery.T


def row_chunks(rows: int, columns: int, elements: int = 1 << 22) -> Iterator[slice]:
  """Slices of rows whose [rows, columns] scores stay within `elements` numbers (16 MiB)."""
  step = max(1, elements // max(columns, 1))
  for start in range(0, rows, step):
    yield slice(start, min(start + step, rows))
