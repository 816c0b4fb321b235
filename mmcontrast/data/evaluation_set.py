"""Evaluation sets: images at their final size, captions, labels, all in memory."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping

import numpy as np

from mmcontrast.data import sources, transforms
from mmcontrast.data.images import decode
from mmcontrast.data.settings import DEFAULTS
from mmcontrast.data.sources import emoji
from mmcontrast.errors import UserError, choose

SETS = ("emoji_views", "emoji_noto", "coco")


@dataclasses.dataclass(frozen=True)
class EvaluationSet:
  """M images and C captions; a caption and an image belong together when their ids are equal.

  Any number of captions an image, and any number of images (none, too) a caption.
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
  name: str, split: str = "all", data: Mapping | None = None, data_dir: str | os.PathLike | None = None,
  style: str | None = None,
) -> EvaluationSet:  # fmt: skip
  """Loads `emoji_views` (one style of it), `emoji_noto` or a COCO-format split.

  Args:
    split: train, validation, test, or all (COCO: its own names, such as val).
    style: of emoji_views, "twemoji" (the default) or "openmoji"; the set's name is then
      "emoji_views_twemoji".
    data: the config's `data`, of which `image_size`, `trim` and `centre_crop` matter here, and for
      COCO `dataset` and `source`; what is not given is as in settings.DEFAULTS.

  For emoji the captions are the names of all 1,903 concepts whatever the split, so that
  each query has the same rivals. A record that cannot be used is an error here.

  Raises:
    UserError: unknown name, split or style, a dataset not built, a bad record (named).
  """
  choose(name, SETS, "evaluation set")
  data = {**DEFAULTS, **(data or {})}
  if name == "coco":
    own = data["dataset"].partition(":")[0] == name
    given = {"dataset": data["dataset"], "source": data["source"]} if own else {"dataset": name}
    source = sources.open_source(given, split, data_dir)
  else:
    source = emoji.open_built(name, split, data_dir)
  info = source.info
  style = choose(style or info.styles[0], info.styles, f"evaluation set {name}, style")
  records = []
  size = data["image_size"]
  images = np.zeros((len(source), size, size, 3), np.uint8)
  for index in range(len(source)):
    record = {"name": index}
    try:
      record = source[index]
      transforms.usable_captions(record["captions"])
      image = decode(record["images"][style], data["limits"])
    except (sources.BadRecord, OSError) as error:
      raise UserError(
        f"evaluation set {name}, record {record['name']}: {error}; mend or remove it"
      ) from None
    images[index] = transforms.evaluation_view(image, data)
    records.append(record)
  image_id = np.array([record["id"] for record in records], np.int64)
  if info.concepts:
    captions = [concept["name"] for concept in info.concepts]
    caption_id = np.arange(len(captions))
    splits = [info.concepts[identity]["split"] for identity in image_id]
  else:
    pairs = [(text, r["id"]) for r in records for texts in r["captions"].values() for text in texts if text.strip()]
    captions, caption_id = [text for text, _ in pairs], np.array([i for _, i in pairs], np.int64)
    splits = [{"val": "validation"}.get(split, split)] * len(records)
  return EvaluationSet(
    name=f"{name}_{style}" if len(info.styles) > 1 else name,
    seen=name == "emoji_views" or (name == "coco" and "train" in split),
    images=images,
    image_id=image_id,
    captions=captions,
    caption_id=caption_id,
    labels={
      key: np.array([record["labels"][key] for record in records], np.int32)
      for key in info.label_names
    },
    label_names={key: list(names) for key, names in info.label_names.items()},
    tags=np.array([record["tags"] for record in records], np.uint8),
    tag_names=list(info.tag_names),
    split=np.array(splits, dtype="U10"),
  )
