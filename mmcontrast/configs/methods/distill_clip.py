"""Distillation of CLIP (open_clip's DistillClipLoss): a student matches pairs as they are and as its teacher would.

    mmcontrast train --config methods/distill_clip --workdir runs/distill_clip

First a teacher is trained as CLIP at a fixed temperature. Then a student starts anew: its loss is CLIP's plus the
cross entropy with the teacher's softmax at the teacher's temperature, both of weight 1 and over one learned
temperature. Teacher and student see the same views. Ours: the teacher is no larger than the student and trained
half as long, so that this shows the method, not what a strong teacher brings.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji

IMAGE, TEXT = "image[0]/image_joint", "text[0]/text_joint"
PAIR = dict(query=IMAGE, key=TEXT, direction="both")
TEMPERATURE = 0.07  # of teachers


def teacher(c, name, **more):
  """The stage of a teacher: CLIP, half as long."""
  objective = dict(image_text=dict(PAIR, temperature=TEMPERATURE))
  return dict(name=name, steps=c.steps // 2, objective=objective, **more)


def student(c, teachers, objective):
  """The stage of a student that has the towers and heads of `teachers`, frozen, beside its own."""
  towers, heads, init = c.towers.to_dict(), c.heads.to_dict(), {}
  for name in teachers:
    for modality in ("image", "text"):
      part = f"{name}_{modality}"
      towers[part] = dict(towers[modality], modality=modality)
      heads[part] = dict(heads[f"{modality}_joint"], tower=part)
      init |= {f"towers/{part}": f"{name}:towers/{modality}", f"heads/{part}": f"{name}:heads/{modality}_joint"}
  frozen = tuple(f"{kind}/{name}_.*" for kind in ("towers", "heads") for name in teachers)
  return dict(name="student", towers=towers, heads=heads, init=init, optimizer=dict(frozen=frozen), objective=objective)


def get_config(arg=None):
  c = emoji.pair()
  target = dict(name="teacher", query="image[0]/teacher_image", key="text[0]/teacher_text", temperature=TEMPERATURE)
  objective = dict(
    pair=dict(PAIR, temperature=dict(init=0.07, learned=True, min=0.01)),
    taught=dict(PAIR, target=target, temperature="pair"),
  )
  c.stages = (teacher(c, "teacher"), student(c, ["teacher"], objective))
  return sized(c, arg)
