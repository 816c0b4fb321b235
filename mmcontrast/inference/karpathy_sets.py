"""A model on COCO's and Flickr30k's test images of Karpathy's split, five captions each."""

from __future__ import annotations

import pathlib
from typing import Any, ClassVar

import numpy as np

from mmcontrast.data.sources.karpathy import KarpathySource
from mmcontrast.errors import UserError, note
from mmcontrast.evaluation.protocols import coco, described
from mmcontrast.evaluation.protocols.outcomes import MEAN_RECALL
from mmcontrast.inference import Inference
from mmcontrast.inference.suite_sets import MeasuredSet, all_embedded, check_images_and_texts, one_image

CAPTIONS = 5


class KarpathySet:
  """The images of a split with their first five captions; see suite_sets.SuiteSet."""

  kind: ClassVar[str] = "retrieval"
  main: ClassVar[str] = MEAN_RECALL
  datacomp: ClassVar[str] = ""

  def __init__(self, path: str, source: KarpathySource, split: str, positives: Any = None):
    """`positives`: those of the package eccv-caption, for COCO's test images."""
    self.path, self.source, self.split, self.positives = path, source, split, positives
    self.protocol = "coco_karpathy-v1" if source.is_coco else "flickr30k_karpathy-v1"

  def key(self) -> list[Any]:
    return [self.protocol, self.positives is not None, [self.source.key(index) for index in range(len(self.source))]]

  def check(self, model: Inference, where: str) -> None:
    check_images_and_texts(model, where)

  def measure(self, model: Inference, where: str) -> MeasuredSet:
    del where
    source = self.source
    images = all_embedded(model, model.kind_of("image"), source, one_image(model.data), f"karpathy:{self.path}")
    captions = [source.captions(index) for index in range(len(source))]
    counts = np.array([len(of) for of in captions])
    texts = model.embed("text", [text for of in captions for text in of])
    owner = np.repeat(np.arange(len(images)), counts)
    outcomes = {"image_of_text": owner}
    for one, rank in zip(("image", "text"), coco.ranks_both_ways(images, texts, owner)):
      outcomes |= {f"{one}_retrieval_recall@{k}": rank <= k for k in coco.RECALL_AT}
    captions_a_thing = f"{counts.min()}" + (f" to {counts.max()}" if counts.min() < counts.max() else "")
    facts = {"split": self.split, "captions_a_thing": captions_a_thing}
    return MeasuredSet(
      outcomes,
      described(self.protocol, model.config, **facts),
      len(images),
      metrics=self._further(images, texts, owner),
    )

  def _further(self, images: np.ndarray, texts: np.ndarray, owner: np.ndarray) -> dict[str, float]:
    """Of COCO's 5,000 images: the five folds, and what the package has positives for."""
    source, out = self.source, {}
    if source.is_coco and len(images) == coco.FOLDS * coco.FOLD:
      out |= coco.folds(images, texts, owner)
    if self.positives is not None:
      of_texts = [one for ids in source.caption_ids for one in ids]
      of_images = [source.identity(index) for index in range(len(source))]
      out |= coco.cxc_and_eccv(images, of_images, texts, of_texts, self.positives)
    return out


def open_sets(folder: str, split: str = "") -> dict[str, KarpathySet]:
  """COCO's or Flickr30k's set of a folder, one. Raises UserError as KarpathySource, and for images without captions."""
  split = split or "test"
  source = KarpathySource(folder, {"captions": CAPTIONS}, split)
  counts = [len(source.captions(index)) for index in range(len(source))]
  if 0 in counts:
    raise UserError(f"karpathy:{folder}: image {source.identity(counts.index(0))} of split {split} has no caption")
  for index in range(len(source)):
    if empty := [number for number, text in enumerate(source.captions(index), 1) if not text.strip()]:
      raise UserError(
        f"karpathy:{folder}: image {source.identity(index)} of split {split}: caption {empty[0]} is empty; remove it "
        f"from {source.file}"
      )
  if few := sum(count < CAPTIONS for count in counts):
    note(f"karpathy:{folder}: {few} of {len(source)} images have fewer than five captions")
  positives = None
  if source.is_coco and split == "test":
    try:
      positives = coco.positives_of_package()
    except UserError as error:
      note(f"{error}; they are left out")
  name = pathlib.PurePosixPath(source.file).stem.removeprefix("dataset_")
  return {f"{name}_{split}": KarpathySet(folder, source, split, positives)}
