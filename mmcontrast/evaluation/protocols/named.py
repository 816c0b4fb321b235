"""The protocols: a name and a version each, and what they fix. docs/protocols.md has a row for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

LOST, TOPK, STABLE, FIRST, NONE = (
  "against the model: of equal scores the wrong candidates come first",
  "as torch.topk on a CPU places them; argmax takes the first",
  "the first candidate of the set comes first, a stable order",
  "argmax takes the first of equal scores",
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
      "classes": "mean of unit rows over names and templates, to unit length",
    },
  ),
  Protocol(
    "clip_benchmark", "1.6", "retrieval and zero-shot classification", "PyPI clip-benchmark 1.6.2", TOPK,
    details={
      "captions": "all; the only image of a caption is its own, whatever other captions say",
      "classes": "mean of unit rows over templates, to unit length; 100 x cosine",
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
  Protocol("aro_order_plain", "v1", "a caption among the same words in another order, four edits",
           "ARO, arXiv:2210.01936, with a rule of this package in place of spaCy's tagger", LOST,
           details={"words": "small letters, without . ! \" ( ) * # : ; ~, commas and question marks apart, at most 30",
                    "nouns and adjectives": "not of a list of function words, and not of more than four letters with "
                                            "-ing, -ed or -ly; shuffled among themselves",
                    "orders": "drawn anew where the order is the old one; without another the edit is left out"}),
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
           "taken together, as in scikit-learn", details={"tags": "mean of unit rows over templates, to unit length"}),
  Protocol("corruptions", "v1", "accuracy under named corruptions of five strengths",
           "formulas of arXiv:1903.12261 where docs/protocols.md says so", LOST),
  Protocol("sts", "v1", "how the cosines of pairs of texts rank beside how alike people call them",
           "Cer et al., arXiv:1708.00055", "equal numbers share the mean of their ranks, as in scipy.stats.spearmanr",
           details={"pairs": "those of a file, or all pairs of captions by Jaccard's index of their tags"}),
  Protocol("captioning", "v1", "captions that a run writes beside those of a set",
           "BLEU-4: sacrebleu, not smoothed; CIDEr-D: arXiv:1411.5726", NONE,
           details={"references": "all captions of the concept", "words": "small letters, without punctuation"}),
  Protocol("perplexity", "v1", "how well a run expects captions", "this package", NONE,
           details={"mean": "of the loss of all tokens, of all captions of each thing"}),
  Protocol("masked_words", "v1", "words taken from captions, guessed", "this package", FIRST,
           details={"words": "15 % of a caption, one at least, the same in every evaluation; each a mask token"}),
  Protocol("base_to_new", "v1", "prompts tuned on half of the classes, tried on both halves",
           "CoCoOp, arXiv:2203.05557; MaPLe, arXiv:2210.03117", LOST,
           details={"classes": "of n the first ceil(n / 2) are base", "candidates": "those of the half"}),
  Protocol("text_transfer", "v1", "a head trained on texts, tried on images", "CLOSE, arXiv:2211.09778", FIRST,
           details={"fit": "one linear layer, Adam, noise on unit text vectors"}),
  Protocol("cross_version", "v1", "retrieval between the spaces of two versions of a model",
           "XBT, arXiv:2405.14715; update gain: arXiv:2003.11942, eq. 5", LOST),
  Protocol("counterfactual", "v1", "the rank of a true caption among its edits", "RCAD, arXiv:2407.13094", LOST),
  Protocol("properties", "v1", "how much a score falls when one property of an image changes",
           "arXiv:2011.02863; ProtoExplain-style", LOST),
  Protocol("entity_linking", "v1", "the entity of a mention, both of text and image", "M3EL-style, arXiv:2412.10440",
           LOST, details={"score": "weighed mean of the cosines of the parts that both have"}),
  Protocol("attribute_insertion", "v1", "retrieval with a colour put into the captions", "XMAI-style, arXiv:2306.11065",
           LOST, details={"words": "eleven colours, the main one of the image, before the last word"}),
  Protocol("segmentation", "v1", "places of an image told by class vectors: mIoU, pixel accuracy",
           "this package; docs/adaptation.md", FIRST,
           details={"classes": "those that a mask shows", "size": "that of the model's images"}),
  Protocol("grounding", "v1", "whether the place most like a phrase lies in its box",
           "arXiv:2204.09817; pointing game: arXiv:1608.00507", FIRST,
           details={"maps": "cosines of patches, a Gaussian of 1.5 patches, resized to the image"}),
  Protocol("linear_maps", "v1", "held-out retrieval through a map between two spaces", "SITTA, arXiv:2307.05591", LOST,
           details={"texts": "those that are written alike are one"}),
)  # fmt: skip
PROTOCOLS: dict[str, Protocol] = {one.called: one for one in _ALL}
