"""PixPro (Xie et al., arXiv:2011.10043): a place of one crop, smoothed over similar places, follows it in another crop.

    mmcontrast train --config methods/pixpro --workdir runs/pixpro

Both crops are of one drawing, and batches say where they were cut; a crop that was mirrored counts mirrored. Maps of
6 x 6 from 48 px (7 x 7 from 224 px), hence a tower of three stages. Distance 0.7, power 2 as published; the momentum
branch is taken before the step, from 0.98 to 1. Head width, optimizer (not LARS) and schedule are the quickstart's.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.images()
  c.data.update(facts=("box",), drawings="same", image_size=48, crop=dict(scale=(0.2, 1.0)))
  c.towers.image.update(stages=(1, 1, 1), width=32)
  del c.heads.image_ssl
  c.heads.image_pixels = dict(tower="image", name="token_mlp", dim=128, hidden=512, batch_norm=True)
  c.heads.propagated = dict(of="image_pixels", name="pixel_propagation", power=2.0)
  c.momentum = dict(decay=dict(name="cosine", init=0.98, end=1.0), update="before_keys")
  students = tuple(f"image[{v}]/propagated" for v in range(2))
  teachers = tuple(f"image[{v}]/image_pixels@momentum" for v in range(2))
  c.objective = dict(places=dict(module=dict(name="pixpro", distance=0.7), embeddings=(*students, *teachers)))
  return sized(c, arg)
