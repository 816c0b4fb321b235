"""LiT, locked-image tuning (Zhai et al., arXiv:2111.07991): CLIP's loss on a pretrained, frozen image tower.

    mmcontrast train --config methods/lit --workdir runs/lit

Stage `image` pretrains the image tower by SimCLR's term, `locked` trains the rest. Ours: what the tower
is pretrained by (the paper's towers come from labels or from larger image-only runs), a trained linear image head
(the paper's best models have none), and the steps of the two stages, together the quickstart's.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  image = emoji.images()
  views = ("image[0]/image_ssl", "image[1]/image_ssl")
  image.objective = dict(image_image=dict(query=views, key=views, temperature=0.1))

  c = emoji.pair()
  c.objective = dict(
    image_text=dict(
      query="image[0]/image_joint",
      key="text[0]/text_joint",
      direction="both",
      temperature=dict(init=0.07, learned=True, min=0.01),
    )
  )
  c.stages = (
    emoji.stage(image, "image", steps=1000),
    dict(
      name="locked", steps=800, init={"towers/image": "image:towers/image"}, optimizer=dict(frozen=("towers/image/.*",))
    ),
  )
  return sized(c, arg)
