"""`mmcontrast data filter`, `dedup` and `balance`: an index of the records of a set that are kept, never a copy.

Shards say what is known of each record, made by one process, by parts or on Ray (bulk.py); when all are there, whoever
made the last one writes the index, which `data.kept` of a config reads (data/sources/kept.py).
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from mmcontrast.bulk import Made, make_shards, of_part
from mmcontrast.data.captions import clean
from mmcontrast.data.curation import near, prints, rules, survey
from mmcontrast.data.curation.entries import Entries, balanced, read_entries
from mmcontrast.data.made_shards import read_part
from mmcontrast.data.record import BadRecord, Record, Source
from mmcontrast.data.sources import open_source
from mmcontrast.data.sources.kept import KeptRecords, write_kept
from mmcontrast.errors import UserError, choose, one_line
from mmcontrast.inference import Inference, load
from mmcontrast.inference.embed_records import Embedder, progress, some, wanted_of
from mmcontrast.inference.embeddings import Embeddings
from mmcontrast.modalities import MODALITIES

RECORDS_A_SHARD = 10_000


@dataclasses.dataclass(frozen=True)
class Asked:
  """What all three commands are asked: the set, as `data.dataset`, `data.source`, `data.split` and `data.kept` of a
  config name it, the folder of the index, and how machines share the work (bulk.py)."""

  dataset: str
  out: str
  options: Mapping = dataclasses.field(default_factory=dict)
  split: str = "train"
  kept: str = ""
  part: str | None = None
  ray: str | None = None
  data_dir: str | None = None

  @property
  def named(self) -> dict[str, Any]:
    """The set, as manifests name it."""
    return {"dataset": self.dataset, "options": dict(self.options), "split": self.split, "kept": self.kept}

  def opened(self, kept: bool = True) -> Source:
    """The set, with or without its index."""
    its = {"dataset": self.dataset, "source": dict(self.options), "kept": self.kept if kept else ""}
    return open_source(its, self.split, self.data_dir)


def filter_records(
  asked: Asked,
  *,
  bounds: rules.Rules = rules.NONE,
  workdir: str | os.PathLike | None = None,
  min_score: float | None = None,
  top: float | None = None,
) -> str:
  """Keeps the records that pass `bounds` and whose image and caption a run finds alike; returns a line.

  The score is the cosine of the best of a record's pairs of image and caption.

  Args:
    bounds: on captions and images.
    workdir: the run that scores. min_score: the lowest cosine that is kept; top: instead, the share of all records that
      score highest, as DataComp's.
  Raises UserError: nothing is asked for; the run has no heads for images and texts; as `Asked.opened`.
  """
  if (workdir is None) != (min_score is None and top is None) or (min_score is not None and top is not None):
    raise UserError("--workdir: the run scores; give it with one of --min_score and --top, or none of the three")
  if top is not None and not 0 < top <= 1:
    raise UserError(f"--top {top:g}: is a share of all records, above 0 and at most 1, such as 0.3")
  if not bounds and workdir is None:
    raise UserError("nothing to filter by; give --rules datacomp, --min_words, --min_side, ... or --workdir with --top")
  measure = _Ruled(bounds)
  its = {"rules": dataclasses.asdict(bounds), "min_score": min_score, "top": top}

  def keep(there: survey.Survey) -> tuple[np.ndarray, dict[str, int], dict[str, Any]]:
    reason = there.column("reason")
    left_out = {why: int((reason == number).sum()) for number, why in enumerate(rules.REASONS) if why}
    kept, more = reason == 0, {}
    if workdir is not None:
      score = there.column("score")
      scored = ~np.isnan(score)
      least = min_score
      if top is not None:
        least = float(rules.most_scored(score[scored], top)) if scored.any() else 0.0
      low = kept & ~(scored & (np.nan_to_num(score, nan=-2) >= least))
      left_out["score"], kept, more = int(low.sum()), kept & ~low, {"min_score": least}
    return kept, left_out, more

  return _index(asked, "data filter", its, measure, keep, workdir=workdir)


def dedup(
  asked: Asked,
  *,
  exact: str = "",
  perceptual: int | None = None,
  embeddings: str | os.PathLike | None = None,
  near_from: float | None = None,
  kind: str = "image",
) -> str:
  """Keeps of records that are alike the first; returns a line.

  A record is left out when it equals an earlier one, else when it is like an earlier one that is kept: so each that is
  left out has one that is kept and is as near as was asked.

  Args:
    exact: a modality, such as "image", whose things are compared as they are stored; texts without regard to blanks.
    perceptual: pictures that look alike: in how many of 64 bits the prints of the first images differ at most.
    embeddings: a folder that `mmcontrast embed` made of the same set.
    near_from: the cosine from which on two rows are alike.
    kind: the modality of the rows.
  Raises UserError: nothing is asked for; a bound that is none; the embeddings are of another set, or not all made.
  """
  if not exact and perceptual is None and near_from is None:
    raise UserError("nothing to compare; give --exact image, --perceptual 4, or --embeddings DIR --near 0.95")
  if (embeddings is None) != (near_from is None):
    raise UserError("--near: compares rows that mmcontrast embed made; give both --embeddings and --near")
  if near_from is not None and not 0 < near_from <= 1:
    raise UserError(f"--near {near_from:g}: is a cosine, above 0 and at most 1, such as 0.95")
  if perceptual is not None and not 0 <= perceptual <= 16:
    raise UserError(f"--perceptual {perceptual}: is a number of bits from 0 to 16, of 64; 4 or less looks alike")
  if exact:
    choose(exact, MODALITIES, "--exact")
  rows = None if embeddings is None else _rows_of(embeddings, kind, asked)
  measure = _Prints(exact, perceptual is not None)
  its = {"exact": exact, "perceptual": perceptual, "near": near_from, "kind": kind if rows else ""}

  def keep(there: survey.Survey) -> tuple[np.ndarray, dict[str, int], dict[str, Any]]:
    bad = there.column("bad").astype(bool)
    kept, left_out = ~bad, {"bad": int(bad.sum())}
    if exact:
      left_out["exact"] = _leave_out(kept, prints.same_as_before(there.column("exact")[kept]))
    if perceptual is not None:
      left_out["perceptual"] = _leave_out(kept, _alike(there.column("perceptual")[kept], perceptual))
    if rows is not None:
      left_out["near"] = _leave_out(kept, _near(rows, kind, kept, near_from))
    return kept, left_out, {}

  of = "" if rows is None else " ".join(rows.digest(shard) for shard in rows.done)
  return _index(asked, "data dedup", its, measure, keep, more=of)


def balance(asked: Asked, *, entries: str, most: int = 20_000, seed: int = 0) -> str:
  """Keeps about `most` captions of each entry, as MetaCLIP does, and none without an entry; returns a line.

  Args:
    entries: a file of entries: a JSON list of texts, or a text a line.
    seed: of the draws.
  Raises UserError: no such file; a bound that is none.
  """
  if most < 1:
    raise UserError(f"--most {most}: give 1 or more")
  if seed < 0:
    raise UserError(f"--seed {seed}: give 0 or more")
  listed = read_entries(entries)
  digest = hashlib.blake2b(json.dumps(listed).encode(), digest_size=8).hexdigest()
  its = {"entries": digest, "most": most, "seed": seed}

  def keep(there: survey.Survey) -> tuple[np.ndarray, dict[str, int], dict[str, Any]]:
    bad, matches = there.column("bad").astype(bool), there.column("matches")
    kept, counts = balanced(matches, len(bad), len(listed), most, seed)
    named = np.zeros(len(bad), bool)
    named[matches[:, 0]] = True
    left_out = {"bad": int(bad.sum()), "no entry": int((~named & ~bad).sum()), "balanced": int((named & ~kept).sum())}
    return kept, left_out, {"entries_named": int((counts > 0).sum()), "entries_above_most": int((counts > most).sum())}

  return _index(asked, "data balance", its, _Named(entries), keep)


def _index(
  asked: Asked,
  command: str,
  its: Mapping[str, Any],
  measure: survey.Measure,
  keep: Callable[[survey.Survey], tuple[np.ndarray, dict[str, int], dict[str, Any]]],
  workdir: str | os.PathLike | None = None,
  more: str = "",
) -> str:
  part = read_part(asked.part)
  start = functools.partial(_Shards, asked, command, its, measure, workdir)
  with start() as here:  # which says what is wrong before a cluster is asked
    there = here.shards
    records = sum(len(there.records(shard)) for shard in part.of_all(there.manifest["shards"]))
    with progress(records) as advance:
      make_shards(start if asked.ray else lambda: here, there, part, asked.ray, advance)
    if missing := of_part(there, part):
      return f"{missing}; whoever makes the last one writes the index"
    with there.held("kept", wait=True):
      if not there.is_kept(more):
        places, left_out, notes = keep(there)
        source, base = here.source, asked.opened(kept=False)
        indices = source.indices[places] if isinstance(source, KeptRecords) else np.flatnonzero(places)
        _write(asked.out, there, indices, base, asked, left_out, digest=there.digest_of_all() + more, **notes)
  notes = json.loads((there.folder / survey.NOTES).read_text())
  why = ", ".join(f"{count:,} {reason}" for reason, count in notes["left_out"].items() if count)
  bad = there.bad()
  if not notes["kept"]:
    raise UserError(f"--out {asked.out}: none of {there.manifest['records']:,} records is kept ({why}); change bounds")
  lines = [
    f"{notes['kept']:,} of {there.manifest['records']:,} records are kept in {asked.out}"
    + (f" (left out: {why})" if why else "")
    + f"; train on them with --config.data.kept={asked.out}"
  ]
  return "\n".join([*lines, *([f"{len(bad)} bad records left out: {some(bad)}"] if bad else [])])


def _write(out: str, there: survey.Survey, indices: np.ndarray, base: Source, asked: Asked, left_out: Mapping[str, int],
           **more: Any) -> None:  # fmt: skip
  try:
    write_kept(there.folder, indices, base, asked.named, left_out, **more)
  except OSError as error:
    raise UserError(f"--out {out}: cannot be written ({one_line(error)}); run the same command again") from error


class _Shards:
  """Says what is known of the records of shards; a context."""

  def __init__(
    self, asked: Asked, command: str, its: Mapping[str, Any], measure: survey.Measure, workdir: str | os.PathLike | None
  ):
    self.source, self._measure = asked.opened(), measure
    if needs := getattr(measure, "check", None):
      needs(self.source)
    self._scored = None if workdir is None else _Scored(load(workdir, None, asked.data_dir), self.source)
    model = {} if self._scored is None else {"model": self._scored.model.digest}
    self.shards = survey.begin(
      asked.out,
      {
        "command": command,
        "source": asked.named,
        "records": len(self.source),
        "records_a_shard": RECORDS_A_SHARD,
        "asked": dict(its),
        **model,
      },
    )
    self._reading = survey.Reading(self.source)

  def __enter__(self) -> _Shards:
    return self

  def __exit__(self, *error: object) -> None:
    self._reading.__exit__(*error)
    if self._scored:
      self._scored.close()

  def __call__(self, shard: int, advance: Callable[[int], None]) -> Made:
    indices, there = self.shards.records(shard), self.shards
    was_there, digest = there.is_done(shard), self._reading.digest(indices)
    if was_there and digest == there.digest(shard):
      advance(len(indices))
      return Made(shard)
    found, bad = self._reading.measured(indices, self._measure, advance)
    columns = self._measure.columns(found)
    if self._scored:
      columns["score"] = self._scored.scores(indices)
    try:
      there.write(shard, columns, bad, digest)
    except OSError as error:
      raise UserError(
        f"{there.folder}: cannot be written ({one_line(error)}); run the same command again when there is "
        "space: what is done is kept"
      ) from error
    return Made(shard, was_there)


@dataclasses.dataclass(frozen=True)
class _Ruled:
  """Why a record is left out by rules."""

  bounds: rules.Rules

  def __call__(self, index: int, record: Record) -> dict[str, Any]:
    why = rules.judge(record, self.bounds)
    if why == "bad":
      raise BadRecord(f"{record['name']}: not a readable image")
    return {"reason": rules.REASONS.index(why)}

  def columns(self, found: list) -> dict[str, np.ndarray]:
    bad = {"reason": rules.REASONS.index("bad")}
    return {"reason": np.array([(bad if one is None else one)["reason"] for one in found], np.uint8)}


@dataclasses.dataclass(frozen=True)
class _Prints:
  """The prints of a record."""

  exact: str
  perceptual: bool

  def check(self, source: Source) -> None:
    for modality in dict.fromkeys([*([self.exact] if self.exact else []), *(["image"] if self.perceptual else [])]):
      if modality not in source.info.modalities:
        option = "--exact" if modality == self.exact else "--perceptual"
        raise UserError(f"{option}: {source.info.name} has no {MODALITIES[modality].nouns}")

  def __call__(self, index: int, record: Record) -> dict[str, Any]:
    found: dict[str, Any] = {}
    try:
      if self.exact == "text":
        texts = [text for of in record["captions"].values() for text in of] or list(record["names"].values())
        found["exact"] = prints.exact_print([clean(text, len(text)) for text in texts])
      elif self.exact:
        found["exact"] = prints.exact_print(record.get(MODALITIES[self.exact].field, {}))
      if self.perceptual:
        if not record["images"]:
          raise BadRecord("no image")
        found["perceptual"] = prints.perceptual_print_of_file(next(iter(record["images"].values())))
    except BadRecord as error:
      raise BadRecord(f"{record['name']}: {error}") from None
    return found

  def columns(self, found: list) -> dict[str, np.ndarray]:
    none = {"exact": np.zeros(2, np.uint64), "perceptual": 0}
    names = [*(["exact"] if self.exact else []), *(["perceptual"] if self.perceptual else [])]
    columns = {name: np.array([(none if one is None else one)[name] for one in found], np.uint64) for name in names}
    return {**columns, "bad": np.array([one is None for one in found], np.uint8)}


class _Named:
  """The entries that the captions of a record name."""

  def __init__(self, path: str):
    self._path, self._entries = path, Entries(read_entries(path))

  def __reduce__(self) -> tuple[type[_Named], tuple[str]]:
    return _Named, (self._path,)

  def check(self, source: Source) -> None:
    if not source.info.caption_fields and not source.info.languages:
      raise UserError(f"{source.info.name} has no captions to balance")

  def __call__(self, index: int, record: Record) -> dict[str, Any]:
    texts = [text for of in record["captions"].values() for text in of] or list(record["names"].values())
    return {"matches": [(index, number, one) for number, text in enumerate(texts) for one in self._entries.named(text)]}

  def columns(self, found: list) -> dict[str, np.ndarray]:
    matches = [match for one in found if one for match in one["matches"]]
    bad = np.array([one is None for one in found], np.uint8)
    return {"matches": np.array(matches, np.int64).reshape(-1, 3), "bad": bad}


class _Scored:
  """The cosine of the best pair of image and caption of each record."""

  def __init__(self, model: Inference, source: Source):
    self.model = model
    if model.compares_tokens or any(model.kind_of(one) not in model.kinds for one in ("image", "text")):
      raise UserError("--workdir: this run has no heads for images and texts in one space; score with another")
    for one in ("image", "text"):
      if not MODALITIES[one].columns(source.info):
        raise UserError(f"--workdir: {source.info.name} has no {MODALITIES[one].nouns} to score")
    self._embedder = Embedder(model, source, wanted_of(["image", "text"], model))

  def scores(self, indices: range) -> np.ndarray:
    """float32 [n]; NaN of one that is bad, or has no pair."""
    part = self._embedder.embed(indices)
    scores = np.full(len(indices), np.nan, np.float32)
    places = {kind: np.array(one.columns["index"], np.int64) - indices.start for kind, one in part.rows.items()}
    bounds = {kind: np.searchsorted(at, np.arange(len(indices) + 1)) for kind, at in places.items()}
    images, texts = part.rows["image"].rows, part.rows["text"].rows
    for number in range(len(indices)):
      (a, b), (c, d) = (bounds[kind][number : number + 2] for kind in ("image", "text"))
      if b > a and d > c:
        scores[number] = (images[a:b] @ texts[c:d].T).max()
    return scores

  def close(self) -> None:
    self._embedder.__exit__()


def _leave_out(kept: np.ndarray, out: np.ndarray) -> int:
  """Takes those of `out`, which are of what is kept, from `kept`; how many."""
  kept[np.flatnonzero(kept)[out]] = False
  return int(out.sum())


def _alike(found: np.ndarray, bits: int) -> np.ndarray:
  """bool [N]: which are left out, of perceptual prints; equal ones are brought together first."""
  values, of = np.unique(found, return_inverse=True)
  pairs = prints.near_in_bits(values, bits)
  return prints.like_an_earlier(np.arange(len(found)), of, pairs, len(found))


def _rows_of(folder: str | os.PathLike, kind: str, asked: Asked) -> Embeddings:
  there = Embeddings(folder)
  choose(kind, there.manifest["kinds"], "--kind")
  its = {name: there.manifest["source"].get(name) or "" for name in ("dataset", "options", "split", "kept")}
  given = {name: value or "" for name, value in asked.named.items()}
  if its != json.loads(json.dumps(given)):
    raise UserError(
      f"--embeddings {folder}: is of {its['dataset']}, split {its['split']!r}"
      + (f", kept {its['kept']}" if its["kept"] else "")
      + "; embed the same records that are compared, with the same options"
    )
  if missing := there.manifest["shards"] - len(there.done):
    raise UserError(
      f"--embeddings {folder}: {missing} of {there.manifest['shards']} shards are not made yet; run mmcontrast embed "
      "again"
    )
  return there


def _near(there: Embeddings, kind: str, kept: np.ndarray, threshold: float) -> np.ndarray:
  """bool [N]: which of the records that are kept are left out, one of its rows near one of an earlier."""
  number = np.cumsum(kept) - 1
  records = np.concatenate([there.column(shard, kind, "index") for shard in there.done] or [np.zeros(0, np.int64)])
  wanted = kept[records]
  digests, start = np.zeros((int(wanted.sum()), 2), np.uint64), 0
  for rows in _wanted_rows(there, kind, wanted):
    for row in np.ascontiguousarray(rows):
      digests[start] = np.frombuffer(hashlib.blake2b(row.data, digest_size=16).digest(), np.uint64)
      start += 1
  places, records = np.flatnonzero(wanted), number[records[wanted]]
  _, first, things = np.unique(digests, axis=0, return_index=True, return_inverse=True)
  # Distinct rows, in the order of their first places.
  order = np.argsort(first, kind="stable")
  rank = np.empty_like(order)
  rank[order] = np.arange(len(order))
  things, alone = rank[things.ravel()], places[first[order]]
  chosen = np.zeros(len(wanted), bool)
  chosen[alone] = True
  pairs = near.near_pairs(
    lambda: _wanted_rows(there, kind, chosen), lambda at: there.rows_at(kind, alone[at]), len(alone), threshold
  )
  return prints.like_an_earlier(records, things, pairs, int(kept.sum()))


def _wanted_rows(there: Embeddings, kind: str, wanted: np.ndarray) -> Iterator[np.ndarray]:
  start = 0
  for rows in there.rows(kind):
    yield rows[wanted[start : start + len(rows)]]
    start += len(rows)
