"""SimCLR (Chen et al., arXiv:2002.05709): each of 2N views picks its other view out of all the others (NT-Xent).

    mmcontrast train --config methods/simclr --workdir runs/simclr

The mean over the 2N anchors (the TensorFlow code's loss is twice that), temperature 0.1, a head with batch
normalisation. The two views are two drawings of a concept; optimizer (not LARS), augmentation and schedule are the
quickstart's.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.images()
  c.heads.image_ssl = dict(tower="image", name="mlp", dim=128, batch_norm=True)
  views = ("image[0]/image_ssl", "image[1]/image_ssl")
  c.objective = dict(image_image=dict(query=views, key=views, temperature=0.1))
  return sized(c, arg)
