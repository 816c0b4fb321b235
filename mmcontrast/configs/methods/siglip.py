"""SigLIP (Zhai et al., arXiv:2303.15343): each pair of the batch is a yes-or-no question of its own.

    mmcontrast train --config methods/siglip --workdir runs/siglip

Scale and bias are learned, the scale from 10, with no clamp, as published. The bias starts at -ln(N - 1), the log
odds of a pair being a positive one, not at the -10 that fits a batch of 32,768: our choice, for a batch of 128.
Data, towers and schedule are the quickstart's.
"""

import math

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.pair()
  c.objective = dict(
    image_text=dict(
      query="image[0]/image_joint",
      key="text[0]/text_joint",
      criterion="sigmoid",
      temperature=dict(init=0.1, learned=True),
      bias=dict(init=-math.log(c.batch.size - 1)),
    )
  )
  return sized(c, arg)
