"""OneEncoder (Faye et al., arXiv:2409.11059): frozen towers, one projection for all, and a token a modality.

    mmcontrast train --config methods/oneencoder --workdir runs/oneencoder

The heads have an adapter and a modality token each and share the trunk. The scale is fixed at exp(2.5), which is what
the released code's "learnable" temperature comes to. Stages `image` and `text` pretrain the towers (ours: the paper's
are a ViT and BERT); `align` is the paper's first stage; `german` its second: a new modality against an aligned one,
everything that was aligned frozen, the trunk too. German names stand for the paper's sound, and their tower trains
along with its head, since nothing pretrains it. Ours too: padding is left out of the means, the trunk's transformer is
pre-norm, steps and optimizer are as in projectors.py. Evaluation is of images and English.
"""

import math

from mmcontrast.config import sized
from mmcontrast.configs.methods import projectors

SCALE = math.exp(-2.5)


def get_config(arg=None):
  c = projectors.get_config()
  head = dict(name="universal_projection", dim=128, heads=4)
  c.heads = dict(
    image_joint=dict(head, tower="image"), text_joint=dict(head, tower="text", shared=dict(trunk="image_joint"))
  )
  c.objective = dict(
    image_text=dict(query="image[0]/image_joint", key="text[0]/text_joint", direction="both", temperature=SCALE)
  )
  aligned = ("towers/image", "towers/text", "heads/image_joint", "heads/text_joint")
  c.stages = (
    *c.stages,
    dict(
      name="german",
      steps=300,
      data=dict(views=dict(image=1, text=2), languages=("en", "de")),
      towers=dict(image=c.towers.image, text=c.towers.text, german=dict(c.towers.text, modality="text")),
      heads=dict(c.heads, german_joint=dict(head, tower="german", shared=dict(trunk="image_joint"))),
      objective=dict(
        german_text=dict(query="text[1]/german_joint", key="text[0]/text_joint", direction="both", temperature=SCALE)
      ),
      init={part: f"align:{part}" for part in aligned},
      optimizer=dict(frozen=tuple(f"{part}/.*" for part in aligned)),
    ),
  )
  return sized(c, arg)
