"""From indices to arrays: views of images drawn and cropped, captions drawn and tokenised."""

from __future__ import annotations

import bisect
import collections
import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mmcontrast.data import captions, image_views, noise, tokenizers
from mmcontrast.data.attempts import Attempts
from mmcontrast.data.cut_captions import line_of_source
from mmcontrast.data.reading import CACHE_BYTES, Found, Reader
from mmcontrast.data.record import id_of_row
from mmcontrast.data.sources import Record, Source, members_of
from mmcontrast.errors import UserError, choose


def open_tokenizer(settings: Mapping, source: Source | None) -> tokenizers.Tokenizer | None:
  """The tokenizer that resolved `settings` name, its ids checked; None without text views.

  `source` may be None where the tokenizer is not the dataset's own.
  """
  if not settings["views"]["text"]:
    return None
  own = {"own": source.info.tokenizer, "dataset": source.info.name} if source else {}
  tokenizer = tokenizers.make_tokenizer(settings["tokenizer"], lower=settings["lower"], **own,
                                        special_tokens=settings["special_tokens"])  # fmt: skip
  tokenizer.check(**{f"{name}_id": value for name, value in settings["token_ids"].items()})
  return tokenizer


def check_views(settings: Mapping, source: Source) -> None:
  """UserError unless `source`, and each source of a mixture, has what the views of resolved `settings` show."""
  members, skip = members_of(source), settings["missing"] != "mask"
  captions.check_fields(settings["captions"], settings["views"]["text"], source)
  for name, member in members.items() if settings["languages"] else ():
    if not member.info.languages and (skip or not source.info.languages):
      raise UserError(f"data.languages: dataset {name} has no names in any language; leave it empty")
    for language in settings["languages"] if member.info.languages else ():
      choose(language, member.info.languages, "data.languages")
  has = {name: {"image": member.info.styles, "text": member.info.languages if settings["languages"] else
                member.info.caption_fields} for name, member in members.items()}  # fmt: skip
  for modality, what in (("image", "images"), ("text", "captions")):
    lacking = [name for name in members if not has[name][modality]]
    if settings["views"][modality] and (len(lacking) == len(members) or (skip and lacking)):
      has_classes = modality == "text" and "class" in members[lacking[0]].info.label_names
      of_class = ", or make them of the class: data.source.caption='a photo of a {class}'" if has_classes else ""
      mask = ", or data.missing='mask' to train on what the others have" if len(lacking) < len(members) else ""
      raise UserError(f"data.views.{modality}: dataset {lacking[0]} has no {what} at all; set it to 0{mask}{of_class}")


class Loader:
  """Makes the examples of one chunk: (epochs, indices) -> batch arrays of that many rows."""

  def __init__(self, source: Source, settings: Mapping, seed: int):
    check_views(settings, source)
    self._info, self._settings, self._seed, self._source = source.info, settings, seed, source
    self.tokenizer = open_tokenizer(settings, source)
    self.attempts = Attempts(settings["on_error"])
    members = members_of(source)
    self.readers = {name: Reader(member, settings, self.attempts, CACHE_BYTES // len(members))
                    for name, member in members.items()}  # fmt: skip
    self._ends = list(itertools.accumulate(len(member) for member in members.values()))

  def __call__(self, chunk: tuple[np.ndarray, np.ndarray]) -> dict:
    epochs, wanted = chunk
    found: list[tuple[int, int, Record, bool]] = []  # (index, why, record, whether it has an image): no pixels

    usable = self._ahead(wanted.tolist())

    def example(row: int) -> tuple[int, Mapping]:
      place, its = usable(row)
      found.append((place, its.why, its.record, bool(its.drawings)))
      return place, its.drawings

    images = image_views.draw(example, self._settings, self._seed, wanted, epochs)
    places, why, records, with_image = zip(*found)
    index = np.array(places, np.int32)
    seeds = noise.hashed(self._seed, index, epochs, noise.DEVICE) >> np.uint64(32)
    batch = images | {
      "id": np.array([self._identity(*its) for its in zip(records, places)], np.int32),
      "index": index,
      "seed": seeds.astype(np.uint32),
      "mirror_safe": np.array([record["mirror_safe"] for record in records], bool),
      "valid": np.ones(len(index), bool),
      "why": np.array(why, np.uint8),
    }
    if self._info.weighted:
      batch["weight"] = np.array([record.get("weight", 1.0) for record in records], np.float32)
    if self._info.tag_names:
      batch["tags"] = np.stack([record["tags"] for record in records])
    if names := self._info.label_names:
      batch["labels"] = {name: np.array([record["labels"][name] for record in records], np.int32) for name in names}
    there = {}
    if self._settings["views"]["image"]:
      there["image"] = np.array(with_image)
    if self._settings["views"]["text"]:
      batch["text"] = self._text_views([record["captions"] for record in records], index, epochs)
      there["text"] = np.array([bool(record["captions"]) for record in records])
    if self._settings["missing"] == "mask":
      batch["present"] = there
    return batch

  def cut_line(self) -> str:
    """What cutting captions does, in a line; "" where none is cut, or there are none."""
    return line_of_source(self._source, self._settings, self.tokenizer) if self.tokenizer else ""

  @property
  def bad(self) -> dict[int, str]:
    """Index -> reason of the bad records met so far."""
    firsts = [0, *self._ends]
    return {first + index: reason for first, reader in zip(firsts, self.readers.values())
            for index, reason in list(reader.bad.items())}  # fmt: skip

  @property
  def filtered(self) -> collections.Counter[str]:
    """Filter -> how many different records it took out so far."""
    copies = (dict(reader.filtered) for reader in self.readers.values())  # in one go: they grow meanwhile
    return sum(map(collections.Counter, copies), collections.Counter())

  def _ahead(self, indices: Sequence[int]) -> Callable[[int], tuple[int, Found]]:
    """Begins to read `indices`; the function returned gives, by place, (index, example) of the first usable example
    from indices[place] on, in the same source."""
    firsts, readers = [0, *self._ends], list(self.readers.values())
    members = [bisect.bisect_right(self._ends, index) for index in indices]
    own = [index - firsts[member] for index, member in zip(indices, members)]
    reads = {member: readers[member].ahead(index for index, of in zip(own, members) if of == member)
             for member in set(members)}  # fmt: skip

    def usable(place: int) -> tuple[int, Found]:
      member = members[place]
      found = readers[member].usable(own[place], reads[member])
      return firsts[member] + found.index, found

    return usable

  def _identity(self, record: Mapping, index: int) -> int:
    if self._settings["identity"] == "record":
      return record["id"]
    return captions.identity(record["captions"]) if record["captions"] else id_of_row(index)

  def _text_views(self, examples: Sequence[Mapping], index, epochs) -> np.ndarray:
    settings, views, length = self._settings, self._settings["views"]["text"], self._settings["text_length"]
    fields = settings["captions"] or (settings["languages"] if len(settings["languages"]) == views else None)
    which = noise.uniform(self._seed, index, epochs, noise.FIELD, views)
    draws = noise.uniform(self._seed, index, epochs, noise.TEXT, views)
    texts: list[str] = []
    for row, found in enumerate(examples):
      # An absent text is an empty one: no tower is made to read padding alone, of which a mean is not a number.
      texts += captions.draw(found, fields, which[row], draws[row]) if found else [""] * views
    return self.tokenizer.encode(texts, length).reshape(len(examples), views, length)
