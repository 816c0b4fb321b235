"""CLIP4Clip (Luo et al., arXiv:2104.08860): CLIP of videos, whose vector is the mean of those of their frames.

    mmcontrast data build furniture
    mmcontrast train --config methods/clip4clip --workdir runs/clip4clip

The parameter-free form; it cannot tell the order of frames, which these captions need: what it reaches is what the
objects alone give. For the sequential form set towers.video.temporal="transformer". Ours: towers from nothing, where
CLIP4Clip starts from CLIP's weights.
"""

from mmcontrast.config import sized
from mmcontrast.configs import furniture


def get_config(arg=None):
  c = furniture.pair("mean")
  c.objective.video_text = furniture.contrast()
  return sized(c, arg)
