"""IRRA (Jiang and Ye, arXiv:2303.12501): similarity distributions, identities as classes, words guessed from the image.

    mmcontrast train --config methods/irra --workdir runs/irra

The term of `sdm`; a classifier of identities, the same matrix on both embeddings, the mean of both; and implicit
relation reasoning: words of the masked text guessed with the tokens of the image, at least one a text. All of weight 1.
In emoji_views each example is an identity of its own; of data with several images a person, name their label. Ours: one
block of self- and cross-attention for a cross-attention and four blocks of self-attention, and the quickstart's towers
for CLIP's.
"""

from mmcontrast.config import sized
from mmcontrast.configs.methods import albef, sdm

IDENTITIES = 1903  # examples of emoji_views


def get_config(arg=None):
  c = sdm.get_config()
  albef.add_fusion(c)
  albef.add_words(c)
  del c.heads.match
  c.towers.fusion.norm = "pre"
  c.evaluation.evaluators.retrieval = dict()
  c.data.masked_words.at_least_one = True
  c.heads.image_id = dict(of="image_joint", name="match", dim=IDENTITIES)
  c.heads.text_id = dict(of="text_joint", name="match", dim=IDENTITIES, shared=dict(fc1="image_id"))
  c.objective.identity = dict(
    module=dict(name="classification", label="example"), embeddings=("image[0]/image_id", "text[0]/text_id")
  )
  return sized(c, arg)
