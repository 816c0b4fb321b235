"""MEOW (Yu et al., arXiv:2212.13847) on two drawings: negatives of an anchor's own clusters weigh less, and ProtoNCE.

    mmcontrast train --config methods/meow --workdir runs/meow

Before every tenth epoch k-means clusters the second view's embeddings into 100 and into 300 clusters; a negative
weighs 2 less the number of clusterings in which it is with the anchor. The paper's two views are contexts of a node in
a graph, clustered at every step; here they are two augmented drawings of a concept (adameow.py learns the weights
instead). Distances, not similarities, say how concentrated a cluster is. Data, tower and schedule: the quickstart's.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.images()
  views = ("image[0]/image_ssl", "image[1]/image_ssl")
  c.objective = dict(
    views=dict(
      module=dict(name="clustered_negatives", clusters=(100, 300), temperature=0.2, prototype_weight=0.5),
      embeddings=views,
    )
  )
  c.epoch_hooks = dict(
    clusters=dict(
      name="kmeans", term="views", embedding=views[1], temperature=0.2, alpha=5.0, every_epochs=10, first_epoch=10
    )
  )
  return sized(c, arg)
