"""CLIP ViT-L/14 as published (Radford et al., arXiv:2103.00020), sharded over 256 chips, v5e:16x16.

    mmcontrast train --config recipes/clip_vit_l14 --dry_run --topology v5e:16x16

Table 19's other shape: 24 blocks of width 1,024, a text tower of width 768, embeddings of 768, rate 4e-4. All else is
recipes/clip_vit_b16. Ours: parameters and optimizer state are cut over the chips (fsdp), and the backward pass
computes the blocks of both towers again.
"""

from mmcontrast.config import sized
from mmcontrast.configs.recipes import clip_vit_b16


def get_config(arg=None):
  c = clip_vit_b16.get_config()
  c.towers.image.update(patch=14, width=1024, depth=24, heads=16, remat="full")
  c.towers.text.update(width=768, heads=12, remat="full")
  c.heads.image_joint.dim = c.heads.text_joint.dim = 768
  c.optimizer.learning_rate.peak = 4e-4
  c.sharding, c.mesh = "fsdp", dict(data=1, fsdp=-1, tensor=1)
  c = sized(c, arg)
  c.data.image_size = 224 if arg is None else 28  # a multiple of the patch
  return c
