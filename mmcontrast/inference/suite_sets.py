"""What `mmcontrast benchmark` asks of a set, whatever its protocol, and what it is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from mmcontrast.data.images import decode
from mmcontrast.data.record import BadRecord, Record, Source
from mmcontrast.data.transforms import evaluation_view
from mmcontrast.errors import UserError
from mmcontrast.inference import Inference
from mmcontrast.inference.embed_records import Embedder, Part, Values, Wanted, progress, some
from mmcontrast.modalities import MODALITIES


class MeasuredSet(NamedTuple):
  """A set that was measured.

  Attributes:
    outcomes: what the model made of each example, see protocols/outcomes.py; none where examples are not told apart.
    protocol: what is written beside its numbers.
    examples: how many were measured; left_out: records that cannot be used.
    metrics: further ones than those of `outcomes`.
  """

  outcomes: Mapping[str, np.ndarray]
  protocol: Mapping[str, Any]
  examples: int
  left_out: int = 0
  metrics: Mapping[str, float] = {}


class SuiteSet(Protocol):
  """A set of a suite.

  Attributes:
    kind: in a word; main: the metric that counts; datacomp: what DataComp calls it, "" where it does not have it.
  """

  kind: str
  main: str
  datacomp: str

  def key(self) -> list[Any]:
    """What tells its results from those of other files or another protocol."""

  def check(self, model: Inference, where: str) -> None:
    """Raises UserError, which begins with `where`, for a model that cannot be measured."""

  def measure(self, model: Inference, where: str) -> MeasuredSet:
    """Measures a model, of the run `where`."""


def check_images_and_texts(model: Inference, where: str) -> None:
  """Raises UserError, which begins with `where`, for a model that does not compare images with texts by vectors."""
  for modality in ("image", "text"):
    if modality not in model.heads:
      raise UserError(
        f"{where}: has no {modality} tower with a head in the joint space (config.evaluation.{modality}), by which "
        "classes and captions are compared with pictures; give a run of images and texts"
      )
  if "text" not in (model.space.joint or {}).get("image", ("text",)):
    raise UserError(f"{where}: does not compare images with texts; give a run whose heads are of one length")
  if model.compares_tokens:
    raise UserError(f"{where}: compares tokens, and this protocol is of single vectors; use `mmcontrast evaluate`")


def check_features(model: Inference, where: str) -> None:
  """Raises UserError, which begins with `where`, for a model without a tower of images that probes look at."""
  if model.space.probed != "image":
    raise UserError(
      f"{where}: has no tower of images that probes look at (config.evaluation.features); give a run that has one"
    )


View = Callable[[np.ndarray, Mapping], np.ndarray]
"""view(pixels uint8 [H, W, 3], config.data) -> what a model sees, uint8 [S, S, 3]."""


def one_image(
  data: Mapping, kept: Callable[[Record], Mapping[str, Any]] = lambda record: {}, view: View = evaluation_view
) -> Callable[[Record, Mapping], Values]:
  """What `embed_records.Wanted` reads of a record: its first image.

  Args:
    data: resolved config.data.
    kept: what else is kept of a record, by column.
    view: how the image is made what a model sees.
  """
  image = MODALITIES["image"]

  def read(record: Record, what: Mapping) -> Values:
    found = next((raw for _, raw in image.values(record, data)), None)
    if found is None:
      raise BadRecord("no image")
    return [({**what, **kept(record)}, view(decode(found, data["limits"]), data))]

  return read


def embedded(
  model: Inference, kind: str, source: Source, read: Callable[[Record, Mapping], Values], columns: Sequence[str]
) -> Part:
  """The images of a source as `kind` of `Inference.embed`, with a bar on the terminal; see embed_records.Part."""
  wanted = {"image": Wanted(kind, "image", read, tuple(columns))}
  with Embedder(model, source, wanted) as embedder, progress(len(source)) as advance:
    return embedder.embed(range(len(source)), advance)


def all_embedded(
  model: Inference, kind: str, source: Source, read: Callable[[Record, Mapping], Values], where: str
) -> np.ndarray:
  """float32 [N, D], a row for every record. Raises UserError, which begins with `where`, where one cannot be used: the
  number of fewer is another number."""
  part = embedded(model, kind, source, read, ("index",))
  if part.bad:
    raise UserError(
      f"{where}: {len(part.bad)} of {len(source)} images cannot be used, and the number of fewer is another number: "
      f"{some(part.bad)}"
    )
  return part.rows["image"].rows
