"""GRAM (Cicchetti et al., arXiv:2412.11959) of three modalities: a drawing, its name and its name spoken.

    mmcontrast data build emoji_spoken
    mmcontrast train --config methods/gram_audio --workdir runs/gram_audio

The volume that the three vectors span, with the drawing as the anchor: a name and its sound say the same, so with one
of them as the anchor the other would be enough (docs/methods/multiway.md). As in the public code: label smoothing 0.1
and a learned temperature that divides, from 0.07. Ours: its bounds, and gradients to both sides in both directions. The
matching head is left out. Retrieval is measured by the volume, which is trained, beside the cosine of two, which is
not. Data, towers and schedule are those of `trimodal`.
"""

from mmcontrast.config import sized
from mmcontrast.configs import trimodal


def get_config(arg=None):
  c = trimodal.three()
  image, text, audio = trimodal.NODES.values()
  c.objective = dict(
    volume=dict(
      query=image,
      key=(text, audio),
      score="gram_volume",
      direction="both",
      criterion=dict(name="softmax", smoothing=0.1),
      temperature=dict(init=0.07, learned=True, form="tau", min=0.01, max=1.0),
    )
  )
  return sized(c, arg)
