"""A small data set in COCO's format, made from emoji."""

import json
import pathlib

from PIL import Image

from mmcontrast.data.images import decode
from mmcontrast.data.sources import emoji

COUNT = 24


def make_coco(root: pathlib.Path, data_dir: pathlib.Path, split: str) -> pathlib.Path:
  """Twemoji as JPEG, real captions; group as category, and every fourth image without instances."""
  source = emoji.open_built("emoji_views", "train", data_dir)
  groups = source.info.label_names["group"]
  categories = [{"id": 3 * n + 1, "name": name} for n, name in enumerate(groups)]
  images, captions, instances = [], [], []
  (root / "annotations").mkdir(exist_ok=True)
  (root / f"{split}2017").mkdir()
  for n in range(COUNT):
    record, identity = source[40 * n], 1000 - n
    Image.fromarray(decode(record["images"]["twemoji"])).save(root / f"{split}2017" / f"{identity}.jpg")
    images.append({"id": identity, "file_name": f"{identity}.jpg"})
    captions += [
      {"id": len(captions) + k, "image_id": identity, "caption": text}
      for k, text in enumerate(record["captions"]["caption"])
    ]
    if n % 4:
      category = 3 * record["labels"]["group"] + 1
      instances += 2 * [{"id": n, "image_id": identity, "category_id": category}]
  write(root, "captions", split, images=images, annotations=captions)
  write(root, "instances", split, images=images, annotations=instances, categories=categories)
  return root


def write(root: pathlib.Path, kind: str, split: str = "val", **table) -> None:
  """Writes one annotation file."""
  (root / "annotations" / f"{kind}_{split}2017.json").write_text(json.dumps(table))


def read(root: pathlib.Path, kind: str, split: str = "val") -> dict:
  """Reads it back."""
  return json.loads((root / "annotations" / f"{kind}_{split}2017.json").read_text())
