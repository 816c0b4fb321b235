"""A model on captions among the same words in another order, made of any captioned pictures: ARO's order sets."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from mmcontrast.data.record import BadRecord, Record, Source
from mmcontrast.data.sources import open_source
from mmcontrast.data.sources.keys import key_of
from mmcontrast.errors import UserError, note
from mmcontrast.evaluation.embed import unit
from mmcontrast.evaluation.protocols import described, digest
from mmcontrast.evaluation.protocols.edits import ROUNDING
from mmcontrast.evaluation.protocols.word_order import EDITS, edits_of, words_of
from mmcontrast.inference import Inference
from mmcontrast.inference.embed_records import some
from mmcontrast.inference.suite_sets import MeasuredSet, check_images_and_texts, embedded, one_image

KIND = "aro_order_plain"
_USUAL_SPLITS = {"karpathy": "test", "clip_benchmark": "test"}  # of other sources all
_SEED = 0


class OrderSet:
  """The captions of a source, each among its edits; see suite_sets.SuiteSet."""

  kind: ClassVar[str] = "word order"
  main: ClassVar[str] = "edits"
  datacomp: ClassVar[str] = ""

  def __init__(self, name: str, source: Source, split: str):
    self.name, self.source, self.split = name, source, split

  def key(self) -> list[Any]:
    return [KIND, self.split, [_key(self.source, index) for index in range(len(self.source))]]

  def check(self, model: Inference, where: str) -> None:
    check_images_and_texts(model, where)

  def measure(self, model: Inference, where: str) -> MeasuredSet:
    del where
    read = one_image(model.data, _captions)
    part = embedded(model, model.kind_of("image"), self.source, read, ("index", "captions"))
    rows, columns = part.rows["image"]
    if part.bad:
      note(
        f"{self.name}: {len(part.bad)} of {len(self.source)} records cannot be used and are left out: {some(part.bad)}"
      )
    captions = [words_of(text) for of in columns["captions"] for text in of] if len(rows) else []
    owner = np.repeat(np.arange(len(rows)), [len(of) for of in columns["captions"]]) if len(rows) else ()
    edited = [edits_of(words, number, _SEED) for number, words in enumerate(captions)]
    cases = [number for number, edits in enumerate(edited) if edits]
    if not cases:
      raise UserError(
        f"{self.name}: none of {len(captions)} captions of {len(rows)} pictures has words that can stand in another "
        "order; give a source of pictures with captions of several words (data.source.caption says where they are)"
      )
    if short := len(captions) - len(cases):
      note(f"{self.name}: {short} of {len(captions)} captions have no other order of their words and are left out")
    right = _right(model, rows, owner, captions, edited)
    outcomes = {
      "image_of_case": np.unique(owner[cases], return_inverse=True)[1],
      "edits": np.array([all(right[number].values()) for number in cases]),
    }
    each = {name: [of[name] for of in right if name in of] for name in EDITS}
    record = described(
      f"{KIND}-v1",
      model.config,
      split=self.split,
      seed=_SEED,
      captions=len(cases),
      texts=digest(*([words, *edits.values()] for words, edits in zip(captions, edited))),
    )
    metrics = {name: float(np.mean(of)) for name, of in each.items() if of}
    return MeasuredSet(outcomes, record, len(rows), len(part.bad), metrics)


def open_sets(place: str, split: str = "") -> dict[str, OrderSet]:
  """The set of a source, KIND:PATH, one. Raises UserError as `open_source`."""
  kind = place.partition(":")[0]
  split = split or _USUAL_SPLITS.get(kind, "all")
  try:
    source = open_source({"dataset": place, "source": {}}, split)
  except UserError as error:
    said = str(error).removeprefix("data.dataset: ")
    raise type(error)(f"--suite {KIND}:{place}: {said}") from None
  name = f"order_{split}".replace("+", "_")
  return {name: OrderSet(f"{KIND}:{place}", source, split)}


def _captions(record: Record) -> dict[str, list[str]]:
  return {"captions": [text for of in record["captions"].values() for text in of]}


def _key(source: Source, index: int) -> str:
  try:
    return key_of(source, index)
  except (BadRecord, OSError) as error:
    return str(error)


def _right(
  model: Inference, rows: np.ndarray, owner: np.ndarray, captions: list[list[str]], edited: list[dict[str, list[str]]]
) -> list[dict[str, bool]]:
  """Of each caption, whether it scores above each of its edits; equal scores are lost."""
  texts = {" ".join(words): 0 for words in captions} | {" ".join(of): 0 for edits in edited for of in edits.values()}
  made, rows = unit(model.embed("text", list(texts))), unit(rows)
  place = {text: number for number, text in enumerate(texts)}
  out = []
  for image, words, edits in zip(rows[owner], captions, edited):
    true = image @ made[place[" ".join(words)]]
    out.append({name: bool(true > image @ made[place[" ".join(of)]] + ROUNDING) for name, of in edits.items()})
  return out
