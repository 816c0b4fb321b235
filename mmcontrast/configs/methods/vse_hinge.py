"""VSE++ (Faghri et al., arXiv:1707.05612): every negative must score a margin less than the own pair.

    mmcontrast train --config methods/vse_hinge --workdir runs/vse_hinge

The sum over all negatives of the batch with margin 0.2, which VSE++ starts from and compares with; its own loss keeps
only the hardest: --config.objective.image_text.criterion.reduce=hardest. A term is a mean over anchors and
directions, the authors' loss their sum: 2 N times as much. Data, towers and schedule are the quickstart's.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.pair()
  c.objective = dict(
    image_text=dict(
      query="image[0]/image_joint",
      key="text[0]/text_joint",
      direction="both",
      criterion=dict(name="hinge", margin=0.2, reduce="sum"),
    )
  )
  return sized(c, arg)
