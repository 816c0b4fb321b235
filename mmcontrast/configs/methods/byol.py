"""BYOL (Grill et al., arXiv:2006.07733): a predictor on one view finds what a momentum branch makes of the other.

    mmcontrast train --config methods/byol --workdir runs/byol

No negatives: the squared distance of unit vectors, both ways, added up. The predictor reads the projector and is in
the online branch only. The momentum branch follows after the step; its decay goes to 1 by a cosine, from 0.98, not
0.996, for so short a run. Optimizer (not LARS), augmentation and schedule are the quickstart's.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.images()
  c.heads.image_ssl = dict(tower="image", name="mlp", dim=128, hidden=512, batch_norm=True)
  c.heads.predictor = dict(of="image_ssl", name="mlp", dim=128, hidden=512, batch_norm=True)
  c.momentum = dict(decay=dict(name="cosine", init=0.98, end=1.0), update="after_step")
  c.objective = {
    f"view_{v}": dict(
      regularizer="alignment", embeddings=(f"image[{v}]/predictor", f"image[{1 - v}]/image_ssl@momentum")
    )
    for v in range(2)
  }
  return sized(c, arg)
