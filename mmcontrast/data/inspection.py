"""What `mmcontrast data inspect` says of a source: counts, schema, examples, pictures."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping, Sequence
from concurrent import futures
from typing import NamedTuple

import numpy as np

from mmcontrast.data.images import decode, header
from mmcontrast.data.sources import BadRecord, Info, Record, Source
from mmcontrast.data.sources.record import is_id_of_row
from mmcontrast.errors import UserError

RECORDS = 1000  # read for the numbers
DECODED = 200  # of them, whose images are decoded too, which takes longer
EXAMPLES, PICTURES = 5, 30  # shown
_NAMES = 12  # most frequent tags and labels that are listed
_LINE = 160  # characters of an example's line
_UNKNOWN = ("NOT READABLE", ())  # format and size
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
  rows += [(f"images: {style}", _images(records, style)) for style in info.styles]
  rows += [(f"captions: {field}", _captions(record["captions"].get(field, ()) for record in records))
           for field in info.caption_fields]  # fmt: skip
  if info.languages:
    rows += [("names", f"in {', '.join(info.languages)}")]
  if info.tag_names:
    totals = np.sum([record["tags"] for record in records], axis=0, initial=0, dtype=np.int64)
    without = sum(not record["tags"].any() for record in records)
    rows += [("tags", f"{len(info.tag_names)}: {_frequent(dict(zip(info.tag_names, totals)))}; {without} without any")]
  for label, names in info.label_names.items():
    found = collections.Counter(names[value] for record in records if (value := record["labels"][label]) >= 0)
    rows += [(f"labels: {label}", f"{len(names)}: {_frequent(found)}")]
  without = sum(is_id_of_row(record["id"]) for record in records)
  different = len({record["id"] for record in records}) - without
  rows += [("ids", f"{different} different" + (f"; {without} without one" if without else ""))]
  if info.styles and 0 < (without := sum(not record["images"] for record in records)) < len(records):
    rows += [("skipped", f"{without} without an image will be skipped; data.missing='mask' lets them pass, 'bad' "
              "counts them as bad records")]  # fmt: skip
  without = sum(not any(record["captions"].values()) for record in records)
  if info.caption_fields and 0 < without < len(records):
    rows += [("skipped", f"{without} without a caption will be skipped where text views ask for one; "
              "data.missing='mask' lets them pass, 'bad' counts them as bad records")]  # fmt: skip
  if bad:
    rows += [("bad", f"{len(bad)}: {_some(bad)}")]
  if broken:
    rows += [("bad images", f"{len(broken)} of {min(len(records), DECODED)} records: {_some(broken)}")]
  width = max(len(name) for name, _ in rows)
  lines = [info.name, *(f"  {name:{width}}  {text}" for name, text in rows)]
  text = "\n".join([*lines, *(f"\n{text}" for text in (_example(record, info) for record in records[:EXAMPLES]))])
  return Found(text, _fault(source, records, bad, broken))


def _fault(source: Source, records: Sequence[Record], bad: Mapping[int, str], broken: Mapping[int, str]) -> str:
  if bad and not records:
    return f"{source.info.name}: none of {len(bad)} records can be read, such as {_some(bad, 1)}"
  if broken and len(broken) == min(len(records), DECODED):
    return f"{source.info.name}: none of {len(broken)} images can be used, such as {_some(broken, 1)}"
  if records and not any(record["images"] or _usable(record) or any(record["names"].values()) for record in records):
    return f"{source.info.name}: none of {len(records)} records has an image or a text"
  return ""


def _usable(record: Record) -> bool:
  return any(text.strip() for texts in record["captions"].values() for text in texts)


def _some(reasons: Mapping[int, str], most: int = EXAMPLES) -> str:
  return "; ".join(f"record {index}: {reason}" for index, reason in list(reasons.items())[:most])


def _broken(records: Mapping[int, Record]) -> dict[int, str]:
  """Index -> reason of those, of DECODED evenly spaced ones, of which an image cannot be decoded."""

  def fault(record: Record) -> str:
    try:
      for data in record["images"].values():
        decode(data, exact=False)
    except BadRecord as error:
      return f"{record['name']}: {error}"
    return ""

  indices = list(records)[:: -(-len(records) // DECODED) or 1]
  with futures.ThreadPoolExecutor(_THREADS) as pool:
    faults = zip(indices, pool.map(fault, (records[index] for index in indices)))
    return {index: reason for index, reason in faults if reason}


def pictures(source: Source) -> tuple[list[np.ndarray], list[str]]:
  """PICTURES images of evenly spaced records, uint8 [H, W, 3], and a caption or name for each.

  Raises:
    UserError: none of them has a readable image.
  """
  images, words = [], []
  records, _ = _read(source, PICTURES // max(1, len(source.info.styles)))
  for record in records.values():
    texts = [text for field in record["captions"].values() for text in field]
    for data in record["images"].values():
      try:
        images.append(decode(data))
      except BadRecord:
        continue
      words.append(texts[0] if texts else record["name"])
  if not images:
    raise UserError(f"--out: none of {len(records)} records of {source.info.name} has a readable image")
  return images, words


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


def _images(records: Sequence[Record], style: str) -> str:
  kinds: collections.Counter[str] = collections.Counter()
  sizes, lengths = [], []
  for record in records:
    if (data := record["images"].get(style)) is None:
      continue
    lengths.append(len(data))
    kind, size = header(data) or _UNKNOWN
    kinds[kind] += 1
    sizes += [size] if size else []
  if not lengths:
    return f"none in {len(records)} records"
  each = sum(lengths) / len(lengths) / 1024
  text = f"{len(lengths)} of {len(records)} records; {_frequent(kinds)}; {each:.1f} KiB each"
  if sizes:
    (low, middle, high) = (sorted(sizes)[int(place * (len(sizes) - 1))] for place in (0, 0.5, 1))
    text += "; " + " / ".join(f"{width}x{height}" for width, height in dict.fromkeys((low, middle, high)))
  return text


def _captions(captions: Iterable[Sequence[str]]) -> str:
  captions = [[text for text in texts if text.strip()] for texts in captions]
  texts = [text for texts in captions for text in texts]
  if not texts:
    return f"none in {len(captions)} records"
  has, lengths = sum(map(bool, captions)), sorted(map(len, texts))
  spread = f"{lengths[0]} / {lengths[len(lengths) // 2]} / {lengths[-1]} characters (least / median / most)"
  return (f"{has} of {len(captions)} records; {len(texts) / has:.1f} each; {spread}; "
          f"{len(set(texts))} of {len(texts)} different")  # fmt: skip


def _frequent(counts: Mapping[str, int]) -> str:
  ordered = [(name, count) for name, count in sorted(counts.items(), key=lambda item: -item[1]) if count]
  more = f", ... {len(ordered) - _NAMES} more" if len(ordered) > _NAMES else ""
  return ", ".join(f"{name} {count}" for name, count in ordered[:_NAMES]) + more


def _example(record: Record, info: Info) -> str:
  identity = "no id" if is_id_of_row(record["id"]) else f"id {record['id']}"
  lines = [f"{record['name']} ({identity})"]
  for style, data in record["images"].items():
    kind, size = header(data) or _UNKNOWN
    lines.append(f"{style}: {kind} {'x'.join(map(str, size))}, {len(data)} bytes")
  for field, texts in record["captions"].items():
    lines += [f"{field}: {text}" for text in texts[:EXAMPLES]]
  if record["names"]:
    lines.append("names: " + ", ".join(f"{language} {name!r}" for language, name in record["names"].items()))
  if record["tags"].any():
    lines.append("tags: " + ", ".join(name for name, has in zip(info.tag_names, record["tags"]) if has))
  lines += [f"{label}: {info.label_names[label][value]}" for label, value in record["labels"].items()]
  lines = [" ".join(line.split()) for line in lines]
  return "\n  ".join(line if len(line) <= _LINE else f"{line[:_LINE]}..." for line in lines)
