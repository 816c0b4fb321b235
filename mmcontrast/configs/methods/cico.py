"""CiCo's loss whole (Cheng et al., arXiv:2303.12793): sign language and text as two languages, with swapped words.

    mmcontrast train --config methods/cico --workdir runs/cico

The two scores of token_softmax.py, of which that of words among an image's tokens reads a copy of the caption in which
two words have changed places, as the released code has it. Ours: emoji for sign language videos, a transformer of two
layers from scratch for CLIP's text tower. The mixture of two networks' features of clips is not part of this.
"""

from mmcontrast.config import sized
from mmcontrast.configs.methods import token_softmax


def get_config(arg=None):
  c = token_softmax.get_config()
  c.data.views.text = 2
  c.data.update(texts="same", word_swaps=(0, 1))
  c.towers.text.depth = 2
  c.objective.words_among_image.query = "text[1]/text_tokens"
  return sized(c, arg)
