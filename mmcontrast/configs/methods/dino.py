"""DINO (Caron et al., arXiv:2104.14294): a student's softmax over prototypes follows a momentum teacher's.

    mmcontrast train --config methods/dino --workdir runs/dino

The teacher sees the two whole views, the student these and four small crops; its output is centred and sharpened, by
a temperature that warms up from 0.04 to 0.07. The momentum branch follows after the step, from 0.98 (not 0.996, for so
short a run) to 1. Head: an MLP into 128 dimensions, then 1,024 prototypes of unit length (65,536 for ImageNet), all
with ReLU where the released one has GELU, and moving from the first step; optimizer and schedule are the quickstart's.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.images()
  c.data.multi_crop = dict(views=4, size=16, scale=(0.2, 0.5))
  c.augment.image_small = dict(c.augment.image)
  c.heads.image_ssl = dict(tower="image", name="mlp", dim=128, hidden=512, depth=3)
  c.heads.image_dino = dict(of="image_ssl", name="prototypes", dim=1024)
  c.momentum = dict(decay=dict(name="cosine", init=0.98, end=1.0), update="after_step")
  students = [f"image[{v}]/image_dino" for v in range(2)] + [f"image_small[{v}]/image_dino" for v in range(4)]
  warm_up = dict(name="linear", init=0.04, end=0.07, steps=c.steps // 4)
  c.objective = dict(
    views=dict(
      module=dict(name="dino", temperature=0.1, teacher_temperature=warm_up, momentum=0.9),
      embeddings=(*students, *(f"image[{v}]/image_dino@momentum" for v in range(2))),
    )
  )
  return sized(c, arg)
