"""Evaluation sets: images at their final size, captions, labels, all in memory."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping

import numpy as np

from mmcontrast.data import sources, transforms
from mmcontrast.data.attempts import Attempts
from mmcontrast.data.captions import clean
from mmcontrast.data.images import decode
from mmcontrast.data.settings import resolve
from mmcontrast.data.sources import emoji
from mmcontrast.errors import UserError, choose, nearest

SETS = ("emoji_views", "emoji_noto")
_OWN = ("dataset", "source", "split", "style")
DataDir = str | os.PathLike | None


@dataclasses.dataclass(frozen=True)
class EvaluationSet:
  """M images and C captions; a caption and an image belong together when their ids are equal.

  Any number of captions an image (none, too), and any number of images a caption.
  """

  name: str
  seen: bool  # whether these drawings, or this style of drawing, are trained on
  images: np.ndarray  # uint8 [M, H, W, 3]
  image_id: np.ndarray  # int [M]
  captions: list[str]
  caption_id: np.ndarray  # int [C]
  labels: dict[str, np.ndarray]  # int32 [M]
  label_names: dict[str, list[str]]
  tags: np.ndarray  # uint8 multi-hot [M, T]
  tag_names: list[str]
  split: np.ndarray  # str [M]: train, validation, test


def load_evaluation_set(
  name: str, split: str = "all", data: Mapping | None = None, data_dir: DataDir = None, style: str | None = None
) -> EvaluationSet:
  """Loads `emoji_views` (one style of it) or `emoji_noto`.

  Args:
    split: train, validation, test, or all.
    style: of emoji_views, "twemoji" (the default) or "openmoji"; the set's name is then
      "emoji_views_twemoji".
    data: the config's `data`, of which `image_size`, `trim`, `centre_crop` and `on_error` matter
      here; what is not given is as in settings.DEFAULTS.

  The captions are the names of all 1,903 concepts whatever the split, so that each query has
  the same rivals.

  Raises:
    UserError: unknown name, split or style, a dataset not built, too many bad records.
  """
  choose(name, SETS, "evaluation set")
  source = emoji.open_built(name, split, data_dir)
  found = _read(name, source, style, data or {})
  concepts = source.info.concepts
  return dataclasses.replace(
    found,
    name=f"{name}_{style or source.info.styles[0]}" if len(source.info.styles) > 1 else name,
    seen=name == "emoji_views",
    captions=[concept["name"] for concept in concepts],
    caption_id=np.arange(len(concepts)),
    split=np.array([concepts[identity]["split"] for identity in found.image_id], dtype="U10"),
  )


def open_own_set(name: str, given: Mapping, data: Mapping, data_dir: DataDir = None) -> sources.Source:
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
    if key not in _OWN:
      raise UserError(f"{where}.{key}: unknown key; {nearest(key, _OWN)}")
  if set(name) & set("/:") or name in SETS:
    raise UserError(f"{where}: the name of a set of your own has no ':' or '/', and is none of {', '.join(SETS)}")
  chosen = {"dataset": given["dataset"], "source": given.get("source") or {}} if "dataset" in given else data
  if "dataset" not in given and "source" in given:
    chosen = {**data, "source": given["source"]}
  try:
    return sources.open_source(chosen, given.get("split", "all"), data_dir)
  except UserError as error:
    raise type(error)(f"{where}: {error}") from None


def load_own_set(name: str, given: Mapping, data: Mapping, data_dir: DataDir = None) -> EvaluationSet:
  """Loads an evaluation set of the user's own; see `open_own_set`.

  It is seen when it is of the dataset and the split that are trained on. Probes train on sets of
  split "train", and are tested on the others.

  Raises:
    UserError: as `open_own_set`; no such style; too many bad records.
  """
  source, split = open_own_set(name, given, data, data_dir), given.get("split", "all")
  found = _read(name, source, given.get("style"), data)
  trained_on = any(
    given.get("dataset", one["dataset"]) == one["dataset"] and split in ("all", one.get("split", data["split"]))
    for one in (data.get("mixture") or {"": data}).values()
  )
  part = split if split in ("train", "test") else "validation"
  return dataclasses.replace(found, seen=trained_on, split=np.full(len(found.images), part, "U10"))


def _read(name: str, source: sources.Source, style: str | None, data: Mapping) -> EvaluationSet:
  """The records of `source`, each with its own captions, as a set that is not seen and of no split.

  A record that cannot be used is left out with a line that says so, up to `data["on_error"]["max_share"]` of them.
  """
  data, info = resolve(data), source.info
  if info.styles:
    style = choose(style or info.styles[0], info.styles, f"evaluation set {name}, style")
  size, bad = data["image_size"], []
  images, shown, captions = np.zeros((len(source) if info.styles else 0, size, size, 3), np.uint8), [], []
  attempts, most = Attempts(data["on_error"]), data["limits"]["caption_characters"]
  for index in range(len(source)):
    where = f"record {index}"
    try:
      record = attempts(lambda index=index: source[index])
      where = record["name"]
      texts = [clean(text, most) for texts in record["captions"].values() for text in texts]
      texts = [text for text in texts if text.strip()]
      if style in record["images"]:
        image = decode(record["images"][style], data["limits"])
        images[len(shown)] = transforms.evaluation_view(image, data)
        shown.append({**record, "images": {}})
      elif not texts:
        raise sources.BadRecord("neither an image nor a caption")
      captions += [(text, record["id"]) for text in texts]
    except (sources.BadRecord, OSError) as error:
      bad.append(str(error) if where in str(error) else f"{where}: {error}")
  attempts.close()
  if bad:
    share = data["on_error"]["max_share"]
    message = f"evaluation set {name}: {len(bad)} of {len(source)} records cannot be used, such as {bad[0]}"
    if len(bad) > share * len(source):
      raise UserError(f"{message}; mend or remove them, or raise data.on_error.max_share={share:g}")
    print(f"{message}; they are left out", file=sys.stderr)
  return EvaluationSet(
    name=name,
    seen=False,
    images=images[: len(shown)],
    image_id=np.array([record["id"] for record in shown], np.int64),
    captions=[text for text, _ in captions],
    caption_id=np.array([identity for _, identity in captions], np.int64),
    labels={key: np.array([record["labels"][key] for record in shown], np.int32) for key in info.label_names},
    label_names={key: list(names) for key, names in info.label_names.items()},
    tags=np.array([record["tags"] for record in shown], np.uint8).reshape(len(shown), len(info.tag_names)),
    tag_names=list(info.tag_names),
    split=np.full(len(shown), "", "U10"),
  )
