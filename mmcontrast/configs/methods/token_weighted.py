"""The token score of VALOR (Liu et al., arXiv:2304.08345) and HBI (arXiv:2303.14369): tokens have learned weights.

    mmcontrast train --config methods/token_weighted --workdir runs/token_weighted

A pair's score is the mean of the weighted best matches both ways, so one symmetric term does. VALOR's captioning
and audio groups and HBI's interaction between tokens are left out. Data, towers and schedule are the quickstart's.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.tokens("token_weighted")
  c.objective = dict(
    image_text=dict(
      query="image[0]/image_tokens",
      key="text[0]/text_tokens",
      score="token_weighted",
      direction="both",
      temperature=dict(init=0.07, learned=True, min=0.01),
    )
  )
  return sized(c, arg)
