"""What the page of a demo asks, and its answers: search, zero-shot, pictures and sounds of what was found."""

from __future__ import annotations

import base64
import binascii
import io
import os
import pathlib
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image

from mmcontrast.data.sources import Source, open_source
from mmcontrast.demo.gallery import Gallery, InMemory, OfFolder, Shower
from mmcontrast.errors import UserError, note
from mmcontrast.evaluation.zero_shot import PROMPTS, classified
from mmcontrast.inference import Inference, load
from mmcontrast.inference.embeddings import Embeddings
from mmcontrast.inference.scorers import joined_term, query_row
from mmcontrast.modalities import MODALITIES
from mmcontrast.search import (
  Query,
  check_comparable,
  named_modality,
  opened_set,
  read_query,
  readable,
  seen_query,
  usual_kind,
)

MOST = 100  # results
_PICTURE = 320  # pixels of the longer side of a picture that is shown
_TEMPERATURE = 0.01  # of zero-shot, where the run learned none


class Demo:
  """A run, what it searches, and the answers to what the page asks: JSON in, JSON out. Any thread may call it."""

  def __init__(self, workdir: str, model: Inference, gallery: Gallery, opened: Callable[[], Source], title: str):
    self.workdir, self.title = workdir, title
    self._model, self._gallery, self._shower, self._lock = model, gallery, Shower(opened), threading.Lock()
    towers = model.model.modality_of_tower.values()
    self._asks = [one for one in MODALITIES if one in towers and model.kind_of(one) in model.kinds]
    self._words = next((one for one in self._asks if MODALITIES[one].words), None)

  def described(self) -> str:
    """What is searched, in words."""
    counts = [f"{count:,} {MODALITIES[kind].nouns}" for kind, count in self._gallery.counts.items()]
    return f"{' and '.join(counts)} of {self.title}"

  def about(self) -> dict[str, Any]:
    """What the page has to know: what can be asked by, what can be found, first what can be seen."""
    kinds = [{"name": kind, "nouns": MODALITIES[kind].nouns, "count": count}
             for kind, count in self._gallery.counts.items()]  # fmt: skip
    kinds.sort(key=lambda one: not MODALITIES[one["name"]].pictured)
    files = [one for one in self._asks if not MODALITIES[one].words]
    return {
      "run": self.workdir,
      "model": repr(self._model).strip("<>"),
      "searched": self.described(),
      "kinds": kinds,
      "words": self._words is not None,
      "files": {one: MODALITIES[one].a for one in files},
      "suffixes": [suffix for one in files for suffix in MODALITIES[one].suffixes],
      "classifies": PROMPTS in self._model.heads and bool(classified(self._model.space)),
    }

  def warm_up(self) -> None:
    """Compiles what the first query would wait for."""
    for asked in (readable(self._model, Query("a")), Query("", np.zeros((8, 8, 3), np.uint8), "image")):
      if asked.modality in self._asks:
        query_row(self._model, seen_query(self._model, asked))

  def search(self, request: Mapping[str, Any]) -> dict[str, Any]:
    """The nearest to words, to a file, or to a mixture of both.

    Args:
      request: text; file: base64, and name of the file; mix: the share of the file, 0 to 1; kind: what is looked for,
        by default pictures; count.
    Raises UserError: nothing to search by, a file that is none, a kind that cannot be compared with it.
    """
    began = time.perf_counter()
    asked = self._asked(request)
    kind = request.get("kind") or usual_kind(self._model, asked[0], list(self._gallery.counts))
    if kind not in self._gallery.counts:
      raise UserError(f"there are no {kind} things here; find {' or '.join(self._gallery.counts)}")
    for one in asked:
      check_comparable(self._model, one, kind, self.workdir)
    count = max(1, min(_number(request, "count", 12, int), MOST))
    read = time.perf_counter()
    with self._lock:
      rows = [query_row(self._model, seen_query(self._model, one)) for one in asked]
    row = rows[0]
    if len(rows) == 2:
      share = min(max(_number(request, "mix", 0.5, float), 0), 1)
      row = (1 - share) * rows[0] + share * rows[1]
      row = (row / max(float(np.linalg.norm(row)), 1e-12)).astype(np.float32)
    encoded = time.perf_counter()
    found = self._gallery.nearest(kind, row, count)
    modality, ended = MODALITIES[kind], time.perf_counter()
    return {
      "results": [
        {
          "score": round(one.cosine, 4),
          "name": one.what.get("path") or one.what["name"],
          "text": one.what.get("text", ""),
          "shown": f"picture/{kind}/{one.place}" if modality.pictured else "",
          "sound": f"sound/{kind}/{one.place}" if modality.heard else "",
        }
        for one in found
      ],
      "kind": kind,
      "milliseconds": _times(reading=read - began, encoding=encoded - read, searching=ended - encoded),
    }

  def classify(self, request: Mapping[str, Any]) -> dict[str, Any]:
    """How probable each class is for a file: classes (a list of names), template ("a photo of a {}").

    Raises UserError: no file, no classes, a template without "{}", a run without a text tower.
    """
    began = time.perf_counter()
    classes = [str(one).strip() for one in request.get("classes") or () if str(one).strip()]
    if request.get("file") is None:
      raise UserError("choose a file to classify")
    if not self.about()["classifies"]:
      raise UserError("this run has no text tower whose head names classes: it cannot classify by words")
    if len(classes) < 2:
      raise UserError("give two classes or more, one a line")
    (asked,) = self._asked({**request, "text": ""})
    scale, _ = self._model.logits(asked.modality, PROMPTS)
    temperature = 1 / scale if scale else _TEMPERATURE
    with self._lock:
      shares = self._model.classify(
        [asked.thing], classes, [request.get("template") or "{}"], temperature, asked.modality
      )[0]
    order = np.argsort(-shares, kind="stable").tolist()
    return {
      "classes": [{"name": classes[place], "probability": round(float(shares[place]), 4)} for place in order],
      "temperature": round(temperature, 4),
      "milliseconds": _times(classifying=time.perf_counter() - began),
    }

  def picture(self, kind: str, place: int) -> tuple[str, bytes]:
    """(media type, bytes) of the picture of a thing. Raises UserError where there is none."""
    shown = self._shower.show(kind, self._what(kind, place))
    if shown.picture is None:
      raise UserError(f"{MODALITIES[kind].a} has no picture")
    image = Image.fromarray(shown.picture)
    image.thumbnail((_PICTURE, _PICTURE))
    image.save(out := io.BytesIO(), "PNG")
    return "image/png", out.getvalue()

  def sound(self, kind: str, place: int) -> tuple[str, bytes]:
    """As `picture`, the sound of a thing, a WAV file."""
    shown = self._shower.show(kind, self._what(kind, place))
    if shown.file is None:
      raise UserError(f"{MODALITIES[kind].a} cannot be heard")
    return "audio/wav", shown.file[1]

  def _what(self, kind: str, place: int) -> dict[str, Any]:
    if kind not in self._gallery.counts or not 0 <= place < self._gallery.counts[kind]:
      raise UserError(f"there is no {kind} {place}")
    return self._gallery.what(kind, place)

  def _asked(self, request: Mapping[str, Any]) -> list[Query]:
    """The words, then the file, of a request: one of them or both."""
    asked, text, file = [], str(request.get("text") or "").strip(), request.get("file")
    if text and self._words is None:
      towers = self._model.model.modality_of_tower.values()
      lacks = "embeds no words" if any(MODALITIES[one].words for one in towers) else "has no text tower"
      raise UserError(f"this run {lacks}; search by {' or '.join(MODALITIES[one].a for one in self._asks)}")
    if text:
      asked.append(readable(self._model, Query(text)))
    if file is not None:
      name = str(request.get("name") or "the file")
      try:
        data = base64.b64decode(file, validate=True)
      except (binascii.Error, ValueError, TypeError):
        raise UserError(f"{name}: did not arrive whole; choose it again") from None
      named = named_modality(pathlib.PurePath(name))
      try:
        query = read_query(data, named.name if named and not named.words else None)
      except UserError as error:
        raise UserError(f"{name}: {str(error).removeprefix('the query: ')}") from None
      if query.modality not in self._asks:
        raise UserError(
          f"{name}: this run embeds no {MODALITIES[query.modality].nouns}; search by "
          f"{' or '.join(MODALITIES[one].asked for one in self._asks)}"
        )
      asked.append(query)
    if not asked:
      raise UserError("type some words, or choose a file")
    return asked


