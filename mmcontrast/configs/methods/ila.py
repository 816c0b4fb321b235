"""ILA (Tu et al., arXiv:2304.10465): neighbouring frames are aligned at points that a small network predicts.

    mmcontrast data build furniture
    mmcontrast train --config methods/ila --workdir runs/ila

What frames have in common is added to them before they attend, and the vectors at the points of two neighbours are to
be alike: the tower's loss "alignment", the sum over its blocks, with weight 1. Blocks as in
Francis-Rings/ILA@1a912d9, whose jitter of the points shrinks every epoch and here stands still. Ours: towers from
nothing, captions for names of actions.
"""

from mmcontrast.config import sized
from mmcontrast.configs import furniture


def get_config(arg=None):
  c = furniture.pair("ila", temporal_heads=2)
  c.objective = dict(
    video_text=furniture.contrast(),
    alignment=dict(auxiliary="alignment", embeddings="video[0]/video_joint", weight=1.0),
  )
  return sized(c, arg)
