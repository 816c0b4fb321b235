"""CLIP with alignment and uniformity (Fahim, Murphy and Fyshe, arXiv:2405.18570), against the gap between modalities.

    mmcontrast train --config methods/contrastive_gap --workdir runs/contrastive_gap

The sum the paper calls CUAXU: CLIP at a fixed temperature of 0.01, alignment, uniformity of each modality (a half
each) and across them, all of weight 1. The authors fine-tune a pretrained CLIP so; here stage `clip` trains one from
scratch and stage `gap` goes on from it at a quarter of the learning rate. From scratch the sum would part the
modalities: while each is a narrow cone, the uniformity across drives the two to opposite poles. Data and towers
are the quickstart's, and so are the steps of both stages together.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.pair()
  images, texts = pair = ("image[0]/image_joint", "text[0]/text_joint")
  clip = dict(query=images, key=texts, direction="both")
  first = dict(image_text=dict(clip, temperature=dict(init=0.07, learned=True, min=0.01)))
  c.objective = dict(
    image_text=dict(clip, temperature=0.01),
    align=dict(regularizer="alignment", embeddings=pair, weight=1.0),
    uniform=dict(regularizer="uniformity", embeddings=pair, weight=1.0),
    cross_uniform=dict(regularizer="cross_uniformity", embeddings=pair, weight=1.0),
  )
  c.stages = (
    dict(name="clip", steps=1200, objective=first),
    dict(
      name="gap",
      steps=600,
      init=dict(towers="clip:towers", heads="clip:heads"),
      optimizer=dict(learning_rate=dict(name="warmup_cosine", peak=5e-4, warmup_steps=50)),
    ),
  )
  return sized(c, arg)
