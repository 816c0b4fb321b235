"""`mmcontrast data list`: datasets that are built or can be, and the kinds of sources that are read."""

from __future__ import annotations

import os

from mmcontrast.data import build
from mmcontrast.data.datasets import BUILDERS

KINDS = {
  "jsonl": ("PATTERN", "JSON lines; images by path or as base64"),
  "csv": ("PATTERN", "CSV and TSV with a header"),
  "parquet": ("PATTERN", "Parquet, images embedded or by path"),
  "folder": ("PATH", "images, in subfolders by class or not; a.txt holds captions of a.jpg"),
  "coco": ("ROOT", "COCO's format: images, captions, instances"),
  "karpathy": ("PATH", "Karpathy's splits of COCO and Flickr30k: dataset_coco.json and the images"),
  "voc": ("FOLDER", "a year of Pascal VOC: ImageSets/Main and JPEGImages; the classes are tags"),
  "webdataset": ("PATTERN", "tar shards (mmcontrast data index makes their indexes)"),
  "tfrecord": ("PATTERN", "TFRecord shards of tf.train.Example (data index, too)"),
  "clip_benchmark": ("FOLDER", "a set in the layout of CLIP_benchmark and DataComp: classnames.txt, test/0.tar, ..."),
  "array_record": ("PATH", "what mmcontrast data convert writes"),
  "tfds": ("NAME", "TensorFlow Datasets that are prepared as ArrayRecord"),
}
NAMED = {
  "coco_captions": "COCO 2014 by tfds, where it is prepared",
  "imagenet2012": "ImageNet by tfds, where it is prepared",
  "furniture_turns": "clips of furniture in both directions, composed of furniture as they are read",
  "furniture_scripts": "clips of furniture in four parts, with a caption each, composed as they are read",
  "furniture_pixels": "furniture with the pixel that shows each point, composed as it is read",
  "heartbeats": "electrocardiograms in 18 classes that a formula makes, with pictures and words",
  "emoji_order": "pairs of emoji in both orders, composed of emoji_views or emoji_spoken as they are read",
}


def catalogue(data_dir: str | os.PathLike | None = None) -> str:
  """The datasets by name, whether they are in `data_dir`, and every kind of source, as `data.dataset` names them."""
  folder = build.data_folder(data_dir)
  built = {name: build.is_built(name, folder) for name in BUILDERS}
  rows = [(name, f"built, in {folder / name}" if there else f"not built; run: mmcontrast data build {name}")
          for name, there in built.items()]  # fmt: skip
  rows += NAMED.items()
  kinds = [(f"{kind}:{place}", text) for kind, (place, text) in KINDS.items()]
  width = max(len(name) for name, _ in rows + kinds)
  lines = ["datasets, by name:", *(f"  {name:{width}}  {text}" for name, text in rows),
           "data of your own (PATTERN: one file or many, {a,b} {000..099} * ? [abc] **):",
           *(f"  {name:{width}}  {text}" for name, text in kinds),
           "to look into one: mmcontrast data inspect NAME or KIND:PATH"]  # fmt: skip
  return "\n".join(lines)
