"""Matryoshka representation learning (Kusupati et al., arXiv:2205.13147) of CLIP's pair: embeddings to be shortened.

    mmcontrast train --config methods/matryoshka --workdir runs/matryoshka
    mmcontrast evaluate --workdir runs/matryoshka --width 32

CLIP's term at four widths of the same embeddings, each of weight 1 as published, with one temperature. Vectors are cut
first and brought to unit length afterwards. Data, towers and schedule are the quickstart's.
"""

from mmcontrast.config import sized
from mmcontrast.configs.methods import clip


def get_config(arg=None):
  c = clip.get_config()
  c.objective.image_text.matryoshka = (16, 32, 64, 128)
  return sized(c, arg)
