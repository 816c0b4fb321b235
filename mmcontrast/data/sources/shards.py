"""WebDataset's tar shards, and the TFRecord shards that img2dataset writes: read by their indexes.

Both give rows of the same columns: every member (or feature) by its name, and besides `image` from
an image's suffix (jpg, png, webp, ...), `audio` from a sound's (wav, flac, mp3, ...), `caption` from txt,
`label` from cls, and the keys of json.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mmcontrast.data.record import BadRecord, Record
from mmcontrast.data.sources import shard_index, splits
from mmcontrast.data.sources.fields import Fields
from mmcontrast.data.torn_samples import IMAGES
from mmcontrast.errors import UserError
from mmcontrast.modalities import MODALITIES

_SUCCEEDED = "success"  # what img2dataset's json says of a download that did


class ShardSource:
  """Records of one split of the shards of a pattern, in the order of their names and places in them.

  Raises:
    UserError: unknown option, no such shard or split, a shard without an index, a vocabulary that is not given.
  """

  def __init__(
    self, kind: str, parse: Callable[[dict[str, bytes]], dict[str, Any]], path: str, options: Mapping, split: str
  ):
    """`parse`: the columns of one sample from its members."""
    name = f"{kind}:{path}"
    self._fields, self._parse = Fields(options, name, {"splits": {}}), parse
    refuse_uncollected(self._fields, name)
    shares = self._fields.options["splits"]
    pattern = splits.fill_path(path, split, shares, name)
    if shares and self._fields.options["id"]:
      raise UserError(f"{name}: data.source.splits: splits by ids, and shards are not searched for those of "
                      "data.source.id; leave one of them out, or put {split} in the path")  # fmt: skip
    self._shards = shard_index.Shards(pattern)
    self._kinds = {}  # modality -> endings of members that are of it
    for one, modality in MODALITIES.items():
      kinds = tuple(suffix.removeprefix(".") for suffix in modality.suffixes)
      if modality.source_options and self._shards.extensions & set(kinds):
        self._fields.take(one, one)
        self._kinds[one] = kinds
    self._rows = splits.chosen(np.arange(len(self._shards)), split, shares, name)
    self.info = self._fields.info(name)

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: int) -> Record:
    number = int(self._rows[index])
    name, members = self._shards[number]
    try:
      row = self._parse(members)
      image = next((row[kind] for kind in IMAGES if kind in row), row.get("image"))
      row["image"] = image if isinstance(image, bytes) else None  # no path that json names is opened
      for one, kinds in self._kinds.items():
        row[one] = next((row[kind] for kind in kinds if kind in row), None)
      row |= {column: row[kind] for column, kind in (("caption", "txt"), ("label", "cls")) if kind in row}
      record = self._fields.record(row, number, name)
      # Without an image a failed download is as it should be; one that succeeded has lost it.
      if self.info.styles and not record["images"] and row.get("status") == _SUCCEEDED:
        raise BadRecord(f"no image, though its json has the status {_SUCCEEDED!r}")
      return record
    except BadRecord as error:
      raise BadRecord(f"{name}: {error}") from None

  def key(self, index: int) -> str:
    """See keys.key_of; no member is read."""
    return self._shards.key(int(self._rows[index]))


def refuse_uncollected(fields: Fields, where: str) -> None:
  """UserError when `fields` lack a vocabulary, which a source of shards does not collect."""
  if missing := fields.uncollected:
    tags = missing[0] == fields.options["tags"]
    key, value = ("tag_names", ["red", "round"]) if tags else ("label_names", {missing[0]: ["cat", "dog"]})
    raise UserError(f"{where}: data.source.{key}: give the names that column {missing[0]!r} may hold, in order, such "
                    f"as {value}; finding them would mean reading every shard")  # fmt: skip


def open_webdataset(path: str, options: Mapping, split: str, data_dir: str | os.PathLike | None) -> ShardSource:
  """Opens tar shards; `path` is a pattern, in which {split} stands for the split."""
  return ShardSource("webdataset", _members, path, options, split)


def open_tfrecord(path: str, options: Mapping, split: str, data_dir: str | os.PathLike | None) -> ShardSource:
  """Opens TFRecord shards of tf.train.Example messages; `path` as of `open_webdataset`."""
  return ShardSource("tfrecord", _example, path, options, split)


def _members(members: dict[str, bytes]) -> dict[str, Any]:
  return {**_json(members.get("json", b"{}")), **members}


def _example(members: dict[str, bytes]) -> dict[str, Any]:
  # The messages of tf.train.Example as tensorflow-datasets brings them along; no TensorFlow.
  from google.protobuf.message import DecodeError
  from tensorflow_datasets.proto.tf_example_generated_pb2 import Example

  try:
    features = Example.FromString(shard_index.checked(members[""])).features.feature
  except DecodeError:
    raise BadRecord("not a tf.train.Example") from None
  row = {}
  for name, feature in features.items():
    kind = feature.WhichOneof("kind")
    values = list(getattr(feature, kind).value) if kind else []
    row[name] = values[0] if len(values) == 1 else values or None
  return {**_json(row.get("json") or b"{}"), **row}


def _json(data: bytes) -> dict[str, Any]:
  try:
    row = json.loads(data)
  except (ValueError, TypeError) as error:  # bytes that are not UTF-8 are a ValueError too
    raise BadRecord(f"json cannot be read ({error})") from None
  if not isinstance(row, dict):
    raise BadRecord("json is not a table of keys and values")
  return row
