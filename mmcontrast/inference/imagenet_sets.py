"""A run on ImageNet in folders, ROOT/train/n01440764 and ROOT/val/n01440764: zero-shot, low-shot and linear probes."""

from __future__ import annotations

import importlib.util
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np

from mmcontrast.data import transforms
from mmcontrast.data.images import decode
from mmcontrast.data.record import Record, Source
from mmcontrast.data.sources import open_source
from mmcontrast.data.sources.clip_benchmark import CLASSES, TEMPLATES, read_names, read_templates
from mmcontrast.errors import UserError
from mmcontrast.evaluation import linear_probe
from mmcontrast.evaluation.protocols import CLIP_BENCHMARK, clip_benchmark, described, digest, sgd_probe
from mmcontrast.evaluation.zero_shot import class_rows
from mmcontrast.inference import Inference
from mmcontrast.inference.embed_records import Values
from mmcontrast.inference.suite_sets import MeasuredSet, all_embedded, check_features, check_images_and_texts, one_image
from mmcontrast.inference.voc_sets import cropped
from mmcontrast.modalities import MODALITIES

SCHEDULE = sgd_probe.MOCO
_CROP = {"scale": (0.08, 1.0), "ratio": (3 / 4, 4 / 3), "zoom_out": 1.0, "rotate": 0.0}
_RESIZED = {"resize": "shortest", "interpolation": "bilinear", "crop": 224 / 256}
_SET = "imagenet1k"  # as clip-benchmark calls the names and prompts of the 1,000 classes


class Folders(NamedTuple):
  """ImageNet in folders: the labelled images of train and val, of the same classes in the same order."""

  root: str
  train: Source
  val: Source

  def labels(self, source: Source) -> np.ndarray:
    """int [N], without reading an image."""
    return np.array([source.label(index) for index in range(len(source))], np.int64)

  @property
  def classes(self) -> tuple[str, ...]:
    return self.val.info.label_names["class"]


class ImageNetSet:
  """One protocol on the folders; see suite_sets.SuiteSet."""

  kind: ClassVar[str] = "classification"
  main: ClassVar[str] = "acc1"
  datacomp: ClassVar[str] = ""

  def __init__(self, name: str, folders: Folders):
    self.name, self.folders = name, folders

  def key(self) -> list[Any]:
    sources = [self.folders.val] if self.name == "zero_shot" else [self.folders.train, self.folders.val]
    names = names_and_templates(self.folders) if self.name == "zero_shot" else None
    return [self.name, names, [[len(one), one.key(0), one.key(len(one) - 1)] for one in sources]]

  def check(self, model: Inference, where: str) -> None:
    (check_images_and_texts if self.name == "zero_shot" else check_features)(model, where)
    if self.name == "zero_shot":
      names_and_templates(self.folders)

  def measure(self, model: Inference, where: str) -> MeasuredSet:
    del where
    measured, record = _MEASURES[self.name](model, self.folders)
    labels = self.folders.labels(self.folders.val)
    return MeasuredSet({"label": labels, **measured(labels)}, record, len(labels))


Found = tuple[Callable[[np.ndarray], dict[str, np.ndarray]], dict[str, Any]]
"""(labels of val) -> outcomes; and what is written beside them."""


def names_and_templates(folders: Folders) -> tuple[list[str], list[str]]:
  """A name for each class, and the prompts, with "{c}": of files in the folder, as CLIP_benchmark has them, else those
  of the package clip-benchmark where it is installed. Raises UserError where there are none, or names for others."""
  where = f"imagenet:{folders.root}"
  names, templates = read_names(folders.root, where), read_templates(folders.root, where)
  if bool(names) != bool(templates):
    has, lacks = (CLASSES, TEMPLATES) if names else (TEMPLATES, CLASSES)
    raise UserError(f"{where}: has {has} and no {lacks}, or an empty one; write both, or remove {has}")
  if not names:
    package = importlib.util.find_spec("clip_benchmark")
    if package is None:
      raise UserError(
        f"{where}: no {CLASSES} and {TEMPLATES} for zero-shot; write them there, or take the usual 80 prompts of "
        "the package: pip install --no-deps clip-benchmark"
      )
    data = pathlib.Path(package.submodule_search_locations[0]) / "datasets"  # read, not imported: that wants torch
    names, templates = (
      json.loads((data / f"en_{which}.json").read_text())[_SET]
      for which in ("classnames", "zeroshot_classification_templates")
    )
  if len(names) != len(folders.classes):
    raise UserError(
      f"{where}: {len(names)} names for {len(folders.classes)} classes; write {CLASSES} with a line a class, "
      "in the order of the folders"
    )
  return list(names), list(templates)


def _zero_shot(model: Inference, folders: Folders) -> Found:
  names, templates = names_and_templates(folders)
  classes = class_rows(model.embed, [[one.replace("{c}", name) for one in templates] for name in names])
  rows = all_embedded(model, model.kind_of("image"), folders.val, one_image(model.data), f"imagenet:{folders.root}")
  facts = {"split": "val", "templates": len(templates), "prompts": digest(templates, names)}
  return lambda labels: clip_benchmark.classified(rows, classes, labels), described(
    CLIP_BENCHMARK, model.config, **facts
  )


