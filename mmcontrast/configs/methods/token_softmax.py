"""The score of CiCo (Cheng et al., arXiv:2303.12793): FILIP's, with a softmax over tokens for the maximum.

    mmcontrast train --config methods/token_softmax --workdir runs/token_softmax

Both scores (of an image's tokens among words, of words among an image's tokens) choose in both directions: the
mean of four cross entropies. The inner temperature 0.07 is CiCo's. Ours: emoji for sign language videos, their
names for its texts, and no swapped words in the second score's text (cico.py). Data, towers and schedule are the
quickstart's.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.tokens()
  image, text = "image[0]/image_tokens", "text[0]/text_tokens"
  common = dict(score=dict(name="token_softmax", temperature=0.07), direction="both", weight=0.5)
  c.objective = dict(
    image_among_words=dict(query=image, key=text, temperature=dict(init=0.07, learned=True, min=0.01), **common),
    words_among_image=dict(query=text, key=image, temperature="image_among_words", **common),
  )
  return sized(c, arg)
