"""AdaMEOW's loss (Yu et al., arXiv:2212.13847) on two drawings: a small network weighs each negative.

    mmcontrast train --config methods/adameow --workdir runs/adameow

The paper's two views are contexts of a node in a graph; here they are two augmented drawings of a concept. A negative
of the same concept can be given little weight; the weights are learned by the loss itself. Data, towers and schedule
are the quickstart's.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.images()
  c.objective = dict(
    views=dict(
      module=dict(name="adaptive_negatives", temperature=0.1, hidden=64),
      embeddings=("image[0]/image_ssl", "image[1]/image_ssl"),
    )
  )
  return sized(c, arg)
