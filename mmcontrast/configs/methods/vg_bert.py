"""VG-BERT's first stage (Zhang et al., arXiv:2111.07180): each word looks for its best pixel, by plain products.

    mmcontrast train --config methods/vg_bert --workdir runs/vg_bert

The score matchmap, the mean over words of the largest product with a pixel, without any normalisation; cross entropy
both ways, added up, with the released temperature 0.1. Ours: the quickstart's towers for VGG and BERT. The second
stage, relations between objects by cross attention, is not part of this.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.tokens()
  c.objective = dict(
    words_in_image=dict(
      query="text[0]/text_tokens",
      key="image[0]/image_tokens",
      score="matchmap",
      direction="both",
      temperature=0.1,
      weight=2.0,
    )
  )
  return sized(c, arg)
