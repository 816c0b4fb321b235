"""SPACE-2's contrast (He et al., arXiv:2209.06638): texts are alike as far as their labels are in a tree.

    mmcontrast train --config methods/space2 --workdir runs/space2

SupCon with a weight for each pair, 1 in the same subgroup and 0.5 in the same group, temperature 0.07. Two names of a
concept stand for two passes of dropout over a dialogue, the groups of emoji for its tree of meanings; the paper's
similarity counts what two trees share, and its dialogue model is not part of this. What it is evaluated on: the labels
of concepts whose labels it has not seen.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.texts()
  c.data.split = "train"
  views = ("text[0]/text_ssl", "text[1]/text_ssl")
  c.objective = dict(
    tree=dict(
      query=views, key=views, target=dict(name="shared_labels", labels=dict(subgroup=1.0, group=0.5)), temperature=0.07
    )
  )
  c.evaluation.data = dict(labelled=dict(split="train"), held_out=dict(split="test"))
  c.evaluation.update(features="text", train_sets=("labelled",), sets=("held_out",), optional_sets=())
  c.evaluation.evaluators = dict(knn=dict(label=("group", "subgroup")), similarity=dict(node="text"))
  return sized(c, arg)
