"""SlotCon (Wen et al., arXiv:2205.15288): learned groups of pixels, the same in two crops and told from all others.

    mmcontrast train --config methods/slotcon --workdir runs/slotcon

64 groups (256 for COCO), whose prototypes have a momentum copy as the tower has. Half of the objective asks that a
place is of the same groups in both crops, cut to what they share; half that a slot, the mean of its group, picks its
own among the teacher's of the batch. Temperatures 0.07, 0.1 and 0.2 as published; the rest is as in `pixpro`.
"""

from mmcontrast.config import sized
from mmcontrast.configs.methods import pixpro

MLP = dict(name="token_mlp", dim=128, hidden=512, batch_norm=True)


def get_config(arg=None):
  c = pixpro.get_config()
  c.heads = dict(
    image_pixels=dict(MLP, tower="image", depth=3),
    image_groups=dict(of="image_pixels", name="token_prototypes", dim=64),
    image_slots=dict(of="image_pixels", name="slots", slots=64, temperature=0.07, shared=dict(kernel="image_groups")),
    predictor=dict(MLP, of="image_slots"),
  )
  c.objective = dict(
    grouping=dict(
      module=dict(name="slot_distill", temperature=0.1, teacher_temperature=0.07, momentum=0.9),
      embeddings=(*views("image_groups"), *views("image_groups@momentum")),
      weight=0.5,
    ),
    slots=dict(
      module=dict(name="slot_contrast", temperature=0.2),
      embeddings=(*views("predictor"), *views("image_slots@momentum")),
      weight=0.5,
    ),
  )
  return sized(c, arg)


def views(head):
  return tuple(f"image[{v}]/{head}" for v in range(2))
