"""The protocol of sources: what a record is, and what a source says of itself."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping
from typing import NamedTuple, NotRequired, Protocol, TypedDict

import numpy as np


class BadRecord(ValueError):
  """A record that cannot be used; the message says why."""


MOST_ROWS = 2**28  # that have ids of their own


def hashed_text(text: str) -> int:
  """A number in [0, 2**31) that stands for a text."""
  digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=4).digest()
  return int.from_bytes(digest) % 2**31


# Ids are int32, and none is by accident that of another kind: from 0 on they are numbers as given, -1 is nobody's
# (empty places of a queue have it), the next MOST_ROWS below belong to records without an id, and below those are
# hashes of texts.
def id_of_row(row: int) -> int:
  """The id of a record that has none: of its place, and so of no other record of its source."""
  return -2 - row % MOST_ROWS


def id_of_text(text: str) -> int:
  """The id that stands for a text: two texts share one once in nearly two thousand million pairs."""
  return hashed_text(text) % (2**31 - MOST_ROWS - 1) - 2**31


def is_id_of_row(identity: int) -> bool:
  """Whether `id_of_row` made it."""
  return -2 - MOST_ROWS < identity < -1


class Region(NamedTuple):
  """A part of a record's image, and what is said of it.

  Attributes:
    box: x0, y0, x1, y1 in shares of the image's sides, from 0 to 1.
  """

  box: tuple[float, float, float, float]
  texts: tuple[str, ...]


class Record(TypedDict):
  """One example as stored: nothing decoded, cropped or tokenised.

  What it has of a further modality stands under that modality's `field`, as images do: {key: as stored}.
  """

  images: dict[str, bytes]  # encoded, by style (one entry named "image" where there are no styles)
  captions: dict[str, list[str]]  # by field (one entry named "caption" where there are no fields)
  names: dict[str, str]  # by language, of every language in `Info.languages`
  tags: np.ndarray  # uint8 multi-hot [T]; all zero when the example has none
  labels: dict[str, int]
  id: int  # of 32 bits; examples with the same id show the same thing
  name: str  # for messages: a key, a file name
  mirror_safe: bool
  weight: NotRequired[float]  # what the example counts as an anchor, 0 or more; not there: 1
  regions: NotRequired[list[Region]]  # of its image, of sources that have any
  parts: NotRequired[bytes]  # which region each pixel of its image shows, a grey PNG: 0 for none, n for the n-th
  paths: NotRequired[dict[str, str]]  # by style, of images that are files


@dataclasses.dataclass(frozen=True)
class Info:
  """What a dataset knows of itself: its schema."""

  name: str
  styles: tuple[str, ...]  # keys of `Record.images`; none: no images
  tag_names: tuple[str, ...]
  label_names: Mapping[str, tuple[str, ...]]
  concepts: tuple[Mapping[str, str], ...] = ()  # key, name, split of every id, where ids are a list
  tokenizer: pathlib.Path | None = None  # the dataset's own
  languages: tuple[str, ...] = ()  # in which every example has a name
  caption_fields: tuple[str, ...] = ("caption",)  # keys of `Record.captions`; none: no captions
  row_ids: bool = False  # ids are places, and no two records have one
  weighted: bool = False  # whether records bring weights
  notes: tuple[str, ...] = ()  # what was done to the records, in words
  regions: bool = False  # whether records bring regions of their images
  # Modality -> keys of its field of `Record`, of those beyond images and captions.
  keys: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

  @property
  def modalities(self) -> tuple[str, ...]:
    """The modalities that its examples may have."""
    has = {"image": self.styles, "text": self.caption_fields or self.languages, **self.keys}
    return tuple(modality for modality, keys in has.items() if keys)


class Source(Protocol):
  """Random access to the records of one split; reading by several threads is safe.

  `source[i]` raises BadRecord when what is stored there is not a record, and OSError when it could
  not be read, which another attempt may mend. One that can tell its records apart without reading images has a
  method `key` (keys.py).
  """

  info: Info

  def __len__(self) -> int: ...
  def __getitem__(self, index: int) -> Record: ...
