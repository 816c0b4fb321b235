"""Protocols by name: what a number was measured by, written beside it, so that two of one name can be compared.

A protocol fixes what two implementations may do differently: how images are made square, which captions count, how ties
fall, on what a probe trains. What a run chooses itself (the size of its images, for one) stands in the same record:
`described`. docs/protocols.md says of each what is verified and how.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mmcontrast.errors import choose

LOST, TOPK, STABLE, NONE = (
  "against the model: of equal scores the wrong candidates come first",
  "as torch.topk on a CPU places them; argmax takes the first",
  "the first candidate of the set comes first, a stable order",
  "none: no candidates are ordered",
)
OF_RUN = "that of the run"


class Protocol(NamedTuple):
  """A protocol.

  Attributes:
    name, version: "clip_benchmark" and "1.6": called "clip_benchmark-1.6" in results.
    measures: what it is of.
    source: whose it is.
    ties: how equal scores fall.
    resize: how images are made square; OF_RUN: as config.data says.
    details: what else it fixes.
  """

  name: str
  version: str
  measures: str
  source: str
  ties: str
  resize: str = OF_RUN
  details: Mapping[str, str] = {}

  @property
  def called(self) -> str:
    return f"{self.name}-{self.version}"


OURS, CLIP_BENCHMARK = "ours-v1", "clip_benchmark-1.6"
_IMAGENET = "train: random resized crop 224 of 8 to 100 % of the area, flip; test: shorter side 256, centre 224"
_SVM = "LinearSVC, squared hinge, class weight 1: 2, -1: 1, 2,000 iterations, 3-fold cross-validation of AP"
_ALL = (
  Protocol(
    "ours", "v1", "retrieval and zero-shot classification", "this package", LOST,
    details={
      "captions": "all; those that the model sees as equal are one, and share their images",
      "prompts": "mean of unit rows over names and templates, to unit length",
    },
  ),
  Protocol(
    "clip_benchmark", "1.6", "retrieval and zero-shot classification", "PyPI clip-benchmark 1.6.2", TOPK,
    details={
      "captions": "all; the only image of a caption is its own, whatever other captions say",
      "prompts": "mean of unit rows over templates, to unit length; 100 x cosine",
      "acc5": "of five classes or more",
      "mean_per_class_recall": "over the classes that have a picture",
    },
  ),
  Protocol("weighted_knn", "v1", "k nearest neighbours", "this package", NONE,
           details={"vote": "exp(cosine / temperature) of k neighbours"}),
  Protocol("lbfgs-l2", "v1", "linear probe", "this package", NONE,
           details={"fit": "logistic regression on standardised features, L2 chosen on a fifth of the training part"}),
  Protocol("ridge-l2", "v1", "tagging", "this package", "taken together, as in scikit-learn",
           details={"fit": "ridge regression on standardised features, L2 chosen on a fifth of the training part"}),
  Protocol(
    "coco_karpathy", "v1", "retrieval on COCO's 5,000 test images of Karpathy's split, and on five folds of 1,000",
    "Karpathy and Fei-Fei, arXiv:1412.2306; PyPI eccv-caption 0.1.0 has the ids", LOST,
    details={"captions": "the first five of an image; a hit where any of them is among the k nearest",
             "1k": "mean over five folds of 1,000 images and their captions, in the order of the split"},
  ),
  Protocol("flickr30k_karpathy", "v1", "retrieval on Flickr30k's 1,000 test images of Karpathy's split",
           "Karpathy and Fei-Fei, arXiv:1412.2306", LOST,
           details={"captions": "the first five of an image; a hit where any of them is among the k nearest"}),
  Protocol("cxc", "0.1", "retrieval on COCO's test images with the positives of Crisscrossed Captions",
           "arXiv:2004.15020; PyPI eccv-caption 0.1.0 has the positives", LOST),
  Protocol("eccv", "0.1", "retrieval on COCO's test images with verified positives: R@1, R-precision, mAP@R",
           "arXiv:2204.03359; PyPI eccv-caption 0.1.0 has the positives", LOST),
  Protocol(
    "voc07", "virtex", "linear SVM on VOC 2007, 20 classes", "VirTex, arXiv:2006.06666", "taken together, as in "
    "scikit-learn", "shorter side 256, centre 224",
    {"features": "to unit length", "fit": f"{_SVM}; costs 0.01, 0.1, 1, 10", "average precision": "not interpolated",
     "difficult": "negative in training, left out of the test"},
  ),
  Protocol(
    "voc07", "vissl", "linear SVM on VOC 2007, 20 classes", "VISSL, arXiv:1905.01235", "in the reverse of numpy's "
    "argsort", "shorter side 256, then squashed to 224 x 224",
    {"features": "divided by their length + 1e-5",
     "fit": f"{_SVM}; costs 0.01, 0.1, 1, 2, 5, 10, 15, 20, 50, 100, 1000; dual",
     "average precision": "area under the monotone envelope",
     "difficult": "negative in training, left out of the test"},
  ),
  Protocol("moco_lincls", "v1", "linear probe with the image pipeline", "MoCo, arXiv:1911.05722", TOPK, _IMAGENET,
           {"fit": "SGD, momentum 0.9, rate 30, x 0.1 at epochs 60 and 80 of 100, no weight decay, batch 256, weights "
                   "N(0, 0.01)", "checkpoint": "the last"}),
  Protocol("moco_lincls_cached", "v1", "linear probe on features computed once", "MoCo's rates, without its crops",
           TOPK, details={"fit": "as moco_lincls-v1, on the features of centre crops", "checkpoint": "the last"}),
  Protocol("low_shot", "v1", "linear probe on 1 % or 10 % of each class", "this package", NONE,
           details={"subset": "of each class the share, at least one, in the order of a seed", "seed": "0",
                    "fit": "lbfgs-l2-v1"}),
  Protocol("edits", "v1", "a true caption among its edits", "SugarCrepe, arXiv:2306.14610; ARO, arXiv:2210.01936",
           LOST, details={"average": "over examples, and over subsets"}),
  Protocol("winoground", "v1", "two images, two captions of the same words", "Winoground, arXiv:2204.03162", LOST,
           details={"group": "text and image score both"}),
  Protocol("mrv", "v1", "how much the rank of an image varies over its captions in several languages",
           "Nie et al., arXiv:2406.18254", LOST,
           details={"ranks": "of an image among all by its caption, from 1",
                    "variance": "over the K ranks of an image, divided by K; mean over images"}),
  Protocol("mutual_knn", "v1", "alignment of two sets of features", "arXiv:2405.07987", STABLE,
           details={"k": "10", "features": "to unit length; values over the 0.95 quantile of their size are clamped"}),
  Protocol("modality_gap", "v1", "how far two modalities lie apart in the joint space", "arXiv:2203.02053", NONE),
  Protocol("tags_by_text", "v1", "tags by the cosine of their names' embeddings", "M3PT, arXiv:2306.10079",
           "taken together, as in scikit-learn", details={"prompts": "a template a tag"}),
  Protocol("corruptions", "v1", "accuracy under named corruptions of five strengths",
           "formulas of arXiv:1903.12261 where docs/protocols.md says so", LOST),
)  # fmt: skip
PROTOCOLS: dict[str, Protocol] = {one.called: one for one in _ALL}


def described(name: str, config: Mapping[str, Any] | None = None, **facts: Any) -> dict[str, Any]:
  """What is written beside a result.

  Args:
    name: of PROTOCOLS.
    config: of the run, for what the protocol leaves to it.
    facts: what else is known, such as split="test" or prompts=`digest(...)`; None is left out.
  """
  one = PROTOCOLS[choose(name, PROTOCOLS, "protocol")]
  out = {"protocol": one.name, "version": one.version, "ties": one.ties, **one.details}
  if config is not None:
    out |= {**of_images(config), **({} if one.resize == OF_RUN else {"asked_resize": one.resize})}
  return out | {key: value for key, value in facts.items() if value is not None}


def names_of(given: str | Sequence[str]) -> list[str]:
  """The protocols that an evaluator is asked for: one or several."""
  return [given] if isinstance(given, str) else list(given)


def of_images(config: Mapping[str, Any]) -> dict[str, Any]:
  """How a run's evaluation makes images: size, resize, crop, interpolation and normalisation."""
  data, norm = config["data"], config.get("normalize", {})
  resize = data.get("resize", {})
  return {
    **_sizes(data),
    "interpolation": resize.get("interpolation"),
    "crop": data.get("centre_crop"),
    **({"trim": True} if data.get("trim") else {}),
    "normalisation": {key: list(value) for key, value in norm.items()},
    "text_length": data.get("text_length"),
  }


def _sizes(data: Mapping[str, Any]) -> dict[str, Any]:
  """How large images are, and how they are made so."""
  native = data.get("native", {})
  if native.get("patches"):
    return {"patch": native["patch"], "patches": native["patches"][-1], "resize": "native"}
  return {"image_size": data.get("image_size"), "resize": data.get("resize", {}).get("mode")}


def digest(*parts: Sequence[Any]) -> str:
  """16 hexadecimal digits of texts, such as templates and names of classes, in their order."""
  text = json.dumps([list(part) for part in parts], ensure_ascii=False, default=list)
  return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).hexdigest()
