"""CLIP (Radford et al., arXiv:2103.00020): a symmetric softmax over the batch with a learned temperature.

    mmcontrast train --config methods/clip --workdir runs/clip

Data, towers and schedule are the quickstart's.
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
      temperature=dict(init=0.07, learned=True, min=0.01, clamp="after_step"),
    )
  )
  return sized(c, arg)
