"""DreamLIP (Zheng et al., arXiv:2403.17007): every sentence of an image is a caption, and has patches of its own.

    mmcontrast train --config methods/dreamlip --workdir runs/dreamlip
    mmcontrast train --config methods/dreamlip:grouping=example --workdir runs/sparc    # or grouping=none

K pair terms, averaged: a sentence's negatives are the other images' of the same slot. And each sentence groups the
patches that it speaks of, which are to find it among all sentences of the batch, or (SPARC, arXiv:2401.09865) among
those of its image. DreamLIP cuts long captions, written by a model, into sentences and draws K of them; here a
concept's names stand for them (one to six each, drawn without repetition as far as they go), and K = 4 is our choice.
"""

from mmcontrast.config import arguments, smoke
from mmcontrast.configs import emoji
from mmcontrast.errors import choose

CAPTIONS = 4


def get_config(arg=None):
  a = arguments(arg, grouping="batch", smoke=False)
  choose(a.grouping, ("batch", "example", "none"), "the argument grouping")
  c = emoji.pair(text=CAPTIONS)
  for k in range(CAPTIONS):
    c.objective[f"caption_{k}"] = dict(
      query="image[0]/image_joint",
      key=f"text[{k}]/text_joint",
      direction="both",
      weight=1 / CAPTIONS,
      temperature="caption_0" if k else dict(init=0.07, learned=True, min=0.01),
    )
  if a.grouping != "none":
    c.heads.image_patches = dict(tower="image", name="token_linear", dim=128)
    c.objective.sentences = dict(
      module=dict(name="grouping", negatives=a.grouping, temperature=0.07),
      embeddings=("image[0]/image_patches", *(f"text[{k}]/text_joint" for k in range(CAPTIONS))),
    )
  return smoke(c) if a.smoke else c
