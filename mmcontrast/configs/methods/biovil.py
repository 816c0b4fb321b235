"""BioViL-style (Boecking et al., arXiv:2204.09817): a text tower from texts alone, then pairs, masked words in both.

    mmcontrast train --config methods/biovil --workdir runs/biovil

Stage `texts`: two texts of an example, in the paper the findings and the impression of one report, choose each other
among the batch's, and words of a masked text are guessed from its others. Stage `pairs`: the text tower goes on from
there with the image tower, by the contrast of their pooled vectors, and masked words are kept. Ours: names in place of
sections, no shuffling of sentences, the steps of the stages, and a text tower of one layer; terms have weight 1. The
training code is not public: this follows the paper's description.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji

WORDS = dict(module=dict(name="masked_words"), embeddings=("text_masked[0]/words",))
TEXT = dict(tower="text", name="words", transform=True, tied=True, bias=True)


def pair(query, key):
  return dict(query=query, key=key, direction="both", temperature=dict(init=0.07, learned=True, min=0.01))


def get_config(arg=None):
  masked = dict(facts=("ids", "masked"), masked_words=dict(views=1))
  texts, c = emoji.texts(), emoji.pair()
  for one in (texts, c):
    one.towers.text.depth = 1
    one.heads.words = dict(TEXT)
  texts.objective = dict(sections=pair("text[0]/text_ssl", "text[1]/text_ssl"), words=dict(WORDS))
  c.objective = dict(image_text=pair("image[0]/image_joint", "text[0]/text_joint"), words=dict(WORDS))
  c.data.update(masked)
  c.evaluation.evaluators.masked_words = dict()
  first = emoji.stage(texts, "texts", steps=600)
  parts = ("towers/text", "heads/words")
  c.stages = (
    dict(first, data=dict(first["data"], **masked)),
    dict(name="pairs", steps=1200, init={part: f"texts:{part}" for part in parts}),
  )
  return sized(c, arg)
