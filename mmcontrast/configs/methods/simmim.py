"""SimMIM (Xie et al., arXiv:2111.09886): six tenths of an image are hidden, and one linear layer guesses their pixels.

    mmcontrast train --config methods/simmim --workdir runs/simmim

The tower sees all patches, a learned token in the place of each that is hidden; a head on it gives pixels, and the loss
is the mean absolute error where something is hidden. What is hidden at once is a block of 2 x 2 patches, as in the
paper, where it is 32 px of 192 (here 8 of 32). Drawn on the device from the example's own seed. Ours: a ViT of patches
of 4 px and the quickstart's data and schedule; flips and crops without jitter, as in the paper.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.images(views=1)
  masked = dict(views=1, patch=4, block=2, share=(0.6, 0.6), probability=1.0)
  c.data.update(facts=("masked", "pixels"), masked=masked)
  c.augment = dict(image="flip")
  c.towers.image = dict(name="vit", width=128, depth=4, heads=4, patch=4, mask_token=True)
  c.heads = dict(pixels=dict(tower="image", name="token_linear", dim=4 * 4 * 3, bias=True))
  c.objective = dict(
    pixels=dict(module=dict(name="masked_pixels", loss="l1", normalised=False), embeddings="image_masked[0]/pixels")
  )
  return sized(c, arg)
