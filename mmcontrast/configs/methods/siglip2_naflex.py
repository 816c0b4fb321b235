"""SigLIP 2's NaFlex (Tschannen et al., arXiv:2502.14786, section 2.4.2): images keep their ratio.

    mmcontrast train --config methods/siglip2_naflex --workdir runs/naflex

SigLIP's loss; an image is a row of at most 9, 16 or 25 patches, one of the three for each batch, and its learned
positions are resized to its own rows and columns. As published: attention pooling, several lengths, linear resizing
with antialiasing. Ours: a budget of patches a batch, so that one of larger images holds fewer, and crops of ratios from
1:2 to 2:1, for the drawings are squares. Data, texts and schedule are the quickstart's.
"""

import math

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.pair()
  c.data.update(trim=False, centre_crop=1.0, crop=dict(scale=(0.5, 1.0), ratio=(1 / 2, 2)))
  c.data.native.update(patch=8, patches=(9, 16, 25), tokens=9 * c.batch.size)
  c.augment = dict(image="none")
  c.towers.image = dict(name="vit", patch=8, width=96, depth=3, heads=3, pool="map", position_side=4)
  c.objective = dict(
    image_text=dict(
      query="image[0]/image_joint",
      key="text[0]/text_joint",
      criterion="sigmoid",
      temperature=dict(init=0.1, learned=True),
      bias=dict(init=-math.log(c.batch.size - 1)),
    )
  )
  return sized(c, arg)
