"""CLIP (Radford et al., arXiv:2103.00020) on emoji: MCT's inter-modal terms alone.

    mmcontrast train --config configs/clip.py --workdir runs/clip

Towers, data and schedule are the quickstart's; the two inter-modal terms become one
symmetric softmax over the batch with a learned temperature, and no momentum encoder.
"""

import quickstart

from mmcontrast.config import smoke


def get_config(arg=None):
  c = quickstart.get_config()
  del c.heads.image_ssl, c.heads.text_ssl
  c.data.views = dict(image=1, text=1)
  c.objective = dict(
      image_text=dict(query="image[0]/image_joint", key="text[0]/text_joint", direction="both",
                      temperature=dict(init=0.07, learned=True, min=0.01, clamp="after_step")))
  return smoke(c) if arg == "smoke" else c
