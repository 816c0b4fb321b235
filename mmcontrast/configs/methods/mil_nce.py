"""MIL-NCE (Miech et al., arXiv:1912.06430): a drawing and a bag of four of its names, any of which may be right.

    mmcontrast train --config methods/mil_nce --workdir runs/mil_nce

Names in four languages stand for the narrations around a clip. Ours: unit vectors and a temperature of 0.07, where the
paper compares vectors as they are. Data, towers and schedule are the quickstart's.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.pair(text=4)
  c.data.languages, c.data.text_length = ("en", "de", "fr", "es"), 16
  names = tuple(f"text[{v}]/text_joint" for v in range(4))
  c.objective = dict(
    bags=dict(module=dict(name="mil_nce", temperature=0.07), embeddings=("image[0]/image_joint", *names))
  )
  return sized(c, arg)
