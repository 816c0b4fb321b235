"""DataComp's evaluation sets and the metric that counts of each.

Source: DataComp (arXiv:2304.14108), tasklist.yml: 40 sets, of which 38 make the average (FairFace and UTKFace do not).
Where nothing is said of a set, its metric is acc1.
"""

from __future__ import annotations

import re

from mmcontrast.evaluation.protocols.outcomes import F1, MEAN_RECALL

_PER_CLASS = "mean_per_class_recall"
METRICS = {  # set, as DataComp calls it -> its metric
  "vtab/caltech101": _PER_CLASS,
  **dict.fromkeys(
    ("cifar10", "vtab/cifar100", "vtab/clevr_count_all", "vtab/clevr_closest_object_distance", "country211", "vtab/dtd",
     "vtab/eurosat", "food101", "gtsrb", "imagenet1k", "imagenet_sketch", "imagenetv2", "imagenet-a", "imagenet-o",
     "imagenet-r", "vtab/kitti_closest_vehicle_distance", "mnist", "objectnet", "voc2007", "vtab/pcam", "renderedsst2",
     "vtab/resisc45", "cars", "stl10", "sun397", "vtab/svhn", "wilds/camelyon17"),
    "acc1",
  ),
  "fgvc_aircraft": _PER_CLASS,
  "vtab/flowers": _PER_CLASS,
  "vtab/pets": _PER_CLASS,
  "retrieval/flickr30k": MEAN_RECALL,
  "retrieval/mscoco_2014_5k_test_image_text_retrieval": MEAN_RECALL,
  "wilds/iwildcam": F1,
  # These need more of a picture than the layout holds: its region, its income group, the candidates of its cue.
  "wilds/fmow": "acc_worst_region",
  "fairness/dollar_street": "acc_top5_wg",
  "fairness/geode": "acc_wg",
  "misc/winogavil": "jaccard_score_10-12",
}  # fmt: skip


def called(name: str) -> str:
  """What DataComp calls a set: "vtab/caltech101" of wds_vtab-caltech101_test; "" where it has none of that name."""
  plain = re.sub(r"_(test|val)$", "", re.sub(r"^wds[_/-]", "", name.replace("/", "-")))
  by_name = {key.replace("/", "-"): key for key in METRICS} | {key.rpartition("/")[2]: key for key in METRICS}
  return by_name.get(plain, "")


def metric(name: str) -> str:
  """The metric that counts of a set; "" where DataComp does not have it."""
  return METRICS.get(called(name), "")
