"""GRAM (Cicchetti et al., arXiv:2412.11959): the volume that a drawing, an English name and a German name span.

    mmcontrast train --config methods/gram --workdir runs/gram

The drawing is the anchor; the two names are one tuple, each from a text tower of its own. With a name as the anchor,
and both names through one tower, the other name is enough to identify it, and the drawing is not used
(docs/methods/multiway.md). As in the public code: label smoothing 0.1 and a learned temperature that divides, from
0.07. Ours: its bounds, the modalities, and gradients to both sides in both directions (that code trains one side in
each). The matching head is left out. Data, towers and schedule are the quickstart's, with names in two languages for
its captions.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.pair(text=2)
  c.data.languages, c.data.text_length = ("en", "de"), 16
  c.towers.german = dict(c.towers.text, modality="text")
  c.heads.german_joint = dict(c.heads.text_joint, tower="german")
  c.objective = dict(
    volume=dict(
      query="image[0]/image_joint",
      key=("text[0]/text_joint", "text[1]/german_joint"),
      score="gram_volume",
      direction="both",
      criterion=dict(name="softmax", smoothing=0.1),
      temperature=dict(init=0.07, learned=True, form="tau", min=0.01, max=1.0),
    )
  )
  return sized(c, arg)
