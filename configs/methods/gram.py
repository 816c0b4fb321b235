"""GRAM (Cicchetti et al., arXiv:2412.11959): the volume that an English name, a drawing and a German name span.

    mmcontrast train --config configs/methods/gram.py --workdir runs/gram

The English name is the anchor; drawing and German name are one tuple. As in the public code: label smoothing 0.1
and a learned temperature that divides, from 0.07. Ours: its bounds, the modalities, and gradients to both sides in
both directions (that code trains one side in each). The matching head is left out. Data, towers and schedule are
the quickstart's, with names in two languages for its captions.
"""

import emoji

from mmcontrast.config import smoke


def get_config(arg=None):
  c = emoji.pair(text=2)
  c.data.languages, c.data.text_length = ("en", "de"), 16
  c.objective = dict(
      volume=dict(query="text[0]/text_joint", key=("image[0]/image_joint", "text[1]/text_joint"),
                  score="gram_volume", direction="both", criterion=dict(name="softmax", smoothing=0.1),
                  temperature=dict(init=0.07, learned=True, form="tau", min=0.01, max=1.0)))
  return smoke(c) if arg == "smoke" else c
