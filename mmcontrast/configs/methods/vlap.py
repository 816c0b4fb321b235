"""VLAP (Park et al., arXiv:2404.09632): images are assigned to the words of a frozen text tower, as its texts are.

    mmcontrast train --config methods/vlap --workdir runs/vlap

The prototypes are the word embeddings of the text tower, still; texts and images predict each other's assignment to
them, of which frequent words take more. Only a linear layer from the image tower trains in stage `assign`. Stage
`image` pretrains its tower by SimCLR's term; stage `text` by masked words, guessed by their embeddings themselves, so
that what the tower says lies among words, as in the paper's language models. Ours: the paper's towers are CLIP or BEiT,
and a T5 or OPT, whose captioning loss it adds, which is not here; words are counted while training, not before; steps.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji
from mmcontrast.configs.methods import projectors


def get_config(arg=None):
  c = emoji.pair()
  c.heads = dict(
    image_joint=dict(tower="image", name="linear", dim=128, bias=True), text_joint=dict(tower="text", name="identity")
  )
  c.objective = dict(
    words=dict(
      module=dict(name="assignment_prediction", prototypes=2000, text="text[0]"),
      embeddings=("image[0]/image_joint", "text[0]/text_joint"),
    )
  )
  texts = emoji.texts(views=1)
  texts.heads = dict(words=dict(tower="text", name="words", tied=True, bias=True))
  texts.objective = dict(words=dict(module=dict(name="masked_words"), embeddings=("text_masked[0]/words",)))
  masked = dict(facts=("ids", "masked"), masked_words=dict(views=1))
  text = emoji.stage(texts, "text", steps=400)
  c.stages = (
    emoji.stage(projectors.alone(emoji.images(), "image_ssl"), "image", steps=700),
    dict(text, data=dict(text["data"], **masked)),
    dict(
      name="assign",
      steps=700,
      data=dict(facts=("ids",)),
      init={
        "towers/image": "image:towers/image",
        "towers/text": "text:towers/text",
        "terms/words/prototypes/kernel": "text:towers/text/token_embedding/embedding",
      },
      optimizer=dict(frozen=("towers/.*", "terms/words/prototypes/.*")),
    ),
  )
  c = sized(c, arg)
  c.heads.image_joint.dim = c.towers.text.width  # images go where words are
  return c
