"""What attributes in captions do: retrieval with the colour of what is seen put into its captions (XMAI-style).

Cross-Modal Attribute Insertions (Ramshetty et al., arXiv:2306.11065) adds to a caption words that are true of the
image, and finds that models, asked with more of the truth, do worse. Theirs are attributes of detected objects that a
masked language model finds fitting; ours is the main colour of a drawing, named with one of eleven words, in front of
the last word of the caption, and nowhere where the caption has it. Beside the true one stands a wrong one, the colour
on the other side: a model that reads colours loses by it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from mmcontrast.errors import UserError
from mmcontrast.evaluation.embed import cosines, unit
from mmcontrast.evaluation.embedded_set import EmbeddedSet
from mmcontrast.evaluation.retrieval import ranks
from mmcontrast.evaluation.zero_shot import PROMPTS

WHERE = "attribute_insertion"
METRICS = ("recall@1", "true_recall@1", "true_change", "wrong_recall@1", "wrong_change", "queries")
COLOURS = {  # red, green, blue
  "black": (0, 0, 0), "white": (255, 255, 255), "grey": (128, 128, 128), "red": (220, 40, 50),
  "orange": (245, 140, 30), "yellow": (250, 210, 60), "green": (60, 170, 70), "blue": (50, 110, 220),
  "purple": (140, 70, 180), "pink": (245, 150, 190), "brown": (130, 85, 55),
}  # fmt: skip
OPPOSITE = {
  "black": "white", "white": "black", "grey": "red", "red": "green", "orange": "blue", "yellow": "purple",
  "green": "red", "blue": "orange", "purple": "yellow", "pink": "green", "brown": "blue",
}  # fmt: skip
_WHITE = 245  # a pixel all of whose numbers are above is paper


def main_colour(pixels: np.ndarray) -> str:
  """The word of COLOURS that is nearest to most pixels of uint8 [H, W, 3]; paper, the white around, does not count."""
  ink = pixels.reshape(-1, 3)
  ink = ink[(ink < _WHITE).any(1)]
  if not len(ink):
    return "white"
  names, values = list(COLOURS), np.array(list(COLOURS.values()))
  nearest = np.sum((ink[:, None].astype(int) - values) ** 2, -1).argmin(1)
  return names[np.bincount(nearest, minlength=len(names)).argmax()]


def inserted(caption: str, word: str) -> str:
  """The caption with a word before its last one; as it is where it has the word."""
  words = caption.split()
  if not words or word in re.findall(r"\w+", caption.lower()):
    return caption
  return " ".join([*words[:-1], word, words[-1]])


def evaluate(tests: Sequence[EmbeddedSet], bank: Sequence[EmbeddedSet]) -> dict[str, dict[str, float]]:
  """Recall@1 of images by captions, by captions with their colour and with a wrong one, and what that changes:
  "attribute_insertion/true_change", see METRICS; `bank` is not used.

  Raises UserError for a run that compares no images with texts by single vectors, and a set without captions of images.
  """
  del bank
  out = {}
  for test in tests:
    if test.compare is not cosines or (
      test.space.joint is not None and PROMPTS not in test.space.joint.get("image", ())
    ):
      raise UserError(
        f"{WHERE}: needs a run with two heads of single vectors, of images and of texts; leave it out of "
        "config.evaluation.evaluators"
      )
    matches = test.matches(PROMPTS, "image")
    which = matches.answerable()
    if not len(which):
      raise UserError(f"{WHERE}: no caption of {test.name!r} is of an image; leave it out with `sets`")
    images, values = test.joint("image"), test.data.things["image"].values
    texts = [test.data.things[PROMPTS].values[place] for place in which]
    if not all(isinstance(text, str) for text in texts):
      raise UserError(f"{WHERE}: the captions of {test.name!r} are no texts; leave it out with `sets`")
    colours = [main_colour(values[matches.dense(which[at : at + 1])[0].argmax()]) for at in range(len(which))]
    rows = np.array(test.joint(PROMPTS))
    recalls = [float(np.mean(ranks(rows, images, matches, which=which) == 1))]
    for colour_of in (lambda colour: colour, OPPOSITE.get):
      rows[which] = unit(test.embed(PROMPTS, [inserted(*pair) for pair in zip(texts, map(colour_of, colours))]))
      recalls.append(float(np.mean(ranks(rows, images, matches, which=which) == 1)))
    plain, true, wrong = recalls
    numbers = (plain, true, true - plain, wrong, wrong - plain, float(len(which)))
    out[test.name] = {f"{WHERE}/{name}": value for name, value in zip(METRICS, numbers)}
  return out
