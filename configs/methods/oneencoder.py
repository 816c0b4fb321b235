"""OneEncoder (Faye et al., arXiv:2409.11059): frozen towers, one projection for all, and a token a modality.

    mmcontrast train --config configs/methods/oneencoder.py --workdir runs/oneencoder

The two heads have an adapter and a modality token each and share the trunk. The scale is fixed at exp(2.5), which is
what the released code's "learnable" temperature comes to. Stages `image` and `text` pretrain the towers (ours: the
paper's are a ViT and BERT), `align` is the paper's first stage. Its second, a new modality on a frozen trunk, is one
more stage with one more head: docs/methods/stages.md. Ours too: padding is left out of the means, the trunk's
transformer is pre-norm, steps and optimizer are as in projectors.py.
"""

import math

import projectors

from mmcontrast.config import smoke


def get_config(arg=None):
  c = projectors.get_config()
  head = dict(name="universal_projection", dim=128, heads=4)
  c.heads = dict(image_joint=dict(head, tower="image"),
                 text_joint=dict(head, tower="text", shared=dict(trunk="image_joint")))
  c.objective = dict(
      image_text=dict(query="image[0]/image_joint", key="text[0]/text_joint", direction="both",
                      temperature=math.exp(-2.5)))
  return smoke(c) if arg == "smoke" else c
