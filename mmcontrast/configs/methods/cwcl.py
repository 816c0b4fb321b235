"""CWCL (Srinivasa et al., arXiv:2309.14580): captions are pulled to images as much as these are like their own image.

    mmcontrast train --config methods/cwcl --workdir runs/cwcl

First the image tower learns by itself, as MoCo v2 (our choice: the paper takes a pretrained tower). Then it is
frozen: an image's target over the batch's captions is the similarity of their images in the frozen features,
(cos + 1) / 2 made to sum to one, and a caption's target is only its own image. The directions are added up. Ours:
a linear head on the frozen tower is trained with the text tower. The formula is that of a public re-implementation.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji
from mmcontrast.configs.methods import moco_v2


def get_config(arg=None):
  c = emoji.pair()
  heads = c.heads.to_dict() | dict(image_frozen=dict(tower="image", name="identity"))
  pair = dict(query="image[0]/image_joint", key="text[0]/text_joint")
  soft = dict(name="soft_similarity", of="image[0]/image_frozen")
  c.stages = (
    emoji.stage(moco_v2.get_config(), "image", steps=c.steps // 2),
    dict(
      name="align",
      heads=heads,
      init={"towers/image": "image:towers/image"},
      optimizer=dict(frozen=("towers/image/.*",)),
      objective=dict(
        image_to_text=dict(pair, direction="rows", target=soft, temperature=dict(init=0.07, learned=True, min=0.01)),
        text_to_image=dict(pair, direction="columns", temperature="image_to_text"),
      ),
    ),
  )
  return sized(c, arg)
