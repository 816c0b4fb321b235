"""`mmcontrast data retrieve SOURCE --workdir RUN --field NAME --out FILE`: further captions of records, found by a run.

The texts nearest to each record of a source, of a list of texts (concepts that captions leave out: CoCu) or of the
captions of other records (further texts for an image: RealSyn; hard negatives: mmE5), as `data.added_captions` of a
config reads them.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mmcontrast import folders
from mmcontrast.data.sources import Source, open_source
from mmcontrast.data.sources.added_captions import read_added
from mmcontrast.errors import UserError, choose
from mmcontrast.evaluation.embed import row_chunks, unit
from mmcontrast.evaluation.zero_shot import PROMPTS
from mmcontrast.inference import Inference, load
from mmcontrast.inference.embed_records import Embedder, progress, some, wanted_of
from mmcontrast.modalities import MODALITIES


class Texts(NamedTuple):
  """What is searched: T different texts, float32 [T, D] unit rows, and the ids of the records that have each as a
  caption."""

  texts: list[str]
  rows: np.ndarray
  ids: list[set[int]]


class Queries(NamedTuple):
  """What searches: R records that could be read, their indices, ids and names, and float32 [R, D] unit rows."""

  index: np.ndarray
  ids: np.ndarray
  names: list[str]
  rows: np.ndarray


def retrieve(
  workdir: str | os.PathLike,
  dataset: str,
  field: str,
  out: str | os.PathLike,
  *,
  options: Mapping | None = None,
  split: str = "train",
  texts: str | os.PathLike | None = None,
  by: str | None = None,
  count: int = 3,
  data_dir: str | None = None,
) -> str:
  """Writes the `count` texts nearest to each record into a file of captions; returns what was done, in a line.

  A record is searched by the mean of what it has of the modality `by`. Captions of its id are not found. A file that is
  there keeps its other fields, and one of this name is made anew.

  Args:
    workdir: the run.
    dataset, options, split: as `data.dataset`, `data.source` and `data.split` of the config that will read the file.
    field: what the captions are called.
    out: the file.
    texts: a file of what is searched, a text a line; None: all captions of the source.
    by: a modality; None: images where both have them, else captions.
  Raises UserError: no such run or source; nothing to search or to search by; a field that the source has; too few
  texts.
  """
  if count < 1:
    raise UserError(f"--count {count}: give 1 or more")
  source = open_source({"dataset": dataset, "source": options or {}}, split, data_dir)
  if not field or field in ("index", "name") or field in source.info.caption_fields:
    raise UserError(f"--field {field!r}: is taken in {source.info.name}; give a new name, such as retrieved")
  kept = read_added(os.fspath(out)) if folders.at(out, "--out").is_file() else {}
  model = load(workdir, None, data_dir)
  if model.compares_tokens or PROMPTS not in model.heads:
    why = "compares tokens and has no single vector" if model.compares_tokens else "has no head of texts"
    raise UserError(f"--workdir {workdir}: this run {why}; retrieve with another, such as one of clip")
  by = _modality(by, source, model)
  queries, captions, bad = _embedded(source, model, by)
  bank = captions if texts is None else _of_file(texts, model)
  if len(bank.texts) <= count:
    raise UserError(f"--texts: {len(bank.texts)} different texts, of which {count} are to be found; give more")
  own = [{captions.texts[place] for place in places} for places in _places(captions, queries)]
  found = nearest_texts(queries.rows, bank, own, count)
  rows = dict(kept)
  for index, name, places in zip(queries.index.tolist(), queries.names, found):
    others = {other: given for other, given in kept.get(index, (name, {}))[1].items() if other != field}
    rows[index] = name, {**others, field: [bank.texts[place] for place in places]}
  path = folders.at(out, "--out")
  with folders.written(path) as scratch:
    lines = (json.dumps({"index": index, "name": name, **fields}, ensure_ascii=False) + "\n"
             for index, (name, fields) in sorted(rows.items()))  # fmt: skip
    scratch.write_text("".join(lines))
  if bad:
    print(f"{len(bad)} of {len(source)} records are left out: {some(bad)}", file=sys.stderr)
  return (
    f"{path}: {count} captions {field!r} of {len(queries.names)} records, of {len(bank.texts):,} texts; train with "
    f"--config.data.added_captions={path}"
  )


def nearest_texts(rows: np.ndarray, bank: Texts, own: Sequence[set[str]], count: int) -> list[list[int]]:
  """The places of the `count` texts of the largest cosine with each row [R, D], the nearest first; `own`: of each row,
  texts that are not found."""
  place_of = {text: place for place, text in enumerate(bank.texts)}
  found: list[list[int]] = []
  for part in row_chunks(len(rows), len(bank.texts)):
    scores = rows[part] @ bank.rows.T
    for number, texts in enumerate(own[part]):
      scores[number, [place_of[text] for text in texts if text in place_of]] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    there = np.take_along_axis(scores, order, 1) > -np.inf
    found += [places[some].tolist() for places, some in zip(order, there)]
  return found


def _modality(by: str | None, source: Source, model: Inference) -> str:
  able = [one for one in MODALITIES if one in model.heads and MODALITIES[one].columns(source.info)]
  if not able:
    raise UserError(f"{source.info.name}: has nothing that a head of this run embeds")
  return choose(by, able, "--by") if by else next((one for one in able if one != PROMPTS), able[0])


def _embedded(source: Source, model: Inference, by: str) -> tuple[Queries, Texts, dict[int, str]]:
  """The records by what they have of `by`, their captions, and the bad ones."""
  has_captions = bool(MODALITIES[PROMPTS].columns(source.info))
  kinds = list(dict.fromkeys([by, *([PROMPTS] if has_captions else [])]))
  with Embedder(model, source, wanted_of(kinds, model)) as embedder, progress(len(source)) as advance:
    part = embedder.embed(range(len(source)), advance)
  if not len(part.rows[by].rows):
    raise UserError(f"{source.info.name}: no record has {MODALITIES[by].a}; search --by another")
  columns = part.rows[by].columns
  index, place = np.unique(columns["index"], return_inverse=True)
  rows = np.zeros((len(index), part.rows[by].rows.shape[1]), np.float32)
  np.add.at(rows, place, part.rows[by].rows)
  first = [int(np.flatnonzero(place == number)[0]) for number in range(len(index))]
  ids = np.array([columns["id"][one] for one in first])
  queries = Queries(index, ids, [columns["name"][one] for one in first], unit(rows))
  texts, of_texts, with_ids = {}, [], []
  if has_captions:
    of = part.rows[PROMPTS]
    for number, (text, one) in enumerate(zip(of.columns["text"], of.columns["id"])):
      if text not in texts:
        texts[text] = len(texts)
        of_texts.append(of.rows[number])
        with_ids.append(set())
      with_ids[texts[text]].add(one)
  return queries, Texts(list(texts), np.array(of_texts, np.float32).reshape(len(texts), -1), with_ids), dict(part.bad)


def _places(captions: Texts, queries: Queries) -> list[list[int]]:
  """Of each record, the places of the captions of its id."""
  of_id: dict[int, list[int]] = {}
  for place, ids in enumerate(captions.ids):
    for one in ids:
      of_id.setdefault(one, []).append(place)
  return [of_id.get(int(one), []) for one in queries.ids]


def _of_file(path: str | os.PathLike, model: Inference) -> Texts:
  try:
    lines = folders.at(path, "--texts").read_text().splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(f"--texts {path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
  texts = list(dict.fromkeys(text for line in lines if (text := " ".join(line.split()))))
  if not texts:
    raise UserError(f"--texts {path}: is empty; write a text on each line")
  return Texts(texts, model.encode_text(texts), [set() for _ in texts])
