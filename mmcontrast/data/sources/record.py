"""The protocol of sources: what a record is, and what a source says of itself."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from collections.abc import Mapping
from typing import Protocol, TypedDict

import numpy as np


class BadRecord(ValueError):
  """A record that cannot be used; the message says why."""


def id_of_text(text: str) -> int:
  """A number in [0, 2**31) that stands for a text: two texts share one once in two thousand million pairs."""
  digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=4).digest()
  return int.from_bytes(digest) % 2**31


class Record(TypedDict):
  """One example as stored: nothing decoded, cropped or tokenised."""

  images: dict[str, bytes]  # encoded, by style (one entry named "image" where there are no styles)
  captions: dict[str, list[str]]  # by field (one entry named "caption" where there are no fields)
  names: dict[str, str]  # by language, of every language in `Info.languages`
  tags: np.ndarray  # uint8 multi-hot [T]; all zero when the example has none
  labels: dict[str, int]
  id: int  # 0 to 2**31 - 1; examples with the same id show the same thing
  name: str  # for messages: a key, a file name
  mirror_safe: bool


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

  @property
  def modalities(self) -> tuple[str, ...]:
    """The modalities that its examples may have."""
    has = {"image": self.styles, "text": self.caption_fields or self.languages}
    return tuple(modality for modality, keys in has.items() if keys)


class Source(Protocol):
  """Random access to the records of one split; reading by several threads is safe.

  `source[i]` raises BadRecord when what is stored there is not a record, and OSError when it could
  not be read, which another attempt may mend.
  """

  info: Info

  def __len__(self) -> int: ...
  def __getitem__(self, index: int) -> Record: ...
