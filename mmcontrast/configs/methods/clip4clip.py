"""CLIP4Clip (Luo et al., arXiv:2104.08860): CLIP of videos, whose vector is the mean of those of their frames.

    mmcontrast data build furniture
    mmcontrast train --config methods/clip4clip --workdir runs/clip4clip
    mmcontrast train --config methods/clip4clip:orders --workdir runs/orders --config.towers.video.temporal=transformer

The parameter-free form; it cannot tell the order of frames, which these captions need: what it reaches is what the
objects alone give. For the sequential form set towers.video.temporal="transformer". With `orders` each clip stands
beside its reverse, and each caption beside that of it, as hard negatives, a small ResNet sees the frames, and motions
are classes too, of clips and of captions, which is supervision that CLIP4Clip has not (furniture.py says why). Ours:
towers from nothing, where CLIP4Clip starts from CLIP's weights: tower `frames` of a CLIP ViT does, by
init={"towers/video/of": "open_clip:PATH:towers/image"}.
"""

from mmcontrast.config import arguments, sized
from mmcontrast.configs import furniture


def get_config(arg=None):
  a = arguments(arg, orders=False, smoke=False)
  c = furniture.pair("mean")
  c.objective.video_text = furniture.contrast()
  if a.orders:
    furniture.in_both_orders(c)
  return sized(c, "smoke" if a.smoke else None)
