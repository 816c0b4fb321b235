"""GRAM with its matching head (Cicchetti et al., arXiv:2412.11959): the volume draws the tuples that do not match.

    mmcontrast train --config methods/gram_match --workdir runs/gram_match

The term of `gram`, and a fusion encoder in which the English name attends to the German name and the drawing. It tells
a tuple from a drawing with both names of another concept, and from names with another drawing, drawn by the volumes of
the global batch; weight 0.1. As in `gram`, the drawing is the anchor, where the paper's is the caption. Ours: one
layer.
"""

from mmcontrast.config import sized
from mmcontrast.configs.methods import albef, gram


def get_config(arg=None):
  c = gram.get_config()
  albef.add_fusion(c)
  c.towers.fusion.reads = ("text", "german", "image")
  c.evaluation.evaluators.retrieval = dict()
  c.objective.match = dict(
    module=dict(name="matching"),
    embeddings=(
      "fusion(text[0], text[1], image[0])/match",
      "fusion(text[0]~volume, text[1]~volume, image[0])/match",
      "fusion(text[0], text[1], image[0]~volume)/match",
    ),
    weight=0.1,
  )
  return sized(c, arg)
