"""The name of an embedding: which view or fusion of views, through which head, of which branch.

image[1]/image_ssl@momentum         a view, through a head of its modality's tower, in the momentum branch
fusion(text[0], image[0])/match     a tower that reads others, and what each of these reads, in the order of `reads`
fusion(text[0]~pair, image[0])/match   the text of another example, drawn by the scores of the term `pair`, or "uniform"
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from mmcontrast.errors import UserError
from mmcontrast.modalities import modality_of, original_of

_VIEW = r"(?P<view>(?P<views>\w+)\[(?P<number>\d+)\](?:~(?P<drawn>\w+))?)"
_TOKEN = re.compile(rf"\s*(?:{_VIEW}|(?P<tower>\w+)\s*\(|(?P<mark>[,)]))\s*")
_MOMENTUM = "@momentum"
_HEAD = re.compile(rf"(?P<source>.+)/(?P<head>\w+)(?P<momentum>{_MOMENTUM})?")


class Source(NamedTuple):
  """What a tower reads: a view, or, of a tower that reads other towers, what each of these reads.

  Attributes:
    views: the set of views, as its modality names it: "image", "image_small", "text"; "" of a fusion.
    view: its number.
    tower: of a fusion, the tower that reads others; "" of a view, which the tower of the head reads.
    inputs: of a fusion, what those towers read, in the order of `reads`.
    drawn: of a view within a fusion, the term by whose scores the view of another example is drawn (drawn_pairs.py);
      "" of a view of the example itself.
  """

  views: str = ""
  view: int = 0
  tower: str = ""
  inputs: tuple[Source, ...] = ()
  drawn: str = ""

  @property
  def undrawn(self) -> Source:
    """The same view, of the example itself."""
    return self._replace(drawn="")

  @property
  def modality(self) -> str:
    """ "image", of all sets of its views: they go through the same tower; "" of a fusion."""
    return modality_of(self.views)

  @property
  def original(self) -> Source:
    """What it is another version of, such as image[0] of image_masked[0]; in other cases itself."""
    return self._replace(views=original_of(self.views), inputs=tuple(one.original for one in self.inputs))

  def leaves(self) -> Iterator[Source]:
    """The views at its ends."""
    if not self.inputs:
      yield self
    for source in self.inputs:
      yield from source.leaves()

  @property
  def first(self) -> Source:
    """The view at its first end, whose tokens go through the fusion."""
    return self.inputs[0].first if self.inputs else self


class EmbeddingPath(NamedTuple):
  """ "image[1]/image_ssl@momentum" taken apart."""

  source: Source
  head: str
  momentum: bool

  @property
  def views(self) -> str:
    """The set of views, as its modality names it: "image", "image_small", "text"."""
    return self.source.views

  @property
  def view(self) -> int:
    """The number of the view."""
    return self.source.view

  @property
  def is_fused(self) -> bool:
    """Whether it is of a tower that reads other towers."""
    return bool(self.source.inputs)

  @property
  def drawn(self) -> tuple[Source, ...]:
    """The views at its ends that are of another example."""
    return tuple(leaf for leaf in self.source.leaves() if leaf.drawn)

  @property
  def modality(self) -> str:
    """That of the view; "" of a fusion."""
    return self.source.modality

  @property
  def modalities(self) -> tuple[str, ...]:
    """Those that an example must have for there to be such an embedding of it, once each."""
    return tuple(dict.fromkeys(leaf.modality for leaf in self.source.leaves() if not leaf.drawn))

  @property
  def kind(self) -> str:
    """ "image/image_ssl": what embeds it, whichever view it is of."""
    return f"{self.modality}/{self.head}"


def parse_embedding(name: str, where: str = "embedding") -> EmbeddingPath:
  """Takes "image[1]/image_ssl@momentum" apart.

  Raises UserError naming `where` when the name does not have that form.
  """
  match = _HEAD.fullmatch(name)
  source = match and _parse_source(match["source"])
  if not source or source.drawn:
    raise UserError(
      f"{where}: {name!r} is not the path of an embedding; "
      "write view/head, such as 'image[0]/image_ssl' or 'image[1]/image_ssl@momentum', "
      "or of a tower with reads 'fusion(text[0], image[0])/match'"
    )
  return EmbeddingPath(source, match["head"], bool(match["momentum"]))


def of_momentum(name: str) -> bool:
  """Whether an embedding, by its path, is of the momentum branch: no gradient goes there."""
  return parse_embedding(name).momentum


def online(name: str) -> str:
  """The path of the same embedding in the online branch."""
  return name.removesuffix(_MOMENTUM)


def _parse_source(text: str) -> Source | None:
  """The source that `text` writes; None where it has no such form."""
  open_fusions: list[tuple[str, list[Source]]] = []
  made, place, wants_source = None, 0, True
  while place < len(text):
    token = _TOKEN.match(text, place)
    if token is None or (token["mark"] is None) != wants_source or (made and not open_fusions):
      return None
    place = token.end()
    if token["tower"]:
      open_fusions.append((token["tower"], []))
      continue
    if token["view"]:
      made, wants_source = Source(token["views"], int(token["number"]), drawn=token["drawn"] or ""), False
    else:
      tower, inputs = open_fusions[-1]
      inputs.append(made)
      wants_source = token["mark"] == ","
      if not wants_source:
        open_fusions.pop()
        made = Source(tower=tower, inputs=tuple(inputs))
  return made if made and not open_fusions and not wants_source else None


def one_dim(entry: str, names: Iterable[str], head_dims: Mapping[str, int]) -> dict[str, int]:
  """Head -> length of its vectors, where it is known; raises UserError unless those of `names` are equal."""
  dims = {head: head_dims[head] for head in (parse_embedding(name).head for name in names) if head in head_dims}
  if len(set(dims.values())) > 1:
    found = ", ".join(f"{head!r} {dim}" for head, dim in dims.items())
    raise UserError(f"objective.{entry}: heads give vectors of different lengths ({found}); make their dim equal")
  return dims


def parse_names(given: str | Iterable[str], where: str, some: bool = True) -> tuple[str, ...]:
  """One path of an embedding, or several different ones; raises UserError. `some`: at least one must be there."""
  names = (given,) if isinstance(given, str) else tuple(given)
  for name in names:
    parse_embedding(name, where)
  if (some and not names) or len(set(names)) < len(names):
    raise UserError(f"{where}: name one or more different embeddings, not {list(names)}")
  return names
