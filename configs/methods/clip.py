"""CLIP (Radford et al., arXiv:2103.00020): a symmetric softmax over the batch with a learned temperature.

    mmcontrast train --config configs/methods/clip.py --workdir runs/clip

Data, towers and schedule are the quickstart's.
"""

import emoji

from mmcontrast.config import smoke


def get_config(arg=None):
  c = emoji.pair()
  c.objective = dict(
      image_text=dict(query="image[0]/image_joint", key="text[0]/text_joint", direction="both",
                      temperature=dict(init=0.07, learned=True, min=0.01, clamp="after_step")))
  return smoke(c) if arg == "smoke" else c
