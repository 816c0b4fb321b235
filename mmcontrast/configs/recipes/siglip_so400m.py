"""SigLIP So400m/14 at 224 px (Zhai et al., arXiv:2303.15343; shape: Alabdulmohsin et al., arXiv:2305.13035), v6e:16x16.

    mmcontrast train --config recipes/siglip_so400m --dry_run --topology v6e:16x16

Both towers have 27 blocks of width 1,152, MLPs of 4,304 and 16 heads, as the released model. All else is
recipes/siglip_vit_b16. Ours: parameters and optimizer state are cut over the chips (fsdp), and the backward pass
computes the blocks of the image tower again.
"""

from mmcontrast.config import sized
from mmcontrast.configs.recipes import siglip_vit_b16


def get_config(arg=None):
  c = siglip_vit_b16.get_config()
  shape = dict(width=1152, depth=27, heads=16, mlp_ratio=4304 / 1152)
  c.towers.image.update(patch=14, remat="full", **shape)
  c.towers.text.update(**shape)
  c.heads.text_joint.dim = 1152
  c.sharding, c.mesh = "fsdp", dict(data=1, fsdp=-1, tensor=1)
  c = sized(c, arg)
  if arg is not None:
    c.data.image_size = 28  # a multiple of the patch
    c.heads.text_joint.dim = c.towers.image.width
  return c
