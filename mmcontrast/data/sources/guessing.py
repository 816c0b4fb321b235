"""What a path that names no kind of source probably is: for the message that says so."""

from __future__ import annotations

import posixpath

from mmcontrast.data.sources import clip_benchmark, files, folder

_KINDS = {
  ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "csv", ".tab": "csv", ".parquet": "parquet",
  ".tar": "webdataset", ".tfrecord": "tfrecord", ".tfrecords": "tfrecord", ".array_record": "array_record",
}  # fmt: skip
# Of a folder of such files, the first that is there: img2dataset leaves tables beside its shards.
_PATTERNS = (".tar", ".tfrecord", ".tfrecords", ".parquet", ".jsonl", ".csv", ".tsv")
_SPLITS = {"train", "training", "val", "validation", "valid", "test"}


def guess(path: str) -> str | None:
  """KIND:PATH of a file, a pattern of files or a folder; None where nothing is like data."""
  ending = posixpath.splitext(path.lower())[1]
  if ending in _KINDS:
    return f"{_KINDS[ending]}:{path}"
  there = path.rstrip("/")
  names = files.names_in(there)
  if "annotations" in names:
    return f"coco:{there}"
  if any(clip_benchmark.SHARDS in files.names_in(f"{there}/{inner}") for inner in names if "." not in inner):
    return f"clip_benchmark:{there}"
  endings = {posixpath.splitext(name.lower())[1] for name in names}
  if ".array_record" in endings:
    return f"array_record:{there}"
  if tables := endings & set(_PATTERNS):
    ending = next(ending for ending in _PATTERNS if ending in tables)
    return f"{_KINDS[ending]}:{there}/*{ending}"
  if len(_SPLITS & set(names)) > 1:
    return f"folder:{there}/{{split}}"
  has_images = endings & set(folder.IMAGES) or any(
    name.lower().endswith(folder.IMAGES) for inner in names[:100] for name in files.names_in(f"{there}/{inner}")
  )
  return f"folder:{there}" if has_images else None
