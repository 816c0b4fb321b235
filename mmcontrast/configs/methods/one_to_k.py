"""1-to-K (Nie et al., arXiv:2406.18254): an image and its names in K languages, all positives of it at once.

    mmcontrast train --config methods/one_to_k --workdir runs/one_to_k

Both directions of the released loss, (i2t + t2i) / 2 / K with the sum of an image's K log-likelihoods in i2t: the
mean over positives in our term is that sum over K already. The temperature itself is learned, within [0.001, 0.5].
The 14 languages of the names stand for the paper's. The quickstart's tokenizer and bag of pieces read them: it knows
English, so other scripts are bags of bytes, which is far from the paper's XLM-R; evaluation is in English. Matching,
masked words and the variance term of the full model are not part of this.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji

LANGUAGES = ("en", "ar", "de", "es", "fa", "fr", "id", "it", "ja", "ko", "pt", "ru", "tr", "zh")


def get_config(arg=None):
  languages = LANGUAGES[:3] if arg == "smoke" else LANGUAGES
  c = emoji.pair(text=len(languages))
  c.data.update(languages=languages, text_length=32)
  both = dict(query="image[0]/image_joint", key=tuple(f"text[{k}]/text_joint" for k in range(len(languages))))
  c.objective = dict(
    image_to_texts=dict(
      both, direction="rows", weight=1 / 2, temperature=dict(init=0.07, learned=True, form="tau", min=0.001, max=0.5)
    ),
    texts_to_image=dict(both, direction="columns", weight=1 / (2 * len(languages)), temperature="image_to_texts"),
  )
  return sized(c, arg)
