"""FILIP (Yao et al., arXiv:2111.07783): every token looks for its best match among the other side's tokens.

    mmcontrast train --config methods/filip --workdir runs/filip

The two directions are two scores, hence two terms, of one temperature. Image tokens are the cells of the last
feature map, text tokens the word pieces. Data, towers and schedule are the quickstart's. Left out: the choice of
a quarter of the tokens before the gather, half-precision communication, LAMB, back-translation.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.tokens()
  image, text = "image[0]/image_tokens", "text[0]/text_tokens"
  c.objective = dict(
    image_to_text=dict(
      query=image, key=text, score="token_max", weight=0.5, temperature=dict(init=0.07, learned=True, min=0.01)
    ),
    text_to_image=dict(query=text, key=image, score="token_max", weight=0.5, temperature="image_to_text"),
  )
  return sized(c, arg)
