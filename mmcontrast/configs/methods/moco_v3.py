"""MoCo v3 (Chen et al., arXiv:2104.02057): a predictor on each view picks the other's momentum key.

    mmcontrast train --config methods/moco_v3 --workdir runs/moco_v3

Two terms, one for each view as the query, the batch's keys as negatives, no queue; temperature 0.2, and the loss
times 2 tau, which is their weight. Keys follow the EMA taken before the step, whose decay goes to 1 by a cosine: from
0.98, not 0.99, for so short a run. The predictor follows the online projector only; both end in a batch norm
without scale and bias, as published. The projector has two layers, as the released ResNet-50's; its ViT's has three.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.images()
  c.heads.image_ssl = dict(tower="image", name="mlp", dim=128, hidden=512, batch_norm=True, batch_norm_last=True)
  c.heads.predictor = dict(of="image_ssl", name="mlp", dim=128, hidden=512, batch_norm=True, batch_norm_last=True)
  c.momentum = dict(decay=dict(name="cosine", init=0.98, end=1.0), update="before_keys")
  term = dict(temperature=0.2, weight=2 * 0.2)
  c.objective = dict(
    first=dict(term, query="image[0]/predictor", key="image[1]/image_ssl@momentum"),
    second=dict(term, query="image[1]/predictor", key="image[0]/image_ssl@momentum"),
  )
  return sized(c, arg)
