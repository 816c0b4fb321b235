"""What the methods on graphs start from: neighbourhoods of WordNet's nouns, some of whose subtrees are held out."""

from mmcontrast.config import base_config
from mmcontrast.data.datasets.wordnet_synsets import KINDS


def graphs(views=1, texts=0):
  """Graphs of 24 nodes, and texts where there are any; a tower of graphs with a head, no term."""
  c = base_config()
  c.data.update(dataset="wordnet", split="train", text_length=32)
  c.data.views = dict(graph=views, text=texts)
  c.data.graph.update(nodes=24, edges=72, features=256, kinds=KINDS, drop_edges=0.2, drop_features=0.3)
  c.augment = {}
  c.towers.graph = dict(name="graph_transformer", width=96, depth=2, heads=3)
  c.optimizer = dict(name="adamw", learning_rate=dict(name="warmup_cosine", peak=1e-3, warmup_steps=50), clip_norm=1.0)
  c.evaluation.update(
    features="graph", data=dict(unseen=dict(split="test"), to_fit=dict(split="train")), sets=("unseen",)
  )
  return c
