"""`mmcontrast embed SOURCE --workdir RUN --out DIR`: the embeddings of any source of data.

Shard by shard; the same command goes on where a killed one stopped. What the folder holds is in embeddings.py.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any, NamedTuple

import numpy as np

from mmcontrast.data.attempts import Attempts
from mmcontrast.data.captions import clean
from mmcontrast.data.images import decode
from mmcontrast.data.sources import BadRecord, Record, Source, open_source
from mmcontrast.data.transforms import evaluation_view
from mmcontrast.embeddings import COLUMNS, Embeddings, Rows, begin, remove_scratch
from mmcontrast.errors import UserError, one_line
from mmcontrast.evaluation.embed import unit
from mmcontrast.inference import Inference, load

RECORDS_A_SHARD = 10_000
_ENOUGH_SEEN = 10_000  # records, before which a share of bad ones says little
_SHOWN = 5  # bad records that are named


class _Read(NamedTuple):
  """One record: (what the row is, what the model sees) of each image and each caption."""

  image: list[tuple[dict, np.ndarray]]
  text: list[tuple[dict, str]]


def embed(workdir: str | os.PathLike, dataset: str, out: str | os.PathLike, *, options: Mapping | None = None,
          split: str = "train", kind: str | None = None, format: str = "npy", step: int | None = None,
          data_dir: str | None = None) -> str:
  """Embeds all images and captions of a source; returns what was done, in a line or more.

  A bad record is left out and counted, by `data.on_error` of the run.

  Args:
    workdir: the run.
    dataset, options, split: as `data.dataset`, `data.source` and `data.split` of a config.
    out: the folder of the embeddings.
    kind: "image", "text" or "both"; None: what both the source and the run have.
    format: "npy" or "parquet".
    step: the checkpoint of this step instead of the newest.
  Raises UserError: no such run or source; either lacks the kind; `out` holds something else, or the embeddings of
  another model; too many bad records.
  """
  source = open_source({"dataset": dataset, "source": options or {}}, split, data_dir)
  model = load(workdir, step, data_dir)
  kinds = _kinds(kind, source, model)
  there = begin(out, {
      "format": format, "kinds": kinds, "records": len(source), "records_a_shard": RECORDS_A_SHARD,
      "model": {"workdir": os.fspath(workdir), "step": model.step, "digest": model.digest},
      "source": {"dataset": dataset, "options": dict(options or {}), "split": split, "data_dir": data_dir}})
  attempts, done = Attempts(model.data["on_error"]), set(there.done)

  def read(index: int) -> _Read | str:
    try:
      return _read(attempts(lambda: source[index]), index, kinds, model.data)
    except (BadRecord, OSError) as error:
      return one_line(error)

  with (contextlib.closing(attempts), _bar(len(source)) as advance,
        futures.ThreadPoolExecutor(model.data["read"]["threads"]) as pool):
    for shard in range(there.manifest["shards"]):
      size = there.manifest["records_a_shard"]
      indices = range(shard * size, min((shard + 1) * size, len(source)))
      if shard in done:
        advance(len(indices))
        continue
      found, bad = _embed_shard(model, kinds, indices, functools.partial(pool.submit, read), advance)
      try:
        there.write(shard, found, bad)
      except OSError as error:
        raise UserError(f"{out}: cannot be written ({one_line(error)}); run the same command again when there is "
                        "room: what is done is kept") from error
      _check_share(there, indices.stop, model.data["on_error"]["max_share"])
  remove_scratch(there.folder)
  bad = there.bad()
  counts = " and ".join(f"{sum(there.counts(kind))} {'images' if kind == 'image' else 'captions'}" for kind in kinds)
  lines = [f"{counts} of {len(source) - len(bad)} records in {there.manifest['shards']} shards of {out}; search them "
           f"with --embeddings {out}"]
  return "\n".join([*lines, *([f"{len(bad)} bad records left out: {_some(bad)}"] if bad else [])])


def _kinds(kind: str | None, source: Source, model: Inference) -> list[str]:
  if model.compares_tokens:
    raise UserError("--workdir: this model compares tokens and has no single vector; embed with another run")
  able = {"image": model.image_kind in model.kinds, "text": "text" in model.kinds}
  has = {"image": bool(source.info.styles), "text": bool(source.info.caption_fields)}
  wanted = list(COLUMNS) if kind in (None, "both") else [kind]
  found = [one for one in wanted if able[one] and has[one]]
  if not found or (kind is not None and found != wanted):
    lacks = next(one for one in wanted if one not in found)
    who = f"{source.info.name} has no {'images' if lacks == 'image' else 'captions'}" if not has[lacks] else \
        f"this run has no head for it: config.evaluation.{lacks} names none"
    raise UserError(f"--kind {kind or lacks}: {who}")
  return found


def _read(record: Record, index: int, kinds: Sequence[str], data: Mapping) -> _Read:
  what = {"index": index, "id": record["id"], "name": record["name"]}
  try:
    images = [({**what, "style": style}, evaluation_view(decode(encoded, data["limits"]), data))
              for style, encoded in record["images"].items()] if "image" in kinds else []
    texts = [({**what, "field": field, "text": text}, text) for field, texts in record["captions"].items()
             for text in (clean(text, data["limits"]["caption_characters"]) for text in texts) if text.strip()
             ] if "text" in kinds else []
    if not images and not texts:
      raise BadRecord("neither an image nor a caption" if len(kinds) > 1 else
                      "no image" if "image" in kinds else "no caption")
    return _Read(images, texts)
  except BadRecord as error:
    raise BadRecord(f"{record['name']}: {error}") from None


def _embed_shard(model: Inference, kinds: Sequence[str], indices: range, submit: Callable[[int], futures.Future],
                 advance: Callable[[int], None]) -> tuple[dict[str, Rows], dict[int, str]]:
  """The rows of the records at `indices`, and index -> why of those that are bad."""
  size = model.config["evaluation"]["batch_size"]
  functions = {"image": lambda views: unit(model.embed(model.image_kind, np.stack(views))),
               "text": lambda texts: model.embed("text", texts)}
  streams = {kind: _Stream(functions[kind], size) for kind in kinds}
  bad, waiting = {}, []
  for start in [*range(0, len(indices), size), None]:
    part = indices[start:start + size] if start is not None else range(0)
    begun = [(index, submit(index)) for index in part]
    for index, job in waiting:  # those of the part before: one is read while the model is at work
      found = job.result()
      if isinstance(found, str):
        bad[index] = found
      else:
        for kind in kinds:
          streams[kind].add(getattr(found, kind))
      advance(1)
    waiting = begun
  return {kind: stream.end(COLUMNS[kind]) for kind, stream in streams.items()}, bad


class _Stream:
  """Values of one kind, embedded in whole batches as they come."""

  def __init__(self, function: Callable[[list], np.ndarray], size: int):
    self._function, self._size = function, size
    self._what: list[dict] = []
    self._waiting: list = []
    self._rows: list[np.ndarray] = []

  def add(self, found: Sequence[tuple[dict, Any]]) -> None:
    """`found`: what each row is, and the value to embed."""
    self._what += [what for what, _ in found]
    self._waiting += [value for _, value in found]
    while len(self._waiting) >= self._size:
      self._embed(self._size)

  def end(self, columns: Sequence[str]) -> Rows:
    """All rows, the rest embedded too."""
    if self._waiting:
      self._embed(len(self._waiting))
    rows = np.concatenate(self._rows) if self._rows else np.zeros((0, 0), np.float32)
    return Rows(rows, {name: [what[name] for what in self._what] for name in columns})

  def _embed(self, count: int) -> None:
    self._rows.append(self._function(self._waiting[:count]))
    del self._waiting[:count]


@contextlib.contextmanager
def _bar(total: int) -> Iterator[Callable[[int], None]]:
  """A bar on the terminal, of records; gives the function that moves it on."""
  from rich.console import Console
  from rich.progress import Progress
  console = Console(file=sys.stderr)
  with Progress(console=console, disable=not console.is_terminal) as bar:
    task = bar.add_task("embedding", total=total)
    yield lambda count: bar.advance(task, count)


def _check_share(there: Embeddings, seen: int, share: float) -> None:
  """UserError when too many of the records seen are bad; their shards are to be made again."""
  bad, records = there.bad(), there.manifest["records"]
  if len(bad) <= share * max(seen, min(records, _ENOUGH_SEEN)):
    return
  for index in bad:
    there.forget(index)
  raise UserError(f"{len(bad)} of {seen} records are bad, more than the run's data.on_error.max_share={share:g}: "
                  f"{_some(bad)}; mend the data and run the same command again")


def _some(bad: Mapping[int, str]) -> str:
  named = "; ".join(f"record {index}: {reason}" for index, reason in sorted(bad.items())[:_SHOWN])
  return named + (f"; and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else "")
