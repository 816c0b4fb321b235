"""The emoji datasets that `mmcontrast data build` makes."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from mmcontrast.data import build
from mmcontrast.data.datasets.spoken_columns import EFFECT, HELD_OUT, SPEAKERS, VOICES, columns
from mmcontrast.data.record import Info, Record, Region
from mmcontrast.data.sources.array_record import reading
from mmcontrast.errors import MissingData, UserError, choose
from mmcontrast.registry import check_options

SPLITS = ("train", "validation", "test", "all")


class EmojiSource:
  """A dataset of `mmcontrast data build`; split "all" is train, validation, test in that order.

  Args:
    sounds: the columns of sound to show; None: all that it has.
  """

  def __init__(self, folder: pathlib.Path, split: str, sounds: Sequence[str] | None = None):
    import tensorflow_datasets as tfds

    info = read_info(folder)
    choose(split, SPLITS, f"dataset {info.name}, split")
    version = json.loads((folder / "metadata.json").read_text())["version"]
    builder = tfds.builder_from_directory(folder / version)
    self._sounds = tuple(info.keys.get("audio", ()) if sounds is None else sounds)
    self._things = {name: columns for name, columns in info.keys.items() if name != "audio"}
    keys = self._things | ({"audio": self._sounds} if self._sounds else {})
    features = builder.info.features
    languages = tuple(sorted(features["names"])) if "names" in features else ()
    self.info = dataclasses.replace(info, languages=languages, keys=keys, regions="regions" in features)
    self._examples = builder.as_data_source(
      split="+".join(SPLITS[:3]) if split == "all" else split,
      decoders=({"images": {style: tfds.decode.SkipDecoding() for style in self.info.styles}} if info.styles else {})
      | ({"masks": tfds.decode.SkipDecoding()} if "masks" in features else {}),
    )

  def __len__(self) -> int:
    return len(self._examples)

  def __getitem__(self, index: int) -> Record:
    with reading(f"{self.info.name}:{index}"):
      example = self._examples[index]
    tags = np.zeros(len(self.info.tag_names), np.uint8)
    tags[np.asarray(example["tags"], np.int64)] = 1
    sounds = {column: bytes(example["audio"][column]) for column in self._sounds}
    record = Record(
      images={style: bytes(example["images"][style]) for style in self.info.styles},
      captions={"caption": [caption.decode() for caption in example["captions"]]},
      names={language: name.decode() for language, name in example.get("names", {}).items()},
      tags=tags,
      labels={name: int(value) for name, value in example["labels"].items()},
      id=int(example["id"]),
      name=example["key"].decode(),
      mirror_safe=bool(example["mirror_safe"]),
    )
    if self.info.regions:
      found = example["regions"]
      record["regions"] = [
        Region(tuple(map(float, box)), (text.decode(),)) for box, text in zip(found["box"], found["text"])
      ]
    if "masks" in example:
      record["parts"] = bytes(example["masks"])
    # Not those that whoever opened it left out of its schema.
    for name in self._things.keys() & self.info.keys.keys():
      record[name] = {column: bytes(example[name][column]) for column in self._things[name]}
    # A name of which nothing can be said is an empty file.
    return {**record, "audio": {column: sound for column, sound in sounds.items() if sound}} if sounds else record


def read_info(folder: pathlib.Path) -> Info:
  """The `Info` of a built dataset."""
  table = json.loads((folder / "metadata.json").read_text(encoding="utf-8"))
  tokenizer = folder / "tokenizer.model"
  return Info(
    name=table["name"],
    styles=tuple(table["styles"]),
    tag_names=tuple(table["tags"]),
    label_names={name: tuple(values) for name, values in table["labels"].items()},
    concepts=tuple(table["concepts"]),
    tokenizer=tokenizer if tokenizer.is_file() else None,
    keys={
      name: tuple(columns)
      for name, columns in {"audio": table.get("audio"), **table.get("things", {})}.items()
      if columns
    },
  )


def open_built(
  name: str, split: str, data_dir: str | os.PathLike | None, sounds: Sequence[str] | None = None
) -> EmojiSource:
  """Opens a built dataset; UserError naming the command when it is not there."""
  data_dir = build.data_folder(data_dir)
  if not build.is_built(name, data_dir):
    raise MissingData(f"dataset {name} is not in {data_dir}; run: mmcontrast data build {name}"
                      f" --data_dir {data_dir}")  # fmt: skip
  return EmojiSource(data_dir / name, split, sounds)


def open_emoji_views(path: str, options: Mapping, split: str, data_dir: str | os.PathLike | None) -> EmojiSource:
  """Opens emoji_views, which has no options."""
  _check("emoji_views", path, options, ())
  return open_built("emoji_views", split, data_dir)


def open_emoji_tones(path: str, options: Mapping, split: str, data_dir: str | os.PathLike | None) -> EmojiSource:
  """Opens emoji_tones, which has no options."""
  if path or options:
    raise UserError(f"data.dataset: emoji_tones takes no path and no data.source, not {path or dict(options)!r}")
  return open_built("emoji_tones", split, data_dir)


def open_emoji_scenes(path: str, options: Mapping, split: str, data_dir: str | os.PathLike | None) -> EmojiSource:
  """Opens emoji_scenes, which has no options."""
  if path or options:
    raise UserError(f"data.dataset: emoji_scenes takes no path and no data.source, not {path or dict(options)!r}")
  return open_built("emoji_scenes", split, data_dir)


def open_emoji_spoken(path: str, options: Mapping, split: str, data_dir: str | os.PathLike | None) -> EmojiSource:
  """Opens emoji_spoken to train on: by default what its English speakers say, but for those held out.

  Args:
    options: audio: the columns of sound, speakers such as "en-us+m1" and languages such as "de".
  """
  _check("emoji_spoken", path, options, ("audio",))
  allowed = columns(held_out=False)
  chosen = _chosen(options, SPEAKERS)
  for column in chosen:
    if column in HELD_OUT:
      raise UserError(f"data.source.audio: {column!r} is held out, for evaluation only; train on {', '.join(SPEAKERS)}")
    choose(column, allowed, "data.source.audio")
  return open_built("emoji_spoken", split, data_dir, chosen)


def open_tux_stamps(path: str, options: Mapping, split: str, data_dir: str | os.PathLike | None) -> EmojiSource:
  """Opens tux_stamps, by default with what people say in all languages.

  Args:
    options: audio: the columns of sound, languages such as "fr", or "sound": that of the thing itself.
  """
  _check("tux_stamps", path, options, ("audio",))
  chosen = _chosen(options, VOICES)
  for column in chosen:
    choose(column, (*VOICES, EFFECT), "data.source.audio")
  return open_built("tux_stamps", split, data_dir, chosen)


def _check(name: str, path: str, options: Mapping, known: Sequence[str]) -> None:
  """Raises UserError for a path, which no built dataset has, and for an option that is not `known`."""
  if path:
    raise UserError(f"data.dataset: {name} takes no path, not {path!r}")
  check_options(options, known, f"{name}: data.source")


def _chosen(options: Mapping, columns: Sequence[str]) -> tuple[str, ...]:
  """The columns of data.source.audio, one or several; `columns` where it names none."""
  named = options.get("audio") or columns
  return (named,) if isinstance(named, str) else tuple(named)


def refuse_emoji_spoken_noto(path, options, split, data_dir) -> EmojiSource:
  """Raises UserError: it is for evaluation."""
  del path, options, split, data_dir
  raise UserError("data.dataset: emoji_spoken_noto is the unseen style and speakers, for evaluation only; "
                  "train on emoji_spoken")  # fmt: skip


def refuse_emoji_noto(path: str, options: Mapping, split: str, data_dir: str | os.PathLike | None) -> EmojiSource:
  """Raises UserError: it is for evaluation."""
  del path, options, split, data_dir
  raise UserError("data.dataset: emoji_noto is the unseen style, for evaluation only; "
                  "train on emoji_views")  # fmt: skip
