"""What `mmcontrast data inspect` says of a source: counts, schema, examples, pictures."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from concurrent import futures
from typing import NamedTuple

import numpy as np

from mmcontrast.data.record import is_id_of_row
from mmcontrast.data.sources import BadRecord, Info, Record, Source
from mmcontrast.errors import UserError
from mmcontrast.modalities import MODALITIES, Modality
from mmcontrast.modalities.use import Shown, frequent

RECORDS = 1000  # read for the numbers
DECODED = 200  # of them, whose images are decoded too, which takes longer
EXAMPLES, PICTURES = 5, 30  # shown
_LINE = 160  # characters of an example's line
_THREADS = 16  # reading is mostly waiting where the data is far away


class Found(NamedTuple):
  """What is said of a source."""

  text: str
  fault: str  # why no record that was read can be used; "" where one can


def describe(source: Source) -> str:
  """The text about `source`; see `inspect`."""
  return inspect(source).text


def inspect(source: Source) -> Found:
  """Reads RECORDS records, evenly spaced, and decodes the images of DECODED of them: what training would find.

  Bad ones are counted and named.
  """
  read, bad = _read(source, RECORDS)
  records, broken = list(read.values()), _broken(read)
  info, count = source.info, len(source)
  part = "" if len(records) + len(bad) == count else f"; the numbers below are of {len(records) + len(bad)} of them"
  rows = [("examples", f"{count}{part}")]
  rows += [("note", note) for note in info.notes]
  rows += [
    (f"{modality.nouns}: {key}", modality.described([_of_key(modality, record, key) for record in records]))
    for modality in _told()
    for key in modality.columns(info)
  ]
  if info.languages:
    rows += [("names", f"in {', '.join(info.languages)}")]
  if info.tag_names:
    totals = np.sum([record["tags"] for record in records], axis=0, initial=0, dtype=np.int64)
    without = sum(not record["tags"].any() for record in records)
    rows += [("tags", f"{len(info.tag_names)}: {frequent(dict(zip(info.tag_names, totals)))}; {without} without any")]
  for label, names in info.label_names.items():
    found = collections.Counter(names[value] for record in records if (value := record["labels"][label]) >= 0)
    rows += [(f"labels: {label}", f"{len(names)}: {frequent(found)}")]
  if info.regions:
    counts = [len(record.get("regions", ())) for record in records]
    texts = collections.Counter(text for record in records for one in record.get("regions", ()) for text in one.texts)
    rows += [("regions", f"{sum(counts) / max(1, len(counts)):.1f} each; {frequent(texts)}")]
  without = sum(is_id_of_row(record["id"]) for record in records)
  different = len({record["id"] for record in records}) - without
  rows += [("ids", f"{different} different" + (f"; {without} without one" if without else ""))]
  for modality in _told():
    without = sum(not modality.values(record) for record in records)
    if modality.columns(info) and 0 < without < len(records):
      asked = f" where {modality.name} views ask for one" if modality.words else ""
      said = f"{without} without {modality.a} will be skipped{asked}; data.missing='mask' lets them pass, 'bad' "
      rows += [("skipped", f"{said}counts them as bad records")]
  if bad:
    rows += [("bad", f"{len(bad)}: {_some(bad)}")]
  for things, reasons in broken.items():
    rows += [(f"bad {things}", f"{len(reasons)} of {min(len(records), DECODED)} records: {_some(reasons)}")]
  width = max(len(name) for name, _ in rows)
  lines = [info.name, *(f"  {name:{width}}  {text}" for name, text in rows)]
  text = "\n".join([*lines, *(f"\n{text}" for text in (_example(record, info) for record in records[:EXAMPLES]))])
  return Found(text, _fault(source, records, bad, broken))


def _fault(
  source: Source, records: Sequence[Record], bad: Mapping[int, str], broken: Mapping[str, Mapping[int, str]]
) -> str:
  if bad and not records:
    return f"{source.info.name}: none of {len(bad)} records can be read, such as {_some(bad, 1)}"
  for things, reasons in broken.items():
    if len(reasons) == min(len(records), DECODED):
      return f"{source.info.name}: none of {len(reasons)} {things} can be used, such as {_some(reasons, 1)}"
  if records and not any(_usable(record) for record in records):
    known = [modality for modality in _told() if modality.columns(source.info)] or _told()
    named = " or ".join("a text" if modality.words else modality.a for modality in known)
    return f"{source.info.name}: none of {len(records)} records has {named}"
  return ""


def _told() -> list[Modality]:
  """The modalities that hold things of records: those that another's things are shown by say nothing more."""
  return [modality for modality in MODALITIES.values() if not modality.derived]


