"""MAE (He et al., arXiv:2111.06377): three quarters of an image's patches are left out and painted by a light decoder.

    mmcontrast train --config methods/mae --workdir runs/mae

The tower sees the other patches alone; the decoder puts a learned token in the place of each that is missing, and its
head gives pixels, whose targets are normalised patch by patch. Which are hidden is drawn on the device from the
example's own seed. Ours: a ViT of patches of 4 px and the quickstart's data and schedule; flips and crops without
jitter, as in the paper. For SimMIM: docs/methods/masked_images.md.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.images(views=1)
  c.data.update(facts=("masked", "pixels"), masked=dict(views=1, patch=4, share=(0.75, 0.75), probability=1.0))
  c.augment = dict(image="flip")
  c.towers.image = dict(name="vit", width=128, depth=4, heads=4, patch=4, positions="sincos2d", leave_out=0.75)
  c.towers.decoder = dict(name="patch_decoder", reads=("image",), width=64, depth=2, heads=4)
  c.heads = dict(pixels=dict(tower="decoder", name="token_linear", dim=4 * 4 * 3, bias=True))
  c.objective = dict(pixels=dict(module="masked_pixels", embeddings="decoder(image_masked[0])/pixels"))
  return sized(c, arg)