def opened(
  workdir: str | os.PathLike,
  source: str | None = None,
  *,
  options: Mapping | None = None,
  split: str | None = None,
  dataset: str | None = None,
  embeddings: str | os.PathLike | None = None,
  step: int | None = None,
  data_dir: str | os.PathLike | None = None,
) -> Demo:
  """The demo of a run; arguments and errors as of `mmcontrast.demo.demo`."""
  given = [name for name, value in (("SOURCE", source), ("--dataset", dataset), ("--embeddings", embeddings)) if value]
  if len(given) > 1:
    raise UserError(f"{given[0]}: one thing is searched at a time; leave out {' and '.join(given[1:])}")
  if source is None and (options or split):
    raise UserError(f"{'--split' if split else '--source'} is an option of a source; name one: mmcontrast demo SOURCE")
  if embeddings is not None:
    return _of_embeddings(workdir, Embeddings(embeddings), step, data_dir)
  found = open_source({"dataset": source, "source": options or {}}, split or "train", data_dir) if source else None
  model = _loaded(workdir, step, data_dir)
  style, title = None, source
  if found is None:
    found, style, title = opened_set(model.config, dataset, workdir, data_dir)
  kinds = [one for one, modality in MODALITIES.items() if modality.columns(found.info) and _embeds(model, one)]
  if not kinds:
    raise UserError(f"{title}: has nothing that {workdir} embeds; name another source")
  gallery = InMemory(model, found, kinds, style)
  if line := gallery.bad_line(len(found)):
    note(line)
  _check_filled(gallery, title)
  return Demo(str(workdir), model, gallery, lambda: found, title)


