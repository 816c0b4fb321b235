"""1-to-K (Nie et al., arXiv:2406.18254): an image and its names in K languages, all positives of it at once.

    mmcontrast train --config configs/methods/one_to_k.py --workdir runs/one_to_k

Both directions of the released loss, (i2t + t2i) / 2 / K with the sum of an image's K log-likelihoods in i2t: the
mean over positives in our term is that sum over K already. The temperature is learned itself and kept within
[0.001, 0.5]. All 14 languages of the names stand for the paper's ten; the tokenizer has learned from English
captions, so other scripts are bytes, and a bag of pieces would lose their order: one transformer layer reads them.
Evaluation is in English. Matching, masked words and the variance term of the full model are not part of this.
"""

import emoji

from mmcontrast.config import smoke

LANGUAGES = ("en", "ar", "de", "es", "fa", "fr", "id", "it", "ja", "ko", "pt", "ru", "tr", "zh")


def get_config(arg=None):
  c = emoji.pair(text=len(LANGUAGES))
  c.data.update(languages=LANGUAGES, text_length=24)
  c.towers.text.update(width=64, depth=1)
  c.heads.text_joint.dim = c.heads.image_joint.dim = 64
  both = dict(query="image[0]/image_joint", key=tuple(f"text[{k}]/text_joint" for k in range(len(LANGUAGES))))
  c.objective = dict(
      image_to_texts=dict(both, direction="rows", weight=1 / 2,
                          temperature=dict(init=0.07, learned=True, form="tau", min=0.001, max=0.5)),
      texts_to_image=dict(both, direction="columns", weight=1 / (2 * len(LANGUAGES)), temperature="image_to_texts"))
  return smoke(c) if arg == "smoke" else c
