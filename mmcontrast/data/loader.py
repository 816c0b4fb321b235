"""From indices to arrays: the views of every modality drawn, and what is known of each example."""

from __future__ import annotations

import bisect
import collections
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mmcontrast.data import known_labels, noise, tokenizers
from mmcontrast.data.attempts import Attempts
from mmcontrast.data.reading import CACHE_BYTES, Found, Reader
from mmcontrast.data.record import id_of_row
from mmcontrast.data.settings import shown
from mmcontrast.data.sources import BadRecord, Record, Source, members_of
from mmcontrast.errors import UserError


def open_tokenizer(settings: Mapping, source: Source | None) -> tokenizers.Tokenizer | None:
  """The tokenizer that resolved `settings` name, its ids checked; None without views of words.

  `source` may be None where the tokenizer is not the dataset's own.
  """
  found = (modality.open_tokenizer(settings, source) for modality in shown(settings).values())
  return next((tokenizer for tokenizer in found if tokenizer), None)


def check_views(settings: Mapping, source: Source) -> None:
  """UserError unless `source`, and each source of a mixture, has what the views of resolved `settings` show."""
  known_labels.check_names(settings, source.info.label_names)
  members, skip = members_of(source), settings["missing"] != "mask"
  for name, modality in shown(settings).items():
    modality.check_source(settings, source, members)
    lacking = [member for member, its in members.items() if not modality.has_in(its.info, settings)]
    if lacking and (skip or len(lacking) == len(members)):
      of_class = modality.of_class(members[lacking[0]].info)
      mask = ", or data.missing='mask' to train on what the others have" if len(lacking) < len(members) else ""
      raise UserError(
        f"data.views.{name}: dataset {lacking[0]} has no {modality.nouns} at all; set it to 0{mask}{of_class}"
      )


class Loader:
  """Makes the examples of one chunk: (epochs, indices), and with buckets the number of its own -> batch arrays of that
  many rows.

  Args:
    buckets: config.data of each bucket; none: `settings` are those of all.
  """

  def __init__(self, source: Source, settings: Mapping, seed: int, buckets: Sequence[Mapping] = ()):
    check_views(settings, source)
    self._of_buckets = tuple(buckets) or (settings,)
    self._info, self._settings, self._seed, self._source = source.info, settings, seed, source
    self._modalities = shown(settings)
    self.tokenizer = open_tokenizer(settings, source)
    self.attempts = Attempts(settings["on_error"])
    members = members_of(source)
    self.readers = {name: Reader(member, settings, self.attempts, CACHE_BYTES // len(members))
                    for name, member in members.items()}  # fmt: skip
    self._ends = list(itertools.accumulate(len(member) for member in members.values()))

  def __call__(self, chunk: tuple[Any, ...]) -> dict:
    epochs, wanted, bucket = chunk if len(chunk) == 3 else (*chunk, 0)
    modalities, settings = self._modalities, self._of_buckets[bucket]
    numbers = self._numbers(wanted, epochs)
    arrays = {
      name: {key: np.zeros((len(wanted), *shape), dtype) for key, (shape, dtype) in modality.arrays(settings).items()}
      for name, modality in modalities.items()
    }
    drawn: dict[str, list] = {name: [] for name in modalities}
    there = {name: np.zeros(len(wanted), bool) for name in modalities}
    found: list[tuple[int, int, Record, int]] = []  # (index, why, record, identity): nothing decoded
    usable = self._ahead(wanted.tolist())
    for row in range(len(wanted)):
      index, its = usable(row)
      while True:
        of_row = {stream: values[row] for stream, values in numbers.items()}
        if index != wanted[row]:  # another replaces the one wanted
          others = self._numbers(np.array([index]), epochs[row : row + 1])
          of_row = {stream: values[0] for stream, values in others.items()}
        rows = {name: {key: array[row] for key, array in of.items()} for name, of in arrays.items()}
        try:
          made = {name: one.view(its.values[name], of_row, settings, rows[name]) for name, one in modalities.items()}
          break
        except BadRecord as error:  # damaged where its views look, which decoding it did not show
          for of in rows.values():
            for array in of.values():
              array[...] = 0
          index, its = self._after(index, f"{its.record['name']}: {error}")
      for name in modalities:
        drawn[name].append(made[name])
        there[name][row] = its.values[name] is not None and len(its.values[name]) > 0
      found.append((index, its.why, its.record, self._identity(its, index)))
      del its, rows  # its memory is warm, and free for the next
    for name, modality in modalities.items():
      modality.finish(drawn[name], settings, self.tokenizer, arrays[name])
    batch = {key: array for of_modality in arrays.values() for key, array in of_modality.items()}
    return batch | self._facts(found, epochs) | ({"present": there} if settings["missing"] == "mask" else {})

  def _facts(self, found: Sequence[tuple[int, int, Record, int]], epochs: np.ndarray) -> dict:
    """What batches say of examples beside their views (`batch_schema.facts`), and why each is in its place."""
    places, why, records, identities = zip(*found)
    index = np.array(places, np.int32)
    seeds = noise.hashed(self._seed, index, epochs, noise.DEVICE) >> np.uint64(32)
    facts = {
      "id": np.array(identities, np.int32),
      "index": index,
      "seed": seeds.astype(np.uint32),
      "mirror_safe": np.array([record["mirror_safe"] for record in records], bool),
      "valid": np.ones(len(index), bool),
      "why": np.array(why, np.uint8),
    }
    if self._info.weighted:
      facts["weight"] = np.array([record.get("weight", 1.0) for record in records], np.float32)
    if self._info.tag_names:
      facts["tags"] = np.stack([record["tags"] for record in records])
    if names := self._info.label_names:
      labels = {name: np.array([record["labels"][name] for record in records], np.int32) for name in names}
      facts["labels"] = known_labels.hide(self._settings, names, labels, index)
    return facts

  def _numbers(self, index: np.ndarray, epochs: np.ndarray) -> dict[int, np.ndarray]:
    """Stream -> uniform numbers [N, ...] of the examples, of all modalities."""
    counts: dict[int, int] = {}
    for modality in self._modalities.values():
      counts |= modality.numbers(self._settings)
    return {stream: noise.uniform(self._seed, index, epochs, stream, count) for stream, count in counts.items()}

  def cut_line(self) -> str:
    """What limits of length cut from the views, in a line; "" where nothing is cut."""
    lines = (one.cut_line(self._source, self._settings, self.tokenizer) for one in self._modalities.values())
    return "; ".join(filter(None, lines))

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

  def _after(self, index: int, reason: str) -> tuple[int, Found]:
    """(index, example) of the first usable example after one whose views cannot be made, in the same source."""
    member = bisect.bisect_right(self._ends, index)
    first, reader = [0, *self._ends][member], list(self.readers.values())[member]
    found = reader.after(index - first, reason)
    return first + found.index, found

  def _identity(self, its: Found, index: int) -> int:
    for name, modality in self._modalities.items():
      if modality.identity == self._settings["identity"]:
        value = its.values[name]
        return modality.identity_of(value) if value else id_of_row(index)
    return its.record["id"]
