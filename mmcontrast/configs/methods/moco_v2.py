"""MoCo v2 (Chen et al., arXiv:2003.04297): a view chooses its other view's momentum key among those of a queue.

    mmcontrast train --config methods/moco_v2 --workdir runs/moco_v2

Data, tower, schedule, temperature and momentum are the quickstart's, whose image-image term this is, but that
here only the own key is positive.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.images()
  c.objective = dict(
    image_image=dict(
      query="image[0]/image_ssl", key="image[1]/image_ssl@momentum", negatives="queue:1024", temperature=0.1
    )
  )
  return sized(c, arg)
