"""After G2L (Li et al., arXiv:2307.14277): texts that are near along a graph of texts are positives, far ones not.

    mmcontrast train --config methods/g2l --workdir runs/g2l
    mmcontrast train --config methods/g2l:shapley --workdir runs/g2l_shapley

G2L-style: the paper weighs by geodesic distance, its formulas could not be read, and these are ours. Every fourth epoch
the nearest texts of all are linked to a graph, and coordinates made whose distances are about those along it; a pair
counts as a positive or a negative by the distance of its texts. With `shapley` a small network predicts besides how
much a word and a cell of the drawing are worth together, their Shapley interaction. The rest is the quickstart's.
"""

from mmcontrast.config import arguments, smoke
from mmcontrast.configs import emoji

IMAGE, TEXT = "image[0]/image_joint", "text[0]/text_joint"


def get_config(arg=None):
  a = arguments(arg, shapley=False, smoke=False)
  c = emoji.pair()
  c.objective = dict(pairs=dict(module=dict(name="geodesic_contrast", near=0.1, dim=8), embeddings=(IMAGE, TEXT)))
  c.epoch_hooks = dict(graph=dict(name="geodesic_map", term="pairs", texts=TEXT, every_epochs=4, first_epoch=4))
  if a.shapley:
    for modality in ("image", "text"):
      c.heads[f"{modality}_tokens"] = dict(tower=modality, name="token_weighted", dim=128)
    c.objective.interaction = dict(
      module=dict(name="interaction", index="shapley"), embeddings=("text[0]/text_tokens", "image[0]/image_tokens")
    )
  return smoke(c) if a.smoke else c
