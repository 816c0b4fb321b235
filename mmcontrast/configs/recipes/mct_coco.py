"""MCT's five terms on COCO captions with a ResNet-50 at 224 px, for eight chips, v5e:2x4.

    mmcontrast train --config recipes/mct_coco --dry_run --topology v5e:2x4
    mmcontrast train --config recipes/mct_coco --workdir gs://bucket/mct --config.data.dataset=coco:/data/coco

The config `mct_coco` in bfloat16; its docstring says which numbers are MoCo v2's (He et al., arXiv:2003.04297) and
which are our choice.
"""

from mmcontrast.config import sized
from mmcontrast.configs import mct_coco


def get_config(arg=None):
  c = mct_coco.get_config()
  for tower in c.towers.values():
    tower.dtype = "bfloat16"
  return sized(c, arg)
