"""A model on true captions among their edits: SugarCrepe, ARO, Winoground."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from mmcontrast.data.images import decode
from mmcontrast.data.record import BadRecord, Record
from mmcontrast.data.sources import edited_captions
from mmcontrast.data.sources.edited_captions import EditedCaptions
from mmcontrast.data.transforms import evaluation_view
from mmcontrast.errors import UserError
from mmcontrast.evaluation.protocols import described, edits
from mmcontrast.inference import Inference
from mmcontrast.inference.embed_records import Values
from mmcontrast.inference.suite_sets import MeasuredSet, all_embedded, check_images_and_texts
from mmcontrast.modalities import MODALITIES

_FEWEST = {"vg_attribution": 25}  # examples of a kind of edit that counts in "macro"; of other sets one


class EditsSet:
  """Examples of one file; see suite_sets.SuiteSet."""

  datacomp: ClassVar[str] = ""

  def __init__(self, name: str, source: EditedCaptions):
    self.name, self.source = name, source
    self.kind = "winoground" if name == "winoground" else "edits"
    self.main = "group" if self.kind == "winoground" else "edits"

  def key(self) -> list[Any]:
    return [self.kind, [self.source.key(index) for index in range(len(self.source))]]

  def check(self, model: Inference, where: str) -> None:
    check_images_and_texts(model, where)

  def measure(self, model: Inference, where: str) -> MeasuredSet:
    del where
    source = self.source
    rows = all_embedded(model, model.kind_of("image"), source, _reads(source, model.data), source.info.name)
    texts = model.embed("text", [text for one in source.examples for text in one.captions])
    count = len(source.examples)
    images, captions = rows.reshape(count, -1, rows.shape[-1]), texts.reshape(count, -1, texts.shape[-1])
    if self.kind == "winoground":
      return MeasuredSet(edits.winoground(images, captions), described("winoground-v1", model.config), count)
    right = edits.true_first(images[:, 0], captions)
    return MeasuredSet({"edits": right}, described("edits-v1", model.config), count, metrics=self._macro(right))

  def _macro(self, right: np.ndarray) -> dict[str, float]:
    """The mean over kinds of edits, where examples say which they are of."""
    kinds = np.array([one.edit for one in self.source.examples])
    each = [right[kinds == one].mean() for one in np.unique(kinds) if (kinds == one).sum() >= _FEWEST.get(self.name, 1)]
    return {"macro": float(np.mean(each))} if each and "" not in kinds else {}


def opener(read: Callable[[str], dict[str, EditedCaptions]], kind: str) -> Callable[[str, str], dict[str, EditsSet]]:
  """Opens the sets of a folder."""

  def open_sets(folder: str, split: str = "") -> dict[str, EditsSet]:
    if split:
      raise UserError(f"{kind}:{folder}: --split {split}: it has no splits; leave it out")
    return {name: EditsSet(name, source) for name, source in read(folder).items()}

  return open_sets


OPENERS = {name: opener(getattr(edited_captions, name), name) for name in ("sugar_crepe", "aro", "winoground")}


def _reads(source: EditedCaptions, data: Mapping) -> Callable[[Record, Mapping], Values]:
  """As suite_sets.one_image, of the part of each picture that counts."""
  image = MODALITIES["image"]

  def read(record: Record, what: Mapping) -> Values:
    pixels = decode(next(raw for _, raw in image.values(record, data)), data["limits"])
    if box := source.box(what["index"]):
      x0, y0, x1, y1 = (max(0, int(one)) for one in box)
      high, wide = pixels.shape[:2]
      pixels = pixels[y0:y1, x0:x1]
      if not pixels.size:
        raise BadRecord(f"the box {tuple(box)} lies beside the picture of {wide} x {high} pixels")
    return [(dict(what), evaluation_view(pixels, data))]

  return read
