"""SwAV (Caron et al., arXiv:2006.09882): the cluster of one view is predicted from every other, small crops included.

    mmcontrast train --config methods/swav --workdir runs/swav

Two whole views give codes by Sinkhorn over the global batch and a queue of 1,024; four small crops only predict. 256
prototypes for some 1,900 concepts (3,000 for ImageNet), still for the first 100 steps; the queue counts from step 400.
Temperature 0.1, epsilon 0.05, three rounds as published; optimizer (not LARS) and schedule are the quickstart's.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.images()
  c.data.multi_crop = dict(views=4, size=16, scale=(0.2, 0.5))
  c.augment.image_small = dict(c.augment.image)
  c.heads.image_ssl = dict(tower="image", name="mlp", dim=128, hidden=512, batch_norm=True)
  views = [f"image[{v}]/image_ssl" for v in range(2)] + [f"image_small[{v}]/image_ssl" for v in range(4)]
  c.objective = dict(
    clusters=dict(
      module=dict(name="swav", prototypes=256, queue=1024, queue_from=400, freeze_steps=100), embeddings=tuple(views)
    )
  )
  return sized(c, arg)
