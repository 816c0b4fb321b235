"""GPC (Zhao et al., arXiv:2305.06144): classes are discovered beside known ones, while features are learned.

    mmcontrast train --config methods/gpc --workdir runs/gpc

The first half of the 100 subgroups of emoji are known, of half of their concepts. InfoNCE on all and SupCon on what is
known are on a head; ProtoNCE is on the tower itself. Before every fifth epoch k-means makes 80 clusters, in which what
is known stays in its class; then clusters of no known class are split and merged by how likely they are as Gaussians of
16 principal components. Weights and temperatures are the released ones; data, tower, optimizer and
schedule are the quickstart's, and not a pretrained ViT-B with SGD.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.images()
  c.data.known_labels = dict(subgroup=dict(classes=0.5, examples=0.5))
  c.heads.image_features = dict(tower="image", name="identity")
  views = ("image[0]/image_ssl", "image[1]/image_ssl")
  features = ("image[0]/image_features", "image[1]/image_features")
  known = dict(name="same_label", label="subgroup", labelled_only=True)
  c.objective = dict(
    views=dict(query=views, key=views, temperature=1.0, weight=0.65),
    known=dict(query=views, key=views, target=known, temperature=0.07, weight=0.35),
    prototypes=dict(module=dict(name="prototype_contrast", clusters=(200,)), embeddings=features),
  )
  c.epoch_hooks = dict(
    classes=dict(
      name="gaussian_mixture", term="prototypes", embedding=features[0], label="subgroup", clusters=80, components=16,
      every_epochs=5, first_epoch=5,
    )
  )  # fmt: skip
  return sized(c, arg)
