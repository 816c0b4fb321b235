"""MV-InfoNCE (Koromilas et al., arXiv:2507.06979): one fraction an example over all pairs of its views.

    mmcontrast train --config methods/mv_infonce --workdir runs/mv_infonce

The denominator holds pairs of one view too, as in the published code (its README leaves them out:
criterion=dict(name="multi_view", same_view=False)). Four views: two drawings of a concept, each augmented twice.
Temperature 0.5 is that of the authors' CIFAR runs. Optimizer, augmentation and schedule are the quickstart's.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.images(views=4)
  c.heads.image_ssl = dict(tower="image", name="mlp", dim=128, batch_norm=True)
  views = tuple(f"image[{view}]/image_ssl" for view in range(4))
  c.objective = dict(image_image=dict(query=views, key=views, criterion="multi_view", temperature=0.5))
  return sized(c, arg)
