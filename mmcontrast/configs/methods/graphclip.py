"""GraphCLIP (Zhu et al., arXiv:2410.10329): parts of a graph and what is said of their centres, in one space.

    mmcontrast data build wordnet
    mmcontrast train --config methods/graphclip --workdir runs/graphclip

CLIP's loss between parts of a graph and texts; edges and features are hidden at random, and in three passes a step the
features are moved against the loss by the signs of its gradient, which is added up ("free" adversarial training). In
the paper node features and texts are a frozen MiniLM's and texts are summaries by a language model; here features are
hashes of the nodes' words, texts are WordNet's glosses, and the text tower learns. Features are moved by 0.001 and not
by 0.01, at which both towers, learning from nothing, gave in: all embeddings became one. Subtrees that were held out
are told by their names.
"""

from mmcontrast.config import sized
from mmcontrast.configs import wordnet


def get_config(arg=None):
  c = wordnet.graphs(views=1, texts=1)
  c.steps, c.batch.size = 800, 64
  c.towers.text = dict(name="text_transformer", width=96, depth=2, heads=3)
  c.heads = {f"{name}_joint": dict(tower=name, name="linear", dim=96) for name in ("graph", "text")}
  c.objective.graph_text = dict(
    query="graph[0]/graph_joint",
    key="text[0]/text_joint",
    direction="both",
    temperature=dict(init=0.07, learned=True, min=0.01),
  )
  c.update_rule = dict(name="adversarial", views=("graph[0]",), size=0.001, passes=3)
  c.evaluation.update(
    graph="graph_joint",
    text="text_joint",
    evaluators=dict(retrieval=dict(), zero_shot=dict(label="test_subtree", templates=("{}", "a kind of {}"))),
  )
  return sized(c, arg)
