"""Frozen towers and trained projectors (Maniparambil et al., arXiv:2409.19425): alignment after both towers are done.

    mmcontrast train --config methods/projectors --workdir runs/projectors

Stages `image` and `text` pretrain the towers by SimCLR's term, each on its own modality; `align` trains a token
projector on either side with CLIP's loss, the temperature itself learned and kept in [0.001, 0.5]. Ours: what the
towers are pretrained by (the paper's are DINOv2 and RoBERTa) and the steps; the optimizer is the quickstart's.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def alone(c, head):
  """Two views of each example against each other, in the space of `head`."""
  modality = head.split("_")[0]
  views = (f"{modality}[0]/{head}", f"{modality}[1]/{head}")
  c.objective = dict(views=dict(query=views, key=views, temperature=0.1))
  return c


def get_config(arg=None):
  c = emoji.pair()
  c.heads = dict(
    image_joint=dict(tower="image", name="token_projector", dim=128, pooled=True),
    text_joint=dict(tower="text", name="token_projector", dim=128, mlp=True),
  )
  c.objective = dict(
    image_text=dict(
      query="image[0]/image_joint",
      key="text[0]/text_joint",
      direction="both",
      temperature=dict(init=0.07, learned=True, form="tau", min=0.001, max=0.5),
    )
  )
  c.stages = (
    emoji.stage(alone(emoji.images(), "image_ssl"), "image", steps=900),
    emoji.stage(alone(emoji.texts(), "text_ssl"), "text", steps=200),
    dict(
      name="align",
      steps=700,
      init={"towers/image": "image:towers/image", "towers/text": "text:towers/text"},
      optimizer=dict(frozen=("towers/.*",)),
    ),
  )
  return sized(c, arg)
