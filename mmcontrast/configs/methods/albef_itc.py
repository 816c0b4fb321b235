"""ALBEF's image-text contrastive loss (Li et al., arXiv:2107.07651): momentum keys, queues, momentum distillation.

    mmcontrast train --config methods/albef_itc --workdir runs/albef_itc

An image chooses its caption's momentum key among the batch's and a queue of them; a share of its target, 0.4 and
ramped to it over the first epoch, is what its own momentum embedding would have chosen. A caption does likewise.
Share, momentum (0.995) and temperature (itself learned, within [0.001, 0.5]) are the reference's; the queues of 512
instead of 65,536 keys are ours, since a longer one would often hold the concept itself from the epoch before, and so
are the quickstart's towers. Matching and masked words are not part of this.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji

IMAGE, TEXT = "image[0]/image_joint", "text[0]/text_joint"


def get_config(arg=None):
  c = emoji.pair()
  c.momentum = dict(decay=0.995, update="before_keys")
  share = dict(name="linear", init=0.0, end=0.4, epochs=1)
  common = dict(negatives="batch+queue:512", weight=1 / 2)
  c.objective = dict(
    image_to_text=dict(
      common,
      query=IMAGE,
      key=f"{TEXT}@momentum",
      target=dict(name="teacher", query=f"{IMAGE}@momentum", share=share),
      temperature=dict(init=0.07, learned=True, form="tau", min=0.001, max=0.5),
    ),
    text_to_image=dict(
      common,
      query=TEXT,
      key=f"{IMAGE}@momentum",
      target=dict(name="teacher", query=f"{TEXT}@momentum", share=share),
      temperature="image_to_text",
    ),
  )
  return sized(c, arg)
