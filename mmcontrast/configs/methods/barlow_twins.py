"""Barlow Twins (Zbontar et al., arXiv:2103.03230): the correlation of two views' dimensions becomes the identity.

    mmcontrast train --config methods/barlow_twins --workdir runs/barlow_twins

No negatives, no predictor, no momentum branch; 0.0051 for what is off the diagonal as published, over the global batch.
The projector has 512 dimensions, not 8192; optimizer (not LARS), augmentation and schedule are the quickstart's. The
loss is divided by its dimensions, as the size of the published one goes with them.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.images()
  c.heads.image_ssl = dict(tower="image", name="mlp", dim=512, hidden=512, depth=3, batch_norm=True)
  c.objective = dict(
    views=dict(
      regularizer=dict(name="barlow_twins", off_diagonal=0.0051),
      weight=1 / 512,
      embeddings=("image[0]/image_ssl", "image[1]/image_ssl"),
    )
  )
  return sized(c, arg)
