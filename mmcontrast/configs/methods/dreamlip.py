"""DreamLIP's multi-caption loss (Zheng et al., arXiv:2403.17007): a pair with each of K captions, averaged.

    mmcontrast train --config methods/dreamlip --workdir runs/dreamlip

DreamLIP cuts long captions, written by a model, into sentences and draws K of them; here a concept's names stand for
them (one to six each, drawn without repetition as far as they go), and K = 4 is our choice. A caption's negatives
are the other images' captions of the same slot. The grouping loss between sentences and patches is not part of this.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji

CAPTIONS = 4


def get_config(arg=None):
  c = emoji.pair(text=CAPTIONS)
  for k in range(CAPTIONS):
    c.objective[f"caption_{k}"] = dict(
      query="image[0]/image_joint",
      key=f"text[{k}]/text_joint",
      direction="both",
      weight=1 / CAPTIONS,
      temperature="caption_0" if k else dict(init=0.07, learned=True, min=0.01),
    )
  return sized(c, arg)
