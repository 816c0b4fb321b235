"""DHEL (Koromilas et al., arXiv:2405.18045): a view's negatives are the same view of other examples.

    mmcontrast train --config methods/dhel --workdir runs/dhel

The two-view case of MV-DHEL, whose criterion this is. Temperature 0.3 is our choice. The rest as in simclr.py.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.images()
  c.heads.image_ssl = dict(tower="image", name="mlp", dim=128, batch_norm=True)
  views = ("image[0]/image_ssl", "image[1]/image_ssl")
  c.objective = dict(image_image=dict(query=views, key=views, criterion="mv_dhel", temperature=0.3))
  return sized(c, arg)
