"""FLIP (Li et al., arXiv:2212.00794): CLIP on half the patches of each image, then a short tuning on all of them.

    mmcontrast train --config methods/flip --workdir runs/flip

Patches are dropped at random after positions are added; the image tower is a ViT with fixed sine positions, the loss
CLIP's with the temperature clipped in the forward pass. Ours: the size of the ViT, and a tuning of a sixth of
the steps at a tenth of the rate (the paper tunes for a hundredth of its 32 epochs and more); the optimizer is the
quickstart's. Evaluation sees all patches, in their order.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.pair()
  c.towers.image = dict(name="vit", patch=4, width=96, depth=4, heads=3, positions="sincos2d", patch_drop=0.5)
  c.objective = dict(
    image_text=dict(
      query="image[0]/image_joint",
      key="text[0]/text_joint",
      direction="both",
      temperature=dict(init=0.07, learned=True, min=0.01, clamp="forward"),
    )
  )
  c.stages = (
    dict(name="masked", steps=1500),
    dict(
      name="unmasked",
      steps=300,
      init={"*": "masked:*"},
      towers=dict(image={**c.towers.image, "patch_drop": 0.0}, text=c.towers.text),
      optimizer=dict(learning_rate=dict(name="warmup_cosine", peak=2e-4, warmup_steps=20)),
    ),
  )
  return sized(c, arg)
