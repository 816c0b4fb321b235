"""After DCD (Rao et al., arXiv:2207.01426): a teacher chooses hard negatives, and difficult examples count more.

    mmcontrast train --config methods/dcd --workdir runs/dcd

DCD-style: its formulas could not be read, and these are ours (docs/methods/noise_and_mixing.md). Its teacher is a
fusion model; here it is trained first as CLIP at a fixed temperature, half as long, as in distill_clip.py. The
student's loss is the cross entropy with the teacher's softmax, and CLIP's with negatives that weigh half as the teacher
says. Data, towers and schedule are the quickstart's.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji
from mmcontrast.configs.methods.distill_clip import IMAGE, TEXT, student, teacher


def get_config(arg=None):
  c = emoji.pair()
  taught = dict(
    module=dict(name="dynamic_distillation", mining=0.5, focus=1.0, soft=1.0),
    embeddings=(IMAGE, TEXT, "image[0]/teacher_image", "text[0]/teacher_text"),
  )
  c.stages = (teacher(c, "teacher"), student(c, ["teacher"], dict(taught=taught)))
  return sized(c, arg)
