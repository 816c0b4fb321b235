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
  c.objective = terms("image")
  return sized(c, arg)


def terms(seen, words="text[0]"):
  """Both scores, of the tokens of a modality and of text[0]; the second's of `words`."""
  shown, text = f"{seen}[0]/{seen}_tokens", "text[0]/text_tokens"
  common = dict(score=dict(name="token_softmax", temperature=0.07), direction="both", weight=0.5)
  first = f"{seen}_among_words"
  learned = dict(init=0.07, learned=True, min=0.01)
  return {
    first: dict(query=shown, key=text, temperature=learned, **common),
    f"words_among_{seen}": dict(query=f"{words}/text_tokens", key=shown, temperature=first, **common),
  }
