"""M3CoL (Kumar et al., arXiv:2409.17777): pairs of mixtures, then soft pairs from a third of training on.

    mmcontrast train --config methods/m3col --workdir runs/m3col

First, a mixture of two images has both their captions as positives, as much as each is in it, and a mixture of two
captions both their images. Then a caption is a positive of an image as much as it is like the image's own caption,
and the other way round. Shares (Beta(0.15, 0.15), half the time) and temperatures (0.1, 0.125) are the reference's.
Ours: the joint embeddings are mixed, before they are L2-normalised; a random cycle through the batch pairs them;
no classifiers, so the weights are 1 instead of 0.1; soft targets carry no gradient, and too early a switch collapses.
The phases are of c.steps as this file sets it: an override of steps does not move the switch.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji

IMAGE, TEXT = "image[0]/image_joint", "text[0]/text_joint"


def get_config(arg=None):
  c = sized(emoji.pair(), arg)
  phase = dict(name="linear", begin_steps=c.steps // 3, steps=1)
  first, second = dict(phase, init=1.0, end=0.0), dict(phase, init=0.0, end=1.0)
  mixed = dict(direction="both", temperature=0.1, criterion=dict(name="softmax", normalized=False), weight=first)
  soft = dict(direction="both", temperature=0.125, weight=second)
  c.objective = dict(
    mixed_images=dict(mixed, query=IMAGE, key=TEXT, target=dict(name="mixed", stream=0)),
    mixed_texts=dict(mixed, query=TEXT, key=IMAGE, target=dict(name="mixed", stream=1)),
    soft_texts=dict(soft, query=IMAGE, key=TEXT, target=dict(name="teacher", query=TEXT, key=TEXT)),
    soft_images=dict(soft, query=TEXT, key=IMAGE, target=dict(name="teacher", query=IMAGE, key=IMAGE)),
  )
  return c
