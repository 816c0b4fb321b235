"""A model on images with captions in several languages: how much the rank of an image varies (MRV), recall of each."""

from __future__ import annotations

from typing import Any, ClassVar

from mmcontrast.data.sources.multilingual_captions import MultilingualCaptions, multilingual
from mmcontrast.errors import UserError
from mmcontrast.evaluation.protocols import described, edits
from mmcontrast.evaluation.protocols.outcomes import MRV, RECALL
from mmcontrast.inference import Inference
from mmcontrast.inference.suite_sets import MeasuredSet, all_embedded, check_images_and_texts, one_image


class MultilingualSet:
  """Images and their captions; see suite_sets.SuiteSet."""

  kind: ClassVar[str] = "multilingual"
  main: ClassVar[str] = RECALL
  datacomp: ClassVar[str] = ""

  def __init__(self, name: str, source: MultilingualCaptions):
    self.name, self.source = name, source

  def key(self) -> list[Any]:
    return [self.kind, list(self.source.languages), [self.source.key(index) for index in range(len(self.source))]]

  def check(self, model: Inference, where: str) -> None:
    check_images_and_texts(model, where)

  def measure(self, model: Inference, where: str) -> MeasuredSet:
    del where
    source = self.source
    rows = all_embedded(model, model.kind_of("image"), source, one_image(model.data), source.info.name)
    ranks = {name: edits.image_ranks(rows, model.embed("text", texts)) for name, texts in source.languages.items()}
    outcomes = {MRV: edits.rank_variances(ranks)} | {f"{RECALL}_{name}": of == 1 for name, of in ranks.items()}
    protocol = described("mrv-v1", model.config, languages=sorted(source.languages))
    return MeasuredSet(outcomes, protocol, len(source))


def open_sets(folder: str, split: str = "") -> dict[str, MultilingualSet]:
  """The sets of a folder by name. Raises UserError as `multilingual`."""
  if split:
    raise UserError(f"mrv:{folder}: --split {split}: its sets are tests; leave it out, and name some with --sets")
  return {name: MultilingualSet(name, source) for name, source in multilingual(folder).items()}
