"""MoCo v3's contrastive terms (Chen et al., arXiv:2104.02057): each view picks the other's momentum key.

    mmcontrast train --config methods/moco_v3 --workdir runs/moco_v3

Two terms, one for each view as the query, the batch's keys as negatives, no queue; temperature 0.2, and the loss
times 2 tau, which is their weight. Keys follow the EMA taken before the step, whose decay goes to 1 by a cosine: from
0.98, not 0.99, for so short a run. The published method puts a predictor after the online projector alone; heads
cannot say that yet, so both branches end at the projector, and this is MoCo v3 without its predictor.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.images()
  c.heads.image_ssl = dict(tower="image", name="mlp", dim=128, batch_norm=True)
  c.momentum = dict(decay=dict(name="cosine", init=0.98, end=1.0), update="before_keys")
  term = dict(temperature=0.2, weight=2 * 0.2)
  c.objective = dict(
      first=dict(term, query="image[0]/image_ssl", key="image[1]/image_ssl@momentum"),
      second=dict(term, query="image[1]/image_ssl", key="image[0]/image_ssl@momentum"))
  return sized(c, arg)