def _features(model: Inference, folders: Folders, source: Source) -> np.ndarray:
  read = one_image(model.data, view=cropped)
  return all_embedded(model, "image_features", source, read, f"imagenet:{folders.root}")


def _low_shot(share: float) -> Callable[[Inference, Folders], Found]:
  def measure(model: Inference, folders: Folders) -> Found:
    labels = folders.labels(folders.train)
    chosen = sgd_probe.subset(labels, share)
    read = one_image(model.data, view=cropped)
    where = f"imagenet:{folders.root}"
    train = all_embedded(model, "image_features", _Subset(folders.train, chosen), read, where)
    probe = linear_probe.fit(train, labels[chosen])
    test = _features(model, folders, folders.val)

    def outcomes(labels: np.ndarray) -> dict[str, np.ndarray]:
      pred = probe.predict(test)
      return {"acc1": pred == labels, "pred": pred}

    record = described(
      "low_shot-v1", model.config, split="val", share=share, images=len(chosen), l2=probe.l2, **_RESIZED
    )
    return outcomes, record

  return measure


def _cached(model: Inference, folders: Folders) -> Found:
  train = _features(model, folders, folders.train)
  return _probed(model, folders, lambda epoch: train, "moco_lincls_cached-v1")


def _with_crops(model: Inference, folders: Folders) -> Found:
  """New crops and flips of every image in every epoch, which go through the network again."""

  def features(epoch: int) -> np.ndarray:
    where = f"imagenet:{folders.root}"
    return all_embedded(model, "image_features", folders.train, _random_views(model.data, epoch), where)

  return _probed(model, folders, features, "moco_lincls-v1")


def _probed(model: Inference, folders: Folders, features: Callable[[int], np.ndarray], protocol: str) -> Found:
  found = sgd_probe.fit(features, folders.labels(folders.train), len(folders.classes), SCHEDULE)
  test = _features(model, folders, folders.val)
  record = described(protocol, model.config, split="train, val", seed=0, **_RESIZED)
  return lambda labels: sgd_probe.accuracies(found, test, labels), record


def _random_views(data: Mapping, epoch: int) -> Callable[[Record, Mapping], Values]:
  """As `one_image`: a random resized crop of 8 to 100 % of the area, mirrored or not; others each epoch."""
  image = MODALITIES["image"]

  def read(record: Record, what: Mapping) -> Values:
    raw = next(raw for _, raw in image.values(record, data))
    draws = np.random.default_rng([0, epoch, what["index"]]).random(transforms.DRAWS + 1)
    pixels = transforms.random_crop(decode(raw, data["limits"]), data["image_size"], draws[:-1], _CROP)
    return [(dict(what), pixels[:, ::-1] if draws[-1] < 0.5 else pixels)]

  return read


class _Subset:
  """Some records of a source."""

  def __init__(self, source: Source, rows: np.ndarray):
    self._source, self._rows, self.info = source, rows, source.info

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: int) -> Record:
    return self._source[int(self._rows[index])]

  def key(self, index: int) -> str:
    return self._source.key(int(self._rows[index]))


_MEASURES: dict[str, Callable[[Inference, Folders], Found]] = {
  "zero_shot": _zero_shot,
  "low_shot_1": _low_shot(0.01),
  "low_shot_10": _low_shot(0.1),
  "moco_lincls_cached": _cached,
  "moco_lincls": _with_crops,
}


def open_sets(folder: str, split: str = "") -> dict[str, ImageNetSet]:
  """The protocols on a folder, those that take least first. Raises UserError as FolderSource, for other classes in val
  than in train, a class without a picture in one of them, and for a split: the protocols have their own."""
  where = f"imagenet:{folder}"
  if split:
    raise UserError(f"{where}: --split {split}: the protocols train on train and test on val; leave it out")
  try:
    train, val = (open_source({"dataset": f"folder:{folder}/{{split}}", "source": {}}, one) for one in ("train", "val"))
  except UserError as error:
    raise type(error)(f"{where}: {error}; the folder needs train/CLASS/x.JPEG and val/CLASS/y.JPEG") from None
  for one in (train, val):
    if "class" not in one.info.label_names:
      raise UserError(f"{where}: has no class folders, as in train/n01440764/x.JPEG and val/n01440764/y.JPEG")
  ours, theirs = (one.info.label_names["class"] for one in (train, val))
  for name in {*ours} ^ {*theirs}:
    missing = "test pictures, in val" if name in ours else "pictures to train on, in train"
    raise UserError(f"{where}: class {name!r} has no {missing}; the two folders need the same classes")
  folders = Folders(folder, train, val)
  return {name: ImageNetSet(name, folders) for name in _MEASURES}
