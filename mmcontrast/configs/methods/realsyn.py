"""RealSyn-style (Gu et al., arXiv:2502.12513): several texts of an image, real and made, of which each step draws one.

    mmcontrast data retrieve emoji_views --split all --workdir runs/clip --field retrieved --out texts.jsonl
    mmcontrast train --config methods/realsyn:texts=texts.jsonl --workdir runs/realsyn

CLIP's loss; a text comes from the image's names or from those that a trained run finds nearest to it among the names of
others, half each (the paper retrieves sentences of documents and writes further ones by a model; its weights and its
thresholds could not be read). An epoch holds at most so many images of a cluster, drawn anew each time: here of a
subgroup of emoji, in the paper of clusters of its embeddings.
"""

from mmcontrast.config import arguments, smoke
from mmcontrast.configs.methods import clip


def get_config(arg=None):
  a = arguments(arg, texts="texts.jsonl", smoke=False)
  c = clip.get_config()
  c.data.update(added_captions=a.texts, captions=dict(caption=0.5, retrieved=0.5))
  c.data.balance.update(label="subgroup", most=20)
  return smoke(c) if a.smoke else c
