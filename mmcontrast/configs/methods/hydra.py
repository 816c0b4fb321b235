"""Hydra (Wu et al., arXiv:2410.18200): any two classes have a subspace in which their examples are positives.

    mmcontrast train --config methods/hydra --workdir runs/hydra

A drawing of one group and drawings of another are pulled together in the dimensions that a gate of both groups leaves
open, beside NT-Xent between two drawings of a concept, half each. The form is Hydra's, which makes vectors of unit
length in the subspace (SimLAP's: form="weighted"). The group is a label, our choice of classes: probes on it have seen
it. Keys are of the online branch, and sampling by distance of classes is left out; the rest is the quickstart's.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.images()
  c.heads.image_ssl = dict(tower="image", name="mlp", dim=128, batch_norm=True)
  views = ("image[0]/image_ssl", "image[1]/image_ssl")
  c.objective = dict(
    views=dict(query=views, key=views, temperature=0.1, weight=0.5),
    subspaces=dict(
      module=dict(name="gated_subspaces", label="group", classes=9, scale=20.0), embeddings=views, weight=0.5
    ),
  )
  return sized(c, arg)
