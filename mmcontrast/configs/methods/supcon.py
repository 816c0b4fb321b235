"""SupCon (Khosla et al., arXiv:2004.11362): all views of all examples of a class are positives of each other.

    mmcontrast train --config methods/supcon --workdir runs/supcon

The sum over positives stands outside the logarithm, and the loss is times tau / 0.07, as in the authors' code;
temperature 0.1. The class is the emoji's group, our choice: its probes on group and subgroup have seen that label,
unlike those of the other image methods. The rest as in simclr.py.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.images()
  c.heads.image_ssl = dict(tower="image", name="mlp", dim=128, batch_norm=True)
  views = ("image[0]/image_ssl", "image[1]/image_ssl")
  c.objective = dict(
    image_group=dict(
      query=views, key=views, target=dict(name="same_label", label="group"), temperature=0.1, weight=0.1 / 0.07
    )
  )
  return sized(c, arg)
