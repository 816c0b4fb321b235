"""MobileCLIP's reinforced training (Vasu et al., arXiv:2311.17049): two teachers, real and synthetic captions.

    mmcontrast train --config methods/mobileclip --workdir runs/mobileclip

For each caption, 0.25 CLIP + 0.75 distillation, whose target is the mean of the teachers' softmaxes, each at the
temperature it was trained with; the weights are those of the reference's large dataset. Two CLIPs trained here, of
different seeds and half as long, stand for its ensemble, and a second name of the concept for the synthetic caption.
The reference stores the teachers' embeddings beside the data; here they see the student's views.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji
from mmcontrast.configs.methods import distill_clip

TEACHERS = ("first", "second")


def get_config(arg=None):
  c = emoji.pair(text=2)
  objective = {}
  for k, caption in enumerate(("real", "synthetic")):
    target = dict(
      name="teacher",
      query=tuple(f"image[0]/{name}_image" for name in TEACHERS),
      key=tuple(f"text[{k}]/{name}_text" for name in TEACHERS),
      temperature=distill_clip.TEMPERATURE,
    )
    pair = dict(distill_clip.PAIR, key=f"text[{k}]/text_joint", temperature="real_pair")
    objective[f"{caption}_pair"] = dict(pair, weight=0.25)
    objective[f"{caption}_taught"] = dict(pair, target=target, weight=0.75)
  objective["real_pair"]["temperature"] = dict(init=0.07, learned=True, min=0.01)
  c.stages = (
    *(distill_clip.teacher(c, name, seed=seed) for seed, name in enumerate(TEACHERS)),
    distill_clip.student(c, TEACHERS, objective),
  )
  return sized(c, arg)
