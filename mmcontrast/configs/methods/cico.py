"""CiCo's loss whole (Cheng et al., arXiv:2303.12793): sign language and text as two languages, with swapped words.

    mmcontrast train --config methods/cico --workdir runs/cico
    mmcontrast train --config methods/cico:video --workdir runs/cico_video    # after mmcontrast data build furniture

The two scores of token_softmax.py, of which that of words among an image's tokens, or a clip's frames, reads a copy of
the caption in which two words have changed places, as the released code has it. Ours: emoji, or turning furniture, for
sign language videos, a transformer of two layers from scratch for CLIP's text tower. The mixture of two networks'
features of clips is not part of this.
"""

from mmcontrast.config import arguments, sized
from mmcontrast.configs import emoji, furniture
from mmcontrast.configs.methods import token_softmax


def get_config(arg=None):
  a = arguments(arg, video=False, smoke=False)
  c = furniture.tokens() if a.video else emoji.tokens()
  c.data.views.text = 2
  c.data.update(texts="same", word_swaps=(0, 1))
  c.towers.text.depth = 2
  c.objective = token_softmax.terms("video" if a.video else "image", words="text[1]")
  return sized(c, "smoke" if a.smoke else None)
