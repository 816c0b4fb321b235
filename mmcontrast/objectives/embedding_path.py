"""The name of an embedding: which view, through which head, of which branch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from mmcontrast.errors import UserError

_PATTERN = re.compile(r"(?P<views>\w+)\[(?P<view>\d+)\]/(?P<head>\w+)(?P<momentum>@momentum)?")


class EmbeddingPath(NamedTuple):
  """ "image[1]/image_ssl@momentum" taken apart; `views` is the batch's array of them: image, image_small or text."""

  views: str
  view: int
  head: str
  momentum: bool

  @property
  def modality(self) -> str:
    """ "image", of image_small too: small crops go through the same tower."""
    return self.views.removesuffix("_small")

  @property
  def kind(self) -> str:
    """ "image/image_ssl": what embeds it, whichever view it is of."""
    return f"{self.modality}/{self.head}"


def parse_embedding(name: str, where: str = "embedding") -> EmbeddingPath:
  """Takes "image[1]/image_ssl@momentum" apart.

  Raises UserError naming `where` when the name does not have that form.
  """
  match = _PATTERN.fullmatch(name)
  if match is None:
    raise UserError(
      f"{where}: {name!r} is not the path of an embedding; "
      "write view/head, such as 'image[0]/image_ssl' or 'image[1]/image_ssl@momentum'"
    )
  return EmbeddingPath(match["views"], int(match["view"]), match["head"], bool(match["momentum"]))


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