def _usable(record: Record) -> bool:
  """Whether it has anything to learn from."""
  if any(record["names"].values()):
    return True
  things = (raw for modality in _told() for _, raw in modality.values(record))
  return any(raw.strip() if isinstance(raw, str) else True for raw in things)


def _of_key(modality: Modality, record: Record, key: str) -> list:
  return [raw for of, raw in modality.values(record) if of == key]


def _some(reasons: Mapping[int, str], most: int = EXAMPLES) -> str:
  return "; ".join(f"record {index}: {reason}" for index, reason in list(reasons.items())[:most])


def _broken(records: Mapping[int, Record]) -> dict[str, dict[int, str]]:
  """What it is of -> index -> reason of those, of DECODED evenly spaced records, of which a thing cannot be decoded."""

  def fault(index: int) -> tuple[str, str]:
    for modality in _told():
      try:
        for _, raw in modality.values(records[index]):
          modality.check_raw(raw)
      except BadRecord as error:
        return modality.nouns, f"{records[index]['name']}: {error}"
    return "", ""

  indices = list(records)[:: -(-len(records) // DECODED) or 1]
  found: dict[str, dict[int, str]] = {}
  with futures.ThreadPoolExecutor(_THREADS) as pool:
    for index, (things, reason) in zip(indices, pool.map(fault, indices)):
      if reason:
        found.setdefault(things, {})[index] = reason
  return found


def pictures(source: Source) -> tuple[list[Shown], list[str]]:
  """PICTURES things that can be seen, or heard, of evenly spaced records, and a caption or name for each.

  Raises:
    UserError: none of them can be read.
  """
  shown, words = [], []
  seen = [modality for modality in _told() if modality.pictured and modality.columns(source.info)]
  records, _ = _read(source, PICTURES // max(1, sum(len(modality.columns(source.info)) for modality in seen)))
  for record in records.values():
    texts = [raw for modality in _told() if modality.words for _, raw in modality.values(record)]
    for modality in seen:
      for _, raw in modality.values(record):
        try:
          shown.append(modality.show(raw))
        except BadRecord:
          continue
        words.append(texts[0] if texts else record["name"])
  if not shown:
    named = " or ".join(modality.a.replace(" ", " readable ", 1).replace("an r", "a r") for modality in seen)
    raise UserError(f"--out: none of {len(records)} records of {source.info.name} has {named or 'a readable image'}")
  return shown, words


def _read(source: Source, most: int) -> tuple[dict[int, Record], dict[int, str]]:
  """At most so many records by index, evenly spaced from the first on; and why others cannot be read."""

  def read(index: int) -> Record | str:
    try:
      return source[index]
    except (BadRecord, OSError) as error:
      return str(error)

  indices = range(0, len(source), -(-len(source) // most) or 1)
  with futures.ThreadPoolExecutor(_THREADS) as pool:
    found = list(zip(indices, pool.map(read, indices)))
  return ({index: record for index, record in found if not isinstance(record, str)},
          {index: reason for index, reason in found if isinstance(reason, str)})  # fmt: skip


def _example(record: Record, info: Info) -> str:
  identity = "no id" if is_id_of_row(record["id"]) else f"id {record['id']}"
  lines = [f"{record['name']} ({identity})"]
  for modality in _told():
    for key in modality.columns(info):
      lines += [f"{key}: {modality.describe(raw)}" for raw in _of_key(modality, record, key)[:EXAMPLES]]
  if record["names"]:
    lines.append("names: " + ", ".join(f"{language} {name!r}" for language, name in record["names"].items()))
  if record["tags"].any():
    lines.append("tags: " + ", ".join(name for name, has in zip(info.tag_names, record["tags"]) if has))
  lines += [f"{label}: {info.label_names[label][value]}" for label, value in record["labels"].items() if value >= 0]
  lines = [" ".join(line.split()) for line in lines]
  return "\n  ".join(line if len(line) <= _LINE else f"{line[:_LINE]}..." for line in lines)
