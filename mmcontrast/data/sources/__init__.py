"""Sources: examples by index. A source has a length, an `info`, and gives records.

A config names one by `data.dataset`: NAME of a dataset, or KIND:PATH of files in a format.
`data.source` holds its options. One more is a file here and a line in SOURCES.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from mmcontrast.data.sources import array_record, coco, csv_rows, emoji, folder, jsonl, parquet, shards, tfds
from mmcontrast.data.sources.record import BadRecord, Info, Record, Source
from mmcontrast.errors import UserError, choose

__all__ = ["SOURCES", "BadRecord", "Info", "Record", "Source", "open_source"]

DataDir = str | os.PathLike | None
Opener = Callable[[str, Mapping, str, DataDir], Source]
"""(path, options, split, data_dir) -> source: what stands after the colon, `data.source`, the split."""

SOURCES: dict[str, Opener] = {
  "emoji_views": emoji.open_emoji_views,
  "emoji_noto": emoji.refuse_emoji_noto,
  "coco": coco.CocoSource,
  "webdataset": shards.open_webdataset,
  "tfrecord": shards.open_tfrecord,
  "array_record": array_record.ArrayRecordSource,
  "tfds": tfds.TfdsSource,
  "coco_captions": tfds.open_known("coco_captions"),
  "imagenet2012": tfds.open_known("imagenet2012"),
  "folder": folder.FolderSource,
  "jsonl": jsonl.open_jsonl,
  "csv": csv_rows.open_csv,
  "parquet": parquet.open_parquet,
}


def open_source(config: Mapping, split: str, data_dir: DataDir = None) -> Source:
  """Opens `config["dataset"]` with the options `config["source"]`, for training.

  Raises:
    UserError: no such dataset or split, not built yet, or one that is for evaluation only.
  """
  kind, colon, path = config["dataset"].partition(":")
  choose(kind, SOURCES, "data.dataset")
  if colon and not path:
    raise UserError(f"data.dataset: {config['dataset']!r} has no path after the colon")
  return SOURCES[kind](path, config.get("source") or {}, split, data_dir)
