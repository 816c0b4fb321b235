"""VICReg (Bardes et al., arXiv:2105.04906): two views alike, dimensions spread out and uncorrelated over the batch.

    mmcontrast train --config methods/vicreg --workdir runs/vicreg

No negatives, no predictor, no momentum branch; weights 25, 25 and 1 as published, over the global batch. The expander
has 512 dimensions, not 8192; optimizer (not LARS), augmentation and schedule are the quickstart's.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.images()
  c.heads.image_ssl = dict(tower="image", name="mlp", dim=512, hidden=512, depth=3, batch_norm=True)
  c.objective = dict(
    views=dict(
      regularizer=dict(name="vicreg", sim=25.0, std=25.0, cov=1.0),
      embeddings=("image[0]/image_ssl", "image[1]/image_ssl"),
    )
  )
  return sized(c, arg)
