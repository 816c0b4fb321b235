"""VSE++ (Faghri et al., arXiv:1707.05612): every negative must score a margin less than the own pair.

    mmcontrast train --config configs/methods/vse_hinge.py --workdir runs/vse_hinge

The sum over all negatives of the batch with margin 0.2, which VSE++ starts from and compares with; its own loss keeps
only the hardest: --config.objective.image_text.criterion.reduce=hardest. A term is a mean over anchors and
directions, the authors' loss their sum: 2 N times as much. Data, towers and schedule are the quickstart's.
"""

import emoji

from mmcontrast.config import smoke


def get_config(arg=None):
  c = emoji.pair()
  c.objective = dict(
      image_text=dict(query="image[0]/image_joint", key="text[0]/text_joint", direction="both",
                      criterion=dict(name="hinge", margin=0.2, reduce="sum")))
  return smoke(c) if arg == "smoke" else c
