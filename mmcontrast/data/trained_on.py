"""Whether an evaluation set is of what a run trains on: by dataset, options and split, without reading a record."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping
from typing import Any, NamedTuple

from mmcontrast.data.sources import files
from mmcontrast.errors import UserError

TRAINED_ON, HELD_OUT, OTHER_DATA = "trained on", "held out", "other data"
_SPLIT_NAMES = {"val": "validation", "dev": "validation"}
_TABLES = ("jsonl", "csv", "parquet", "webdataset", "tfrecord", "array_record")  # files of a pattern
_OF_SHARES = (*_TABLES, "folder")  # without {split} in the path, splits are shares of the rows, or the whole


class _Part(NamedTuple):
  """What of which data: `split` None for all of it."""

  kind: str
  pattern: str  # with {split} in it
  path: str  # without
  split: str | None
  shares: tuple


def relation(dataset: str, source: Mapping[str, Any], split: str, data: Mapping[str, Any]) -> str:
  """TRAINED_ON where examples of a set may be among those that a run trains on, HELD_OUT where they are others of the
  same data, OTHER_DATA where the data are others.

  Args:
    dataset, source, split: of the set, as in `config.data`.
    data: the resolved `config.data` of the run; with a mixture, the nearest of its sources counts.
  """
  its = _part(dataset, source, split)
  found = {_compare(its, _part(one["dataset"], one.get("source") or {}, one.get("split", data["split"])))
           for one in (data.get("mixture") or {"": data}).values()}  # fmt: skip
  return min(found, key=(TRAINED_ON, HELD_OUT, OTHER_DATA).index)


def described(data: Mapping[str, Any]) -> str:
  """What a run trains on, in words: its datasets."""
  return ", ".join(one["dataset"] for one in (data.get("mixture") or {"": data}).values())


def _part(dataset: str, source: Mapping[str, Any], split: str) -> _Part:
  kind, _, pattern = dataset.partition(":")
  shares = source.get("splits") or {}
  path = pattern.replace("{split}", "*" if split == "all" else split)
  if "{split}" in pattern or (kind in _OF_SHARES and not shares) or split == "all":
    its = None  # of the path it is all
  else:
    its = _SPLIT_NAMES.get(split, split)
  return _Part(kind, _normal(pattern), _normal(path), its, tuple(sorted(shares.items())))


def _normal(path: str) -> str:
  return path if "://" in path or not path else os.path.realpath(os.path.expanduser(path))


def _compare(its: _Part, trained: _Part) -> str:
  emoji = {its.kind, trained.kind} <= {"emoji_views", "emoji_noto", "emoji_spoken", "emoji_spoken_noto"}
  if its.kind != trained.kind:
    return HELD_OUT if emoji else OTHER_DATA
  if _share_files(its, trained):
    # Rows that two sets of options divide differently are on both sides.
    apart = its.shares == trained.shares and None not in (its.split, trained.split) and its.split != trained.split
    return HELD_OUT if apart and not emoji else TRAINED_ON
  beside = posixpath.dirname(its.pattern) == posixpath.dirname(trained.pattern)
  return HELD_OUT if its.pattern == trained.pattern or beside else OTHER_DATA


def _share_files(one: _Part, other: _Part) -> bool:
  if one.path == other.path:
    return True
  if one.kind == "folder":
    short, long = sorted((one.path, other.path), key=len)
    return long.startswith(f"{short}/") or ("*" in short and posixpath.dirname(short) == posixpath.dirname(long))
  if one.kind not in _TABLES:
    return False
  if "://" in one.path + other.path and posixpath.dirname(one.path) != posixpath.dirname(other.path):
    return False  # not worth a listing of two remote folders
  try:
    return bool(set(files.find(one.path)) & set(files.find(other.path)))
  except (UserError, OSError):  # what was trained on need not be on this machine
    return False
