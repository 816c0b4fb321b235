"""Evaluation sets: what a model is shown of each modality, and labels, all in memory."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import zlib
from collections.abc import Mapping

import numpy as np

from mmcontrast.data import sources, trained_on
from mmcontrast.data.attempts import Attempts
from mmcontrast.data.record import is_id_of_row
from mmcontrast.data.settings import resolve
from mmcontrast.data.sources import emoji
from mmcontrast.data.things import ExampleViews, ReadThings, Things
from mmcontrast.errors import UserError, choose, nearest, note
from mmcontrast.modalities import MODALITIES, Modality

SETS = ("emoji_views", "emoji_noto", "emoji_spoken", "emoji_spoken_noto")
SET_OPTIONS = {"dataset": None, "source": {}, "split": "all", "style": None}
"""What an entry of `config.evaluation.data` may say, and what it is where it does not."""
DataDir = str | os.PathLike | None


@dataclasses.dataclass(frozen=True)
class EvaluationSet:
  """E examples, and what they show, by modality: things belong together when their concepts are equal.

  Any number of captions an image (none, too), and any number of images or sounds a caption.
  """

  name: str
  seen: bool  # whether the run trains on them, or on some of them
  things: Mapping[str, Things]
  labels: dict[str, np.ndarray]  # int32 [E]
  label_names: dict[str, list[str]]
  tags: np.ndarray  # uint8 multi-hot [E, T]
  tag_names: list[str]
  split: np.ndarray  # str [E]: train, validation, test
  trains_probes: bool = False  # whether probes may train on it where the config names no train_sets and none is seen
  id_space: np.ndarray | None = None  # int [E]: ids of two examples can be compared where it is equal; None: all can
  # For terms that join several views of an example.
  views: Mapping[str, ExampleViews] = dataclasses.field(default_factory=dict)
  example_id: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))  # int [E]


def load_evaluation_set(
  name: str,
  split: str = "all",
  data: Mapping | None = None,
  data_dir: DataDir = None,
  style: str | None = None,
  *,
  trained: bool = True,
) -> EvaluationSet:
  """Loads one of SETS: one style of its drawings and, of those that are spoken, one speaker.

  Args:
    split: train, validation, test, or all.
    style: of emoji_views, "twemoji" (the default) or "openmoji"; the set's name is then "emoji_views_twemoji". Of
      emoji_spoken and emoji_spoken_noto the speaker, a column of sound: "en+f3"; all columns where none is named.
    data: the config's `data`, of which `image_size`, `trim`, `centre_crop` and `on_error` matter
      here; what is not given is as in settings.DEFAULTS.
    trained: whether a run was trained on `data`; to one that was imported nothing is seen.

  The captions are the names of all 1,903 concepts whatever the split, so that each query has
  the same rivals.

  Raises:
    UserError: unknown name, split or style, a dataset not built, too many bad records.
  """
  choose(name, SETS, "evaluation set")
  source = emoji.open_built(name, split, data_dir)
  found, concepts = _read(name, source, style, data or {}), source.info.concepts
  names = [concept["name"] for concept in concepts]
  return dataclasses.replace(
    found,
    name=f"{name}_{shown}" if (shown := _told_by(source.info, style)) else name,
    seen=trained and _is_seen(name, name, {}, split, data or {}),
    trains_probes=name in ("emoji_views", "emoji_spoken"),
    things=found.things | {"text": Things(names, np.arange(len(names)), np.full(len(names), -1, np.int64))},
    split=np.array([concepts[identity]["split"] for identity in found.example_id], dtype="U10"),
  )


def _told_by(info: sources.Info, style: str | None) -> str:
  """What a set's name says of what it shows: a style or a speaker, where there are several of them; else ""."""
  of = next((keys for keys in (info.styles, *info.keys.values()) if style in keys), info.styles)
  return (style or of[0]) if len(of) > 1 else ""


def open_configured_set(name: str, given: Mapping, data: Mapping, data_dir: DataDir = None) -> sources.Source:
  """The source of an evaluation set of the user's own, `config.evaluation.data[name]`.

  Args:
    given: dict(dataset=, source=, split=, style=): a dataset and its options as in `config.data`, by
      default those that are trained on; a split of it, by default "all"; which style of images, by
      default the first.
    data: the config's `data`.

  Raises:
    UserError: an unknown key, or the source cannot be opened; the set is named.
  """
  where = f"evaluation.data.{name}"
  if not isinstance(given, Mapping):
    raise UserError(f"{where}: {given!r} is not a table such as dict(dataset='jsonl:PATH', split='validation')")
  for key in given:
    if key not in SET_OPTIONS:
      raise UserError(f"{where}.{key}: unknown key; {nearest(key, SET_OPTIONS)}")
  if set(name) & set("/:") or name in SETS:
    raise UserError(f"{where}: the name of a set of your own has no ':' or '/', and is none of {', '.join(SETS)}")
  chosen = {"dataset": given["dataset"], "source": given.get("source") or {}} if "dataset" in given else data
  if "dataset" not in given and "source" in given:
    chosen = {**data, "source": given["source"]}
  chosen = {**chosen, "added_captions": "", "shuffled_captions": {}, "kept": ""}  # they are of what is trained on
  try:
    return sources.open_source(chosen, given.get("split", "all"), data_dir)
  except UserError as error:
    raise type(error)(f"{where}: {error}") from None


