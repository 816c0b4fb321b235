"""SLIP (Mu et al., arXiv:2112.12750): CLIP, and SimCLR on two more views of the image.

    mmcontrast train --config methods/slip --workdir runs/slip

Three image views: the one CLIP sees is only cropped (no flip, no jitter), the others are augmented. The SimCLR term
has its own head, temperature 0.1 and weight 1. With two drawings a concept, view 2 is of the same drawing as
view 0, view 1 of the other; the head's width, data and schedule are the quickstart's.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.pair(image=3)
  c.augment = dict(image=("none", *[c.augment.image.to_dict()] * 2))
  c.heads.image_ssl = dict(tower="image", name="mlp", dim=128, batch_norm=True)
  views = ("image[1]/image_ssl", "image[2]/image_ssl")
  c.objective = dict(
    image_text=dict(
      query="image[0]/image_joint",
      key="text[0]/text_joint",
      direction="both",
      temperature=dict(init=0.07, learned=True, min=0.01, clamp="after_step"),
    ),
    image_image=dict(query=views, key=views, temperature=0.1),
  )
  return sized(c, arg)
