"""MEOW (Yu et al., arXiv:2212.13847) on two meta-paths of a graph: negatives of an anchor's own clusters weigh less.

    mmcontrast data build wordnet
    mmcontrast train --config methods/meow_graphs --workdir runs/meow_graphs

A view is a node's context along one meta-path: what is of the same kind (up by a hypernym, down again), and what it is
of, step by step. Before every second epoch k-means clusters the second view's embeddings into 100 and into 300
clusters; a negative weighs 2 less the number of clusterings in which it is with the anchor. In the paper the views are
a mean over meta-paths and a fusion of them by attention, of the whole graph at once, clustered at every step; here they
are two parts that are drawn anew in each epoch, in a GCN. Terms as in meow.py.
"""

from mmcontrast.config import sized
from mmcontrast.configs import wordnet


def get_config(arg=None):
  c = wordnet.graphs(views=2)
  c.steps, c.batch.size = 1600, 256
  up = "hypernym|instance_of"
  c.data.graph.paths = ((up, "~hypernym|~instance_of"), (f"{up}|member_of|part_of|substance_of|topic",))
  c.towers.graph = dict(name="gcn", width=96, depth=2, pool="mean_and_centre")
  c.heads.graph_ssl = dict(tower="graph", name="mlp", dim=64, hidden=96)
  views = ("graph[0]/graph_ssl", "graph[1]/graph_ssl")
  c.objective.views = dict(
    module=dict(name="clustered_negatives", clusters=(100, 300), temperature=0.2, prototype_weight=0.5),
    embeddings=views,
  )
  c.epoch_hooks.clusters = dict(
    name="kmeans", term="views", embedding=views[1], temperature=0.2, alpha=5.0, every_epochs=2, first_epoch=2
  )
  c.evaluation.update(train_sets=("to_fit",), evaluators=dict(linear_probe=dict(label="group")))
  return sized(c, arg)
