"""ProtoCLIP (Chen et al., arXiv:2206.10996): CLIP, and each modality predicts the other's clusters.

    mmcontrast train --config methods/protoclip --workdir runs/protoclip

Before every second epoch (an episode) k-means clusters both modalities on heads of their own; prototypes of images are
their means within the clusters of texts, and the other way round. The first epoch is CLIP's alone. 200 clusters for
some 1,900 concepts (20,000 for 200,000 examples). The paper's external teacher, clusters of a frozen RoBERTa as hard
targets, is the module's `outer` and a third embedding of the hook; no such tower is here, and the image tower is not
locked in the last epochs. The rest is clip.py.
"""

from mmcontrast.config import sized
from mmcontrast.configs.methods import clip


def get_config(arg=None):
  c = clip.get_config()
  for modality in ("image", "text"):
    c.heads[f"{modality}_proto"] = dict(of=f"{modality}_joint", name="mlp", dim=128, batch_norm=True)
  views = ("image[0]/image_proto", "text[0]/text_proto")
  c.objective.prototypes = dict(
    module=dict(name="prototype_alignment", clusters=200, target_temperature=0.01), embeddings=views, weight=1.0
  )
  c.epoch_hooks = dict(
    episode=dict(name="prototype_back_translation", term="prototypes", embeddings=views, every_epochs=2, first_epoch=1)
  )
  return sized(c, arg)
