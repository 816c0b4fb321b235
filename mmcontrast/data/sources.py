"""Sources: examples by index. A source has a length, an `info`, and gives records.

Registry: `SOURCES` maps the config's `data.dataset` to a function
`open(options, split, data_dir) -> Source`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Protocol, TypedDict

import numpy as np

from mmcontrast.data import build, coco
from mmcontrast.errors import MissingData, UserError, choose

SPLITS = ("train", "validation", "test", "all")


class Record(TypedDict):
  """One example as stored: nothing decoded, cropped or tokenised."""

  images: dict[str, bytes]  # encoded, by style (one entry named "image" where there are no styles)
  captions: list[str]
  names: dict[str, str]  # by language, of every language in `Info.languages`
  tags: np.ndarray  # uint8 multi-hot [T]; all zero when the example has none
  labels: dict[str, int]
  id: int
  name: str  # for messages: a key, a file name
  mirror_safe: bool


@dataclasses.dataclass(frozen=True)
class Info:
  """What a dataset knows of itself."""

  name: str
  styles: tuple[str, ...]
  tag_names: tuple[str, ...]
  label_names: Mapping[str, tuple[str, ...]]
  concepts: tuple[Mapping[str, str], ...] = ()  # key, name, split of every id, where ids are a list
  tokenizer: pathlib.Path | None = None  # the dataset's own
  languages: tuple[str, ...] = ()  # in which every example has a name


class Source(Protocol):
  """Random access to the records of one split; reading by several threads is safe."""

  info: Info

  def __len__(self) -> int: ...
  def __getitem__(self, index: int) -> Record: ...


class EmojiSource:
  """A dataset of `mmcontrast data build`; split "all" is train, validation, test in that order."""

  def __init__(self, folder: pathlib.Path, split: str):
    import tensorflow_datasets as tfds

    info = read_info(folder)
    choose(split, SPLITS, f"dataset {info.name}, split")
    version = json.loads((folder / "metadata.json").read_text())["version"]
    builder = tfds.builder_from_directory(folder / version)
    self.info = dataclasses.replace(info, languages=tuple(builder.info.features["names"]))
    self._examples = builder.as_data_source(
      split="+".join(SPLITS[:3]) if split == "all" else split,
      decoders={"images": {style: tfds.decode.SkipDecoding() for style in self.info.styles}},
    )

  def __len__(self) -> int:
    return len(self._examples)

  def __getitem__(self, index: int) -> Record:
    example = self._examples[index]
    tags = np.zeros(len(self.info.tag_names), np.uint8)
    tags[np.asarray(example["tags"], np.int64)] = 1
    return Record(
      images={style: bytes(example["images"][style]) for style in self.info.styles},
      captions=[caption.decode() for caption in example["captions"]],
      names={language: name.decode() for language, name in example["names"].items()},
      tags=tags,
      labels={name: int(value) for name, value in example["labels"].items()},
      id=int(example["id"]),
      name=example["key"].decode(),
      mirror_safe=bool(example["mirror_safe"]),
    )


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
  )


def open_built(name: str, split: str, data_dir: str | os.PathLike | None) -> EmojiSource:
  """Opens a built dataset; UserError naming the command when it is not there."""
  data_dir = pathlib.Path(data_dir or build.default_data_dir()).expanduser().absolute()
  if not build.is_built(name, data_dir):
    raise MissingData(f"dataset {name} is not in {data_dir}; run: mmcontrast data build {name}"
                      f" --data_dir {data_dir}")  # fmt: skip
  return EmojiSource(data_dir / name, split)


def _open_emoji_views(options: Mapping, split: str, data_dir) -> Source:
  del options
  return open_built("emoji_views", split, data_dir)


def _refuse_emoji_noto(options: Mapping, split: str, data_dir) -> Source:
  del options, split, data_dir
  raise UserError("data.dataset: emoji_noto is the unseen style, for evaluation only; "
                  "train on emoji_views")  # fmt: skip


def _open_coco(options: Mapping, split: str, data_dir) -> Source:
  return coco.CocoSource(options.get("coco") or {}, split, data_dir)


SOURCES: dict[str, Callable[[Mapping, str, str | os.PathLike | None], Source]] = {
  "emoji_views": _open_emoji_views,
  "emoji_noto": _refuse_emoji_noto,
  "coco": _open_coco,
}


def open_source(config: Mapping, split: str, data_dir: str | os.PathLike | None = None) -> Source:
  """Opens `config["dataset"]` for training.

  Raises:
    UserError: no such dataset or split, not built yet, or one that is for evaluation only.
  """
  name = choose(config["dataset"], SOURCES, "data.dataset")
  return SOURCES[name](config, split, data_dir)
