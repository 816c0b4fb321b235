"""Sources: examples by index. A source has a length, an `info`, and gives records.

A config names one by `data.dataset`: NAME of a dataset, or KIND:PATH of files in a format.
`data.source` holds its options. One more is a file here and a line in SOURCES.
Several are named by `data.mixture` (mixture.py).
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping

from mmcontrast.data.record import BadRecord, Info, Record, Source
from mmcontrast.data.shuffled import ShuffledCaptions
from mmcontrast.data.sources import (
  array_record,
  clip_benchmark,
  coco,
  csv_rows,
  emoji,
  emoji_order,
  folder,
  furniture,
  furniture_pixels,
  heartbeats,
  jsonl,
  karpathy,
  parquet,
  shards,
  simulated_ecg,
  tfds,
  voc,
  wordnet,
)
from mmcontrast.data.sources.added_captions import added
from mmcontrast.data.sources.guessing import guess
from mmcontrast.data.sources.kept import kept
from mmcontrast.data.sources.mixture import Mixture
from mmcontrast.errors import UserError, choose
from mmcontrast.registry import check_options

__all__ = ["SOURCES", "BadRecord", "Info", "Mixture", "Record", "Source", "members_of", "open_source"]

DataDir = str | os.PathLike | None
Opener = Callable[[str, Mapping, str, DataDir], Source]
"""(path, options, split, data_dir) -> source: what stands after the colon, `data.source`, the split."""

SOURCES: dict[str, Opener] = {
  "emoji_views": emoji.open_emoji_views,
  "emoji_tones": emoji.open_emoji_tones,
  "emoji_scenes": emoji.open_emoji_scenes,
  "emoji_noto": emoji.refuse_emoji_noto,
  "emoji_spoken": emoji.open_emoji_spoken,
  "emoji_spoken_noto": emoji.refuse_emoji_spoken_noto,
  "tux_stamps": emoji.open_tux_stamps,
  "furniture": furniture.open_furniture,
  "furniture_turns": furniture.open_furniture_turns,
  "furniture_scripts": furniture.open_furniture_scripts,
  "furniture_pixels": furniture_pixels.open_furniture_pixels,
  "simulated_ecg": simulated_ecg.open_simulated_ecg,
  "wordnet": wordnet.open_wordnet,
  "emoji_order": emoji_order.open_emoji_order,
  "heartbeats": heartbeats.Heartbeats,
  "coco": coco.CocoSource,
  "webdataset": shards.open_webdataset,
  "tfrecord": shards.open_tfrecord,
  "clip_benchmark": clip_benchmark.ClipBenchmarkSource,
  "array_record": array_record.ArrayRecordSource,
  "tfds": tfds.TfdsSource,
  "karpathy": karpathy.KarpathySource,
  "voc": voc.VocSource,
  "coco_captions": tfds.open_known("coco_captions"),
  "imagenet2012": tfds.open_known("imagenet2012"),
  "folder": folder.FolderSource,
  "jsonl": jsonl.open_jsonl,
  "csv": csv_rows.open_csv,
  "parquet": parquet.open_parquet,
}
_OF_FILES = (
  "webdataset",
  "tfrecord",
  "clip_benchmark",
  "karpathy",
  "voc",
  "array_record",
  "tfds",
  "folder",
  "jsonl",
  "csv",
  "parquet",
)
OF_A_MIXTURE = {"dataset": inspect.Parameter.empty, "source": {}, "split": None, "kept": "", "weight": 1.0}
"""What an entry of `config.data.mixture` may say and its default (None: that of config.data)."""


def open_source(config: Mapping, split: str, data_dir: DataDir = None) -> Source:
  """Opens `config["dataset"]` with the options `config["source"]`, or the mixture of `config["mixture"]`, for training.

  Args:
    config: the config's `data`. Of a mixture: name -> dict(dataset=, source=, split=, kept=, weight=),
      `split`, "" and 1.0 where they are not given. "kept": kept.py. "added_captions": added_captions.py.
      "shuffled_captions": shuffled.py, within each source of a mixture.

  Raises:
    UserError: no such dataset or split, not built yet, or one that is for evaluation only; in a
      mixture, with the name of the source.
  """
  if mixture := config.get("mixture"):
    names = sorted(mixture)  # a config that comes back from a checkpoint has lost the order it was written in
    for name in names:
      _check(name, mixture[name])
    noise = {"shuffled_captions": config.get("shuffled_captions") or {}}
    sources = {name: _open_one(name, {**mixture[name], **noise}, split, data_dir) for name in names}
    whole = Mixture(sources, {name: float(mixture[name].get("weight", 1.0)) for name in names})
    return kept(added(whole, config), config, split)
  if not config["dataset"]:
    raise UserError(
      "data.dataset: no data are named; give NAME or KIND:PATH, such as --config.data.dataset=jsonl:/data/mine.jsonl"
    )
  kind, colon, path = config["dataset"].partition(":")
  bare = kind not in SOURCES and (not colon or "/" in kind or path.startswith("//"))  # a path or URL alone
  if bare and (guessed := guess(config["dataset"])):
    raise UserError(f"data.dataset: {config['dataset']!r} names no kind of source before its path; did you mean "
                    f"{guessed!r}?")  # fmt: skip
  choose(kind, SOURCES, "data.dataset")
  if not path and (colon or kind in _OF_FILES):
    raise UserError(
      f"data.dataset: {config['dataset']!r} has no path after " + ("the colon" if colon else f"it; give {kind}:PATH")
    )
  source = SOURCES[kind](path, config.get("source") or {}, split, data_dir)
  if (shuffled := config.get("shuffled_captions") or {}).get("share"):
    source = ShuffledCaptions(source, **{"seed": 0, **shuffled})
  return kept(added(source, config), config, split)


def members_of(source: Source) -> dict[str, Source]:
  """The sources that are read, by name: those of a mixture, or only `source`."""
  return dict(source.members) if isinstance(source, Mixture) else {source.info.name: source}


def _check(name: str, given: object) -> None:
  where = f"data.mixture.{name}"
  if not isinstance(given, Mapping) or "dataset" not in given:
    raise UserError(f"{where}: {given!r} names no dataset; give dict(dataset=..., weight=1.0)")
  check_options(given, OF_A_MIXTURE, where)
  weight = given.get("weight", 1.0)
  if not isinstance(weight, int | float) or not 0 < weight < float("inf"):
    raise UserError(f"{where}.weight: {weight!r}; give a number above 0, or leave {name!r} out")


def _open_one(name: str, given: Mapping, split: str, data_dir: DataDir) -> Source:
  one = {key: given.get(key) or {} for key in ("dataset", "source", "kept", "shuffled_captions")}
  try:
    return open_source(one, given.get("split", split), data_dir)
  except UserError as error:
    raise type(error)(f"data.mixture.{name}: {error}") from None
