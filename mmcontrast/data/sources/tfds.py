"""Datasets of TensorFlow Datasets (TFDS) that are prepared as ArrayRecord; read without TensorFlow.

Features are columns: "image", and of nested ones "objects/label". A class label is its name.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from mmcontrast.data import build
from mmcontrast.data.record import Record
from mmcontrast.data.sources.array_record import reading
from mmcontrast.data.sources.fields import Fields
from mmcontrast.data.sources.shards import refuse_uncollected
from mmcontrast.errors import MissingData, UserError, choose, one_line

# Datasets that go by their name: their options, and how else to come by them.
_KNOWN = {
  "coco_captions": (
    {"caption": "captions/text", "tags": "objects/label", "id": "image/id", "name": "image/filename"},
    "; it downloads COCO 2014. COCO's own files need no TensorFlow: set data.dataset to coco:ROOT",
  ),
  "imagenet2012": (
    {"name": "file_name"},
    ", with ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar of image-net.org in {folder}/downloads/manual. Images "
    "in one folder for each class need no TensorFlow: set data.dataset to folder:ROOT",
  ),
}


class TfdsSource:
  """Records of one split; "all" is every split in turn.

  Args:
    path: NAME, NAME/CONFIG or NAME/CONFIG:VERSION, of a dataset in `data_dir` or in TFDS's own folder.

  Raises:
    UserError: not prepared, or in a format without random access; no such split; a wrong option.
  """

  def __init__(self, path: str, options: Mapping, split: str, data_dir: str | os.PathLike | None = None):
    builder = _open(path, data_dir)
    splits = list(builder.info.splits)
    if split == "validation" and split not in splits:
      split = "val"
    if split != "all":
      choose(split, splits, f"tfds:{path}: data.split")
    columns = {column: feature for column, feature, _ in _columns(builder.info.features)}
    self._classes = {column: feature.names for column, feature in columns.items() if hasattr(feature, "int2str")}
    options = {**_guess(builder.info.features), **_KNOWN.get(builder.name, ({},))[0], **options}
    labels = [options["labels"]] if isinstance(options["labels"], str) else options["labels"]
    names = {
      "label_names": {column: self._classes[column] for column in labels if column in self._classes},
      "tag_names": self._classes.get(options.get("tags"), ()),
    }
    self._fields = Fields({**names, **options}, f"tfds:{path}")
    self._fields.check_columns(columns, f"tfds:{path}")
    refuse_uncollected(self._fields, f"tfds:{path}")
    self._examples = builder.as_data_source(
      split="+".join(splits) if split == "all" else split, decoders=_undecoded(builder.info.features)
    )
    self._name = f"{path}/{split}"
    self.info = self._fields.info(builder.name)

  def __len__(self) -> int:
    return len(self._examples)

  def __getitem__(self, index: int) -> Record:
    name = f"{self._name}:{index}"
    with reading(name):
      row = dict(_row(self._examples[index]))
    for column, names in self._classes.items():
      row[column] = _names(row[column], names)
    return self._fields.record(row, index, name)


def open_known(name: str):
  """The opener of a dataset that goes by its name: "coco_captions" for "tfds:coco_captions"."""

  def open_(path: str, options: Mapping, split: str, data_dir: str | os.PathLike | None) -> TfdsSource:
    return TfdsSource(f"{name}/{path}" if path else name, options, split, data_dir)

  return open_


def _open(path: str, data_dir: str | os.PathLike | None):
  """The builder of a prepared dataset, made from its files only: the code of many needs TensorFlow."""
  from tensorflow_datasets.core import constants, read_only_builder, registered

  own = [build.data_folder(data_dir)] if data_dir else []
  folders = [*own, pathlib.Path(constants.get_default_data_dir()).expanduser()]
  name = path.partition("/")[0].partition(":")[0]
  for folder in folders:
    try:
      builder = read_only_builder.builder_from_files(path, data_dir=folder)
    except (registered.DatasetNotFoundError, ImportError):  # TFDS may look for the default config in the code
      continue
    except Exception as error:
      raise UserError(f"tfds:{path}: {one_line(error)}; give NAME or NAME/CONFIG") from error
    if (kind := builder.info.file_format.value) != "array_record":
      raise UserError(f"tfds:{path}: {builder.data_path} is {kind}, which has no random access; {_todo(path, 'NEW')}")
    return builder
  hint = _KNOWN.get(name, ({}, ""))[1].format(folder=folders[-1])
  raise MissingData(f"tfds:{path}: not prepared in {' or '.join(map(str, folders))}; {_todo(path, folders[-1])}{hint}")


def _todo(path: str, folder: str | pathlib.Path) -> str:
  """The command that prepares a dataset; TFDS's own `tfds build` needs Apache Beam besides."""
  return (f'where TensorFlow is installed, run: python -c "import tensorflow_datasets as tfds; tfds.builder({path!r}, '
          f"data_dir='{folder}', file_format='array_record').download_and_prepare()\"")  # fmt: skip


def _columns(features: Mapping, path: str = "", repeated: bool = False) -> Iterator[tuple[str, Any, bool]]:
  """(column, feature, whether an example has many) of every leaf."""
  import tensorflow_datasets as tfds

  for name, feature in sorted(features.items()):  # in the files they have no order
    many = repeated
    while isinstance(feature, tfds.features.Sequence):
      feature, many = feature.feature, True
    if isinstance(feature, tfds.features.FeaturesDict):
      yield from _columns(feature, f"{path}{name}/", many)
    else:
      yield path + name, feature, many


def _guess(features: Mapping) -> dict[str, Any]:
  """The options that a dataset's features suggest."""
  import tensorflow_datasets as tfds

  columns = list(_columns(features))
  images = [column for column, feature, many in columns if isinstance(feature, tfds.features.Image) and not many]
  texts = [column for column, feature, _ in columns if isinstance(feature, tfds.features.Text)]
  labels = [column for column, feature, many in columns if hasattr(feature, "int2str") and not many]
  return {
    "image": "image" if "image" in images else images[0] if len(images) == 1 else None,
    "caption": next((column for column in ("caption", "captions", "text") if column in texts), None),
    "labels": labels,
  }


def _undecoded(features: Mapping) -> dict[str, Any]:
  """Decoders that leave images as they are stored."""
  import tensorflow_datasets as tfds

  decoders = {}
  for name, feature in features.items():
    if isinstance(feature, tfds.features.Image):
      decoders[name] = tfds.decode.SkipDecoding()
    elif isinstance(feature, tfds.features.FeaturesDict) and (inner := _undecoded(feature)):
      decoders[name] = inner
  return decoders


def _row(example: Mapping, path: str = "") -> Iterator[tuple[str, Any]]:
  for name, value in example.items():
    if isinstance(value, Mapping):
      yield from _row(value, f"{path}{name}/")
    else:
      yield path + name, value


def _names(value: Any, names: list[str]) -> Any:
  """The names of class numbers; None for -1, which says that there is none."""
  if isinstance(value, (list, tuple)):
    return [_names(one, names) for one in value]
  return names[int(value)] if value >= 0 else None
