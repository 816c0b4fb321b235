"""SDM (Jiang and Ye, arXiv:2303.12501): the divergence of each softmax from the shares of the same identity.

    mmcontrast train --config methods/sdm --workdir runs/sdm

KL(p || q) with the prediction first, both directions added up, temperature 0.02 fixed. In emoji_views a concept is one
example, so that in a batch an identity is met once; rows of several images an identity come with other data.
The method's text masking and identity head are not here. Data, towers and schedule are the quickstart's.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.pair()
  c.objective = dict(
    image_text=dict(
      query="image[0]/image_joint",
      key="text[0]/text_joint",
      direction="both",
      target="same_id",
      criterion="reverse_kl",
      temperature=0.02,
      weight=2.0,
    )
  )
  return sized(c, arg)