def _of_embeddings(
  workdir: str | os.PathLike, there: Embeddings, step: int | None, data_dir: str | os.PathLike | None
) -> Demo:
  made_by, named = there.manifest["model"], there.manifest["source"]
  if "space" in there.manifest:
    raise UserError(f"{there.folder}: was mapped into another run's space; search it by mmcontrast search")
  model = _loaded(workdir, made_by["step"] if step is None else step, data_dir)
  if model.digest != made_by["digest"]:
    raise UserError(
      f"{there.folder}: made by another model (of {made_by['workdir']}) than {workdir}; give that run, or embed again"
    )
  model, gallery = model.at_width(made_by.get("width", 0)), OfFolder(there)
  _check_filled(gallery, str(there.folder))
  source = {"dataset": named["dataset"], "source": named["options"]}
  return Demo(
    str(workdir),
    model,
    gallery,
    lambda: open_source(source, named["split"], data_dir or named["data_dir"]),
    named["dataset"],
  )


def _loaded(workdir: str | os.PathLike, step: int | None, data_dir: str | os.PathLike | None) -> Inference:
  model = load(workdir, step, data_dir)
  if model.compares_tokens:
    raise UserError(f"{workdir}: this run compares tokens, and the demo single vectors; use mmcontrast search")
  for one, other in model.space.ways()[::2]:
    if term := joined_term(model, one, other):
      note(
        f"{workdir}: searched by the cosine, which this run does not train; objective.{term.name} compares "
        f"{term.words} together"
      )
  return model


def _embeds(model: Inference, modality: str) -> bool:
  return modality in model.model.modality_of_tower.values() and model.kind_of(modality) in model.kinds


def _check_filled(gallery: Gallery, title: str) -> None:
  if not gallery.counts:
    raise UserError(f"{title}: holds nothing to search; give a source with records, or run mmcontrast embed to its end")


def _number(request: Mapping[str, Any], name: str, usual: float, kind: Callable) -> Any:
  try:
    return kind(request.get(name, usual))
  except (TypeError, ValueError, OverflowError):
    raise UserError(f"{name}: {request.get(name)!r} is no number") from None


def _times(**seconds: float) -> dict[str, float]:
  return {name: round(1000 * value, 1) for name, value in seconds.items()}
