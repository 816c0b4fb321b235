"""1-to-K with matching and masked words, in the manner of its full model (Nie et al., arXiv:2406.18254).

    mmcontrast train --config methods/ccrk --workdir runs/ccrk

The terms of `one_to_k`; a fusion encoder that matches the drawing with names in two of the languages, each with names
and drawings of other concepts that these terms' scores draw, and guesses words of the first. Ours: two languages in the
fusion instead of all K, weights of 1, and one layer; the quickstart's tokenizer, as there.
"""

from mmcontrast.config import sized
from mmcontrast.configs.methods import albef, one_to_k


def get_config(arg=None):
  c = one_to_k.get_config(arg and "smoke")
  albef.add_fusion(c)
  albef.add_words(c)
  pairs = [
    pair
    for text in ("text[0]", "text[1]")
    for pair in (
      f"fusion({text}, image[0])/match",
      f"fusion({text}~image_to_texts, image[0])/match",
      f"fusion({text}, image[0]~texts_to_image)/match",
    )
  ]
  c.objective.match = dict(module=dict(name="matching"), embeddings=tuple(pairs))
  return sized(c, arg)
