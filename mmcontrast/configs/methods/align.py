"""ALIGN (Jia et al., arXiv:2102.05918): a softmax with label smoothing, both directions added up.

    mmcontrast train --config methods/align --workdir runs/align

Smoothing 0.1 over all columns, the positive included; the temperature itself is learned, from 1.0. The reference
does not clamp it; the floor of 0.01 is our choice. Towers (not EfficientNet and BERT), data and schedule are
the quickstart's.
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
      weight=2.0,
      criterion=dict(name="softmax", smoothing=0.1),
      temperature=dict(init=1.0, learned=True, form="tau", min=0.01),
    )
  )
  return sized(c, arg)
