"""Symile (Saporta et al., arXiv:2411.01053) of three modalities: a drawing, its name and its name spoken.

    mmcontrast data build emoji_spoken
    mmcontrast train --config methods/symile_audio --workdir runs/symile_audio

One multilinear product of the three vectors; each modality is the anchor once, against tuples whose keys are of
different examples. As in `methods/symile`: cyclic shifts for random permutations, and a scale that starts at 50. What
is trained is the triple's product, by which retrieval is measured beside the cosine of two: two embeddings alone need
not be alike. Data, towers and schedule are those of `trimodal`.
"""

from mmcontrast.config import sized
from mmcontrast.configs import trimodal


def get_config(arg=None):
  c = trimodal.three()
  image, text, audio = trimodal.NODES.values()
  common = dict(score="multilinear", negatives="permuted", weight=1 / 3)
  c.objective = dict(
    of_image=dict(query=image, key=(text, audio), temperature=dict(init=0.02, learned=True), **common),
    of_text=dict(query=text, key=(image, audio), temperature="of_image", **common),
    of_audio=dict(query=audio, key=(image, text), temperature="of_image", **common),
  )
  return sized(c, arg)
