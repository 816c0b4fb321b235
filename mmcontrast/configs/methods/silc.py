"""SILC-style (Naeem et al., arXiv:2310.13355): the pair term, and crops that follow a momentum teacher of whole views.

    mmcontrast train --config methods/silc --workdir runs/silc

Both whole views are paired with a name (each term half); small crops predict the teacher's prototypes of both (DINO's
loss). The teacher's momentum is fixed, so that it goes on following what texts teach. No training code is public: heads
as in `dino`, momentum 0.98 and weights 1 are ours. A ViT of patches of 4 px; data and schedule are the quickstart's.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji

SMALL = tuple(f"image_small[{v}]/image_dino" for v in range(4))


def get_config(arg=None):
  c = start()
  temperature = dict(init=0.07, learned=True, min=0.01)
  pair = dict(key="text[0]/text_joint", direction="both", weight=0.5)
  c.objective = dict(
    first=dict(pair, query="image[0]/image_joint", temperature=temperature),
    second=dict(pair, query="image[1]/image_joint", temperature="first"),
    local_to_global=distillation(c, *SMALL, *(f"image[{v}]/image_dino@momentum" for v in range(2))),
  )
  return sized(c, arg)


def start():
  """What `tips` reads too: two whole views, one of them also with hidden patches, four small crops, two names of a
  concept; heads of a pair and of DINO's prototypes."""
  c = emoji.pair(image=2, text=2)
  c.data.multi_crop = dict(views=4, size=16, scale=(0.2, 0.5))
  c.data.update(facts=("masked",), masked=dict(views=1, patch=4, share=(0.75, 0.75), probability=1.0))
  c.augment.image_small = dict(c.augment.image)
  c.towers.image = dict(name="vit", width=128, depth=4, heads=4, patch=4, pool="cls", mask_token=True)
  c.heads.image_ssl = dict(tower="image", name="mlp", dim=128, hidden=512, depth=3)
  c.heads.image_dino = dict(of="image_ssl", name="prototypes", dim=1024)
  c.momentum = dict(decay=0.98, update="after_step")
  return c


def distillation(c, *embeddings):
  """DINO's term; the teacher's temperature warms up as published."""
  warm_up = dict(name="linear", init=0.04, end=0.07, steps=c.steps // 4)
  return dict(module=dict(name="dino", temperature=0.1, teacher_temperature=warm_up), embeddings=embeddings)
