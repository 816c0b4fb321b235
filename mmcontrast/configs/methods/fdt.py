"""FDT (Chen et al., arXiv:2303.14865): CLIP on mixtures of finite discrete tokens that both modalities share.

    mmcontrast train --config methods/fdt --workdir runs/fdt

Each patch or word piece votes for codes, the largest vote over an example's tokens counts, sparsemax leaves few codes,
and the example is their mixture. 1,024 codes of 128 dimensions for some 1,900 concepts (released: 16,384 of 512).
Votes are divided by 44, the released 1,000 / sqrt(512): undivided, one code takes all, and no gradient is left.
Padding takes no part, where the released code gives it a vote of 0. Data, towers and schedule are the quickstart's.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.pair()
  head = dict(name="finite_tokens", dim=128, codes=1024, temperature=44.0)
  c.heads.image_joint = dict(head, tower="image")
  c.heads.text_joint = dict(head, tower="text", shared=dict(codes="image_joint"))
  c.objective = dict(
    image_text=dict(
      query="image[0]/image_joint",
      key="text[0]/text_joint",
      direction="both",
      temperature=dict(init=0.07, learned=True, min=0.01, clamp="after_step"),
    )
  )
  return sized(c, arg)