def load_configured_set(name: str, given: Mapping, data: Mapping, data_dir: DataDir = None, *,
                 trained: bool = True) -> EvaluationSet:  # fmt: skip
  """Loads an evaluation set of the user's own; see `open_configured_set`.

  It is seen when some of it is trained on (trained_on.relation; `trained` as of `load_evaluation_set`). Probes train
  on sets of split "train", and are tested on the others.

  Raises:
    UserError: as `open_configured_set`; no such style; too many bad records.
  """
  source, split = open_configured_set(name, given, data, data_dir), given.get("split", "all")
  found = _read(name, source, given.get("style"), data)
  part = split if split in ("train", "test") else "validation"
  settings = resolve(data)
  chosen = [given] if "dataset" in given else list((settings["mixture"] or {"": settings}).values())
  seen = [_is_seen(name, one["dataset"], given.get("source", one.get("source")) or {}, split, data)
          for one in (chosen if trained else ())]  # fmt: skip
  data_of = [[one["dataset"], one.get("source") or {}] for one in chosen]
  place = json.dumps([split, data_of], sort_keys=True, default=str)
  return dataclasses.replace(
    found, seen=any(seen), trains_probes=part == "train", split=np.full(len(found.example_id), part, "U10"),
    id_space=_id_space(source.info, found.example_id, place))  # fmt: skip


def _is_seen(name: str, dataset: str, source: Mapping, split: str, data: Mapping) -> bool:
  """Whether the run of `data` trains on a set, or on some of it; says in a line that its data are others."""
  settings = resolve(data)
  found = trained_on.relation(dataset, source, split, settings)
  if found == trained_on.OTHER_DATA:
    note(f"evaluation set {name} is of other data ({dataset}) than the run trains on "
         f"({trained_on.described(settings)})")  # fmt: skip
  return found == trained_on.TRAINED_ON


def _id_space(info: sources.Info, ids: np.ndarray, place: str) -> np.ndarray:
  """Ids that were given can be compared with those of other data, those that stand for a row with those of the same
  data and split `place` only."""
  given, rows = zlib.crc32(b"given") >> 1, zlib.crc32(place.encode()) >> 1
  return np.array([rows if info.row_ids or is_id_of_row(int(one)) else given for one in ids], np.int64)


def _read(name: str, source: sources.Source, style: str | None, data: Mapping) -> EvaluationSet:
  """The records of `source`, each with its things, as a set that is not seen and of no split.

  A record that cannot be used is left out with a line that says so, up to `data["on_error"]["max_share"]` of them.
  Any number of records without an image, or another thing that is no text, are left out, too, where others have one,
  as in training (`data["missing"]`).
  """
  data, info = resolve(data), source.info
  shown = {one: modality for one, modality in MODALITIES.items() if data["views"].get(one) and modality.columns(info)}
  things, bad = ReadThings(shown, _styles(name, style, shown, info), data, len(source)), []
  attempts = Attempts(data["on_error"])
  for index in range(len(source)):
    where = f"record {index}"
    try:
      record = attempts(lambda index=index: source[index])
      where = record["name"]
      things.add(record)
    except (sources.BadRecord, OSError) as error:
      bad.append(str(error) if where in str(error) else f"{where}: {error}")
  attempts.close()
  bad += things.end()
  for modality, count in things.left_out.items():
    note(
      f"evaluation set {name}: {count} of {len(source)} records have no {modality} and are left out "
      "(data.missing='mask' keeps what else they have)"
    )
  if bad:
    share = data["on_error"]["max_share"]
    message = f"evaluation set {name}: {len(bad)} of {len(source)} records cannot be used, such as {bad[0]}"
    if len(bad) > share * len(source):
      raise UserError(f"{message}; fix or remove them, or raise data.on_error.max_share={share:g}")
    print(f"{message}; they are left out", file=sys.stderr)
  records = things.records
  return EvaluationSet(
    name=name,
    seen=False,
    things=things.things(),
    labels={key: np.array([record["labels"][key] for record in records], np.int32) for key in info.label_names},
    label_names={key: list(names) for key, names in info.label_names.items()},
    tags=np.array([record["tags"] for record in records], np.uint8).reshape(len(records), len(info.tag_names)),
    tag_names=list(info.tag_names),
    split=np.full(len(records), "", "U10"),
    views=things.views(),
    example_id=np.array([record["id"] for record in records], np.int64),
  )


def _styles(name: str, style: str | None, shown: Mapping[str, Modality], info: sources.Info) -> dict[str, str]:
  """Modality -> the only key of its things that a set shows: `style`, where it has one of that name; else of a
  modality of which a set shows one thing an example the first. Raises UserError where none has it."""
  keys = {one: tuple(modality.columns(info)) for one, modality in shown.items()}
  if style:
    every = [key for modality in MODALITIES.values() for key in modality.columns(info)]
    choose(style, every, f"evaluation set {name}, style")
  return {
    one: style if style in keys[one] else keys[one][0]
    for one, modality in shown.items()
    if style in keys[one] or not modality.shows_all
  }
