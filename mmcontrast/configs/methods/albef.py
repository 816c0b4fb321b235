"""ALBEF (Li et al., arXiv:2107.07651): momentum contrast, matching with hard negatives, masked words, distillation.

    mmcontrast train --config methods/albef --workdir runs/albef

Beside the two terms of `albef_itc` a fusion encoder reads the text's tokens with those of the image. It tells a pair
from the same image with another text and the same text with another image, each drawn by the contrastive scores of the
global batch; and it guesses 15 % of the words, 0.4 of the target, ramped as there, being what the momentum branch
guesses. All three of weight 1. Queues, schedule, data and towers are those of `albef_itc`: a bag of pieces stands for
the six lower layers of a BERT, one layer for the six upper ones. Evaluation puts the 16 nearest
in order by matching and the cosine.
"""

from mmcontrast.config import sized
from mmcontrast.configs.methods import albef_itc

MASKED = "fusion(text_masked[0], image[0])/words"


def add_fusion(c, depth=1):
  """A fusion encoder of BERT's blocks, and a head that matches by it."""
  c.towers.fusion = dict(
    name="fusion_transformer", reads=("text", "image"), width=128, depth=depth, heads=4, norm="post", activation="gelu"
  )
  c.heads.match = dict(tower="fusion", name="match")
  c.evaluation.evaluators.retrieval = dict(match="match")


def add_matching(c, texts, images):
  """Matching, with texts drawn by the scores of the term `texts` and images by those of the term `images`."""
  pairs = ("fusion(text[0], image[0])", f"fusion(text[0]~{texts}, image[0])", f"fusion(text[0], image[0]~{images})")
  c.objective.match = dict(module=dict(name="matching"), embeddings=tuple(f"{pair}/match" for pair in pairs))


def add_words(c, share=0.0):
  """Masked words with the image; `share` of the target is what the momentum branch guesses."""
  c.data.masked_words.views, c.data.facts = 1, ("ids", "masked")
  c.heads.words = dict(tower="fusion", name="words", transform=True, tied=True, bias=True)
  c.evaluation.evaluators.masked_words = dict()
  c.objective.words = dict(
    module=dict(name="masked_words", share=share), embeddings=(MASKED, f"{MASKED}@momentum") if share else (MASKED,)
  )


def get_config(arg=None):
  c = albef_itc.get_config()
  add_fusion(c)
  add_matching(c, "image_to_text", "text_to_image")
  c.evaluation.evaluators.retrieval.match_order = "head_and_cosine"
  add_words(c, share=c.objective.image_to_text.target.share)
  return sized(c, arg)
