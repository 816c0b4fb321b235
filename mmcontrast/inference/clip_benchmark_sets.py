"""A model on a set in CLIP_benchmark's layout: what it makes of each picture, and by what it was measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mmcontrast.data.record import Record
from mmcontrast.data.sources.clip_benchmark import (
  BEYOND,
  CLASSES,
  CLASSIFICATION,
  LABEL,
  MULTILABEL,
  RETRIEVAL,
  TEMPLATES,
  ClipBenchmarkSource,
  Layout,
  find_sets,
  read_layout,
)
from mmcontrast.data.sources.keys import key_of_file
from mmcontrast.errors import UserError, note
from mmcontrast.evaluation.embed import unit
from mmcontrast.evaluation.protocols import CLIP_BENCHMARK, clip_benchmark, datacomp, described, digest
from mmcontrast.evaluation.protocols.edits import true_first
from mmcontrast.evaluation.protocols.outcomes import MEAN_RECALL
from mmcontrast.evaluation.zero_shot import class_rows
from mmcontrast.inference import Inference
from mmcontrast.inference.embed_records import some
from mmcontrast.inference.suite_sets import MeasuredSet, check_images_and_texts, embedded, one_image

_OF_EDITS = ("sugar_crepe", "aro", "vg_relation", "vg_attribution", "coco_order", "flickr30k_order")
_COLUMNS = ("index", "label", "captions", "targets")
_NAMED = 3


_MAIN = {CLASSIFICATION: "acc1", MULTILABEL: "mean_average_precision", RETRIEVAL: MEAN_RECALL}


class ClipBenchmarkSet(NamedTuple):
  """A set in that layout; see suite_sets.SuiteSet."""

  name: str
  layout: Layout

  @property
  def kind(self) -> str:
    return self.layout.kind

  @property
  def datacomp(self) -> str:
    """What DataComp calls it; "" where it has none of that name."""
    return datacomp.called(self.name)

  @property
  def main(self) -> str:
    """The metric that counts."""
    edits = self.kind == RETRIEVAL and is_of_edits(self.name)
    return datacomp.metric(self.name) or ("edits" if edits else _MAIN[self.kind])

  def key(self) -> list[Any]:
    return [CLIP_BENCHMARK, self.layout, [key_of_file(path) for path in self.layout.paths]]

  def check(self, model: Inference, where: str) -> None:
    check_images_and_texts(model, where)
    _check_templates(self.name, self.layout)

  def measure(self, model: Inference, where: str) -> MeasuredSet:
    del where
    return measure(model, self.name, ClipBenchmarkSource(self.layout.folder, {}, self.layout.split))


def open_sets(folder: str, split: str = "") -> dict[str, ClipBenchmarkSet]:
  """The sets of a folder by name. Raises UserError as `find_sets` and `read_layout`."""
  split = split or "test"
  return {name: ClipBenchmarkSet(name, read_layout(path, split)) for name, path in find_sets(folder, split).items()}


def is_of_edits(name: str) -> bool:
  """Whether the captions of a set are a true one and its edits, by its name."""
  return any(part.removeprefix("wds_").startswith(_OF_EDITS) for part in name.split("/"))


def measure(model: Inference, name: str, source: ClipBenchmarkSource) -> MeasuredSet:
  """Measures a set by clip_benchmark-1.6.

  Args:
    name: of the set, in messages; one that begins with sugar_crepe or the like is of captions among their edits.
  Raises UserError where no record can be used, and for class names without templates.
  """
  layout = source.layout
  _check_templates(name, layout)
  part = embedded(model, model.kind_of("image"), source, one_image(model.data, _kept), _COLUMNS)
  rows, columns = part.rows["image"]
  if beyond := {index: why for index, why in part.bad.items() if BEYOND in why}:
    raise UserError(
      f"{name}: {len(beyond)} of {len(source)} pictures are of a class that {CLASSES} has no line for: {some(beyond)}; "
      "write a line a class, in the order of their numbers"
    )
  if part.bad:
    note(f"{name}: {len(part.bad)} of {len(source)} records cannot be used and are left out: {some(part.bad)}")
  if not len(rows):
    raise UserError(f"{name}: none of its {len(source)} records can be used")
  found = (
    _of_captions(model, name, rows, columns) if layout.kind == RETRIEVAL else _of_classes(model, source, rows, columns)
  )
  outcomes, facts = found
  if "label" in outcomes:
    _say_empty(name, outcomes["label"], layout.classes)
  return MeasuredSet(
    outcomes,
    described(CLIP_BENCHMARK, model.config, split=layout.split, computed_in="float32", **facts),
    len(rows),
    len(part.bad),
  )


def _check_templates(name: str, layout: Layout) -> None:
  if layout.kind != RETRIEVAL and not layout.templates:
    raise UserError(
      f"{name}: {TEMPLATES} of {layout.folder} is not there or empty; write one, a line a prompt: a photo of a {{c}}."
    )


def _say_doubles(name: str, classes: Sequence[str]) -> None:
  """Says which classes have one name, and so equal scores."""
  first = {one: number for number, one in reversed(list(enumerate(classes, 1)))}
  if doubles := [(first[one], number, one) for number, one in enumerate(classes, 1) if first[one] != number]:
    one, other, called = doubles[0]
    note(
      f"{name}: {CLASSES}: lines {one} and {other} are both {called!r}"
      + (f", and {len(doubles) - 1} more stand twice" if len(doubles) > 1 else "")
      + ": such classes have equal scores, and the first is taken"
    )


def _kept(record: Record) -> dict[str, Any]:
  return {
    "label": record["labels"].get(LABEL, -1),
    "captions": record["captions"].get("caption", []),
    "targets": record["tags"],
  }


Found = tuple[dict[str, np.ndarray], dict[str, Any]]


def _of_classes(model: Inference, source: ClipBenchmarkSource, rows: np.ndarray, columns: dict) -> Found:
  layout = source.layout
  _say_doubles(source.info.name, layout.classes)
  classes = class_rows(model.embed, [layout.prompts(name) for name in layout.classes])
  facts = {"templates": len(layout.templates), "prompts": digest(layout.templates, layout.classes)}
  if layout.kind == MULTILABEL:
    scores = (np.float32(100) * unit(rows)) @ classes.T
    return {"scores": scores, "targets": np.array(columns["targets"], bool)}, facts
  labels = np.array(columns["label"], np.int64)
  return {"label": labels, **clip_benchmark.classified(rows, classes, labels)}, facts


def _of_captions(model: Inference, name: str, rows: np.ndarray, columns: dict) -> Found:
  captions = columns["captions"]
  counts = np.array([len(of) for of in captions])
  if not counts.sum():
    raise UserError(f"{name}: none of its {len(rows)} pictures has a caption in its member txt")
  texts = model.embed("text", [text for of in captions for text in of])
  facts = {"captions_a_thing": f"{counts.min()}" + (f" to {counts.max()}" if counts.max() > counts.min() else "")}
  if is_of_edits(name):
    if counts.min() != counts.max() or counts.min() < 2:
      raise UserError(
        f"{name}: has {facts['captions_a_thing']} captions a picture; a true one and its edits are wanted"
      )
    several = texts.reshape(len(rows), counts[0], -1)
    found = clip_benchmark.selection(rows[:, None], several)
    return found | {"edits": true_first(rows, several)}, facts | {"edits": "ties against the model, as edits-v1"}
  owner = np.repeat(np.arange(len(rows)), counts)
  hits = clip_benchmark.recalls(texts, rows, owner)
  named = {f"{which}_retrieval_recall@{k}": hit for which, of in hits.items() for k, hit in of.items()}
  return {"image_of_text": owner, **named}, facts


def _say_empty(name: str, labels: np.ndarray, classes: Sequence[str]) -> None:
  empty = sorted(set(range(len(classes))) - set(labels.tolist()))
  if empty:
    few = ", ".join(repr(classes[one]) for one in empty[:_NAMED]) + (", ..." if len(empty) > _NAMED else "")
    note(
      f"{name}: {len(empty)} of {len(classes)} classes have no picture ({few}); mean_per_class_recall is over "
      "the others"
    )
