"""Several sources as one: their examples one after another, in one schema, and how much each weighs."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from mmcontrast.data.record import Info, Record, Source, id_of_row, id_of_text, is_id_of_row
from mmcontrast.errors import UserError


class Mixture:
  """Sources by name; index: the lengths of those before, plus the index in its own.

  Styles, caption fields, languages and tags are united, so an example may lack some of them. Labels too: an example
  of a source without a label has -1, which is of no class. Ids of different sources differ: those that are given are
  hashed with the source's place, others are of the place in the mixture. So two sources that hold the same thing do
  not say so (config.data.identity="caption" does).

  Attributes:
    members: the sources by name, each giving records of the mixture's schema.
    weights: name -> its share of the examples of a run; they sum to 1.

  Raises:
    UserError: a label of one name has other classes in another source; an empty source.
  """

  def __init__(self, sources: Mapping[str, Source], weights: Mapping[str, float]):
    total = sum(weights.values())
    self.weights = {name: weights[name] / total for name in sources}
    self.info = _merged({name: source.info for name, source in sources.items()})
    firsts = [0, *itertools.accumulate(len(source) for source in sources.values())]
    self.members = {name: _Member(name, place, firsts[place], source, self.info)
                    for place, (name, source) in enumerate(sources.items())}  # fmt: skip
    for name, source in sources.items():
      if not len(source):
        raise UserError(f"data.mixture.{name}: {source.info.name} has no examples; leave it out")
    self._ends = firsts[1:]

  def __len__(self) -> int:
    return self._ends[-1]

  def __getitem__(self, index: int) -> Record:
    for end, member in zip(self._ends, self.members.values()):
      if index < end:
        return member[index - end + len(member)]
    raise IndexError(index)


class _Member:
  """A source that gives records of the mixture's schema."""

  def __init__(self, name: str, place: int, first: int, source: Source, whole: Info):
    self.info = dataclasses.replace(source.info, name=f"{name} ({source.info.name})")
    self._place, self._first, self._source = place, first, source
    self._labels = dict.fromkeys(whole.label_names, -1)
    self._columns = np.array([whole.tag_names.index(tag) for tag in source.info.tag_names], np.int64)
    self._tags = len(whole.tag_names)

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> Record:
    record = self._source[index]
    tags = np.zeros(self._tags, np.uint8)
    tags[self._columns] = record["tags"]
    its_own = self.info.row_ids or is_id_of_row(record["id"])
    identity = id_of_row(self._first + index) if its_own else id_of_text(f"{self._place} {record['id']}")
    return {**record, "tags": tags, "labels": {**self._labels, **record["labels"]}, "id": identity}


def _merged(infos: Mapping[str, Info]) -> Info:
  labels: dict[str, tuple[str, ...]] = {}
  owner: dict[str, str] = {}
  for name, info in infos.items():
    for label, classes in info.label_names.items():
      if labels.setdefault(label, classes) != classes:
        raise UserError(
          f"data.mixture: label {label!r} has other classes in {name!r} than in {owner[label]!r}; "
          "give one of them another name, or the same list of classes"
        )
      owner.setdefault(label, name)
  tokenizers = {info.tokenizer for info in infos.values()} - {None}
  return Info(
    name=" + ".join(infos), label_names=labels,
    tokenizer=tokenizers.pop() if len(tokenizers) == 1 else None,
    weighted=any(info.weighted for info in infos.values()),
    regions=any(info.regions for info in infos.values()),
    row_ids=all(info.row_ids for info in infos.values()),
    keys={one: _united(info.keys.get(one, ()) for info in infos.values())
          for one in _united(tuple(info.keys) for info in infos.values())},
    **{key: _united(getattr(info, key) for info in infos.values())
       for key in ("styles", "tag_names", "languages", "caption_fields")})  # fmt: skip


def _united(lists: Iterable[Sequence[str]]) -> tuple[str, ...]:
  """What is in any of them, in order of appearance."""
  return tuple(dict.fromkeys(itertools.chain.from_iterable(lists)))
