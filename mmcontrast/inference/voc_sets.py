"""A run's tower of images on VOC 2007, by the two forms of the linear SVM: each with its own resize."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from mmcontrast.data.images import pillow_resize
from mmcontrast.data.sources.voc import VocSource
from mmcontrast.data.transforms import resize_and_crop
from mmcontrast.errors import UserError
from mmcontrast.evaluation.protocols import described, voc07
from mmcontrast.inference import Inference
from mmcontrast.inference.suite_sets import MeasuredSet, View, all_embedded, check_features, one_image

_SHARE = 224 / 256  # of the shorter side that is cut out


def cropped(pixels: np.ndarray, data: Mapping) -> np.ndarray:
  """Shorter side 256, centre 224; of a model of S pixels, 256 S / 224 and S."""
  return resize_and_crop(pixels, data["image_size"], _SHARE, "shortest", "bilinear")


def squashed(pixels: np.ndarray, data: Mapping) -> np.ndarray:
  """Shorter side 256, then all of it as a square of 224; of a model of S pixels, 256 S / 224 and S."""
  size = data["image_size"]
  short = int(size / _SHARE)
  height, width, _ = pixels.shape
  wide, high = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
  first = np.asarray(Image.fromarray(pixels).resize((wide, high), Image.Resampling.BILINEAR))
  return pillow_resize(first, size, (0, 0, wide, high))


VIEWS: dict[str, View] = {"voc07-virtex": cropped, "voc07-vissl": squashed}


class VocSet:
  """One form of the protocol on a folder; see suite_sets.SuiteSet."""

  kind: ClassVar[str] = "linear SVM"
  main: ClassVar[str] = "map"
  datacomp: ClassVar[str] = ""

  def __init__(self, form: str, path: str, train: VocSource, test: VocSource):
    self.form, self.path, self.train, self.test = form, path, train, test

  def key(self) -> list[Any]:
    return [self.form, [[one.key(index) for index in range(len(one))] for one in (self.train, self.test)]]

  def check(self, model: Inference, where: str) -> None:
    check_features(model, where)

  def measure(self, model: Inference, where: str) -> MeasuredSet:
    del where
    train, test = (self._features(model, one) for one in (self.train, self.test))
    found = voc07.measure(self.form, train, self.train.targets, test, self.test.targets, self.train.info.tag_names)
    record = described(
      self.form,
      model.config,
      split="trainval, test",
      resize=self.form.partition("-")[2],
      interpolation="bilinear",
      crop=_SHARE if self.form == "voc07-virtex" else 1.0,
      pooled="the output of the tower (VISSL pools ResNet-50's last map to 8,192 numbers)",
    )
    return MeasuredSet({}, record, len(self.test), metrics=found)

  def _features(self, model: Inference, source: VocSource) -> np.ndarray:
    read = one_image(model.data, view=VIEWS[self.form])
    return all_embedded(model, "image_features", source, read, f"voc07:{self.path}")


def open_sets(folder: str, split: str = "") -> dict[str, VocSet]:
  """Both forms. Raises UserError as VocSource, for a class of too few pictures, and for a split: the protocol has its
  own."""
  if split:
    raise UserError(f"voc07:{folder}: --split {split}: the protocol trains on trainval and tests on test; leave it out")
  train, test = (VocSource(folder, {}, one) for one in ("trainval", "test"))
  if train.info.tag_names != test.info.tag_names:
    raise UserError(f"voc07:{folder}: trainval and test have other classes; each class needs a file of both")
  voc07.check_targets(train.targets, test.targets, train.info.tag_names, f"voc07:{folder}")
  return {form.replace("-", "_"): VocSet(form, folder, train, test) for form in voc07.FORMS}
