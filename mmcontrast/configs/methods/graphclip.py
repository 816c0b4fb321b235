"""GraphCLIP (Zhu et al., arXiv:2410.10329): parts of a graph and what is said of their centres, in one space.

    mmcontrast data build wordnet
    mmcontrast train --config methods/graphclip --workdir runs/graphclip

CLIP's loss between parts of a graph and two texts each; edges and features are hidden at random, and in three passes a
step the features are moved against the loss by the signs of its gradient, which is added up ("free" adversarial
training). In the paper one frozen MiniLM reads nodes and texts, and texts are summaries by a language model. Here, too,
the same numbers stand on both sides: hashed parts of words (tokenizer and tower "word_parts"), so that words which
training never had have something in common. The tower of graphs says which nodes matter (pool "features"), and one
matrix takes nodes' and texts' numbers into the space. Texts are WordNet's glosses, and what a synset is a kind of, up
to four steps away, without its name: of texts that name the centre, towers learn to look at little else. Features are
moved by 0.001, not by the paper's 0.01. Subtrees that were held out are told by their names.
"""

from mmcontrast.config import sized
from mmcontrast.configs import wordnet


def get_config(arg=None):
  c = wordnet.graphs(views=1, texts=2)
  c.steps, c.batch.size = 1200, 128
  c.data.source, c.data.tokenizer, c.data.text_length = dict(steps_up=4), "word_parts", 128
  c.data.graph.features = 1024
  c.optimizer.learning_rate.peak = 3e-3
  c.towers.graph.pool = "features"
  c.towers.text = dict(name="word_parts", features=1024)
  c.heads = {f"{name}_joint": dict(tower=name, name="linear", dim=512) for name in c.towers}
  c.heads.text_joint.shared = dict(fc1="graph_joint")
  pair = dict(query="graph[0]/graph_joint", direction="both", weight=0.5)
  c.objective = dict(
    graph_text=dict(key="text[0]/text_joint", temperature=dict(init=0.07, learned=True, min=0.01), **pair),
    graph_other=dict(key="text[1]/text_joint", temperature="graph_text", **pair),
  )
  c.update_rule = dict(name="adversarial", views=("graph[0]",), size=0.001, passes=3)
  c.evaluation.data.unseen.source = {}
  c.evaluation.update(
    graph="graph_joint",
    text="text_joint",
    evaluators=dict(retrieval=dict(), zero_shot=dict(label="test_subtree", templates=("{}", "a kind of {}"))),
  )
  return sized(c, arg)
