"""CyCLIP (Goel et al., arXiv:2205.14459): CLIP, and similarities that agree within and across modalities.

    mmcontrast train --config methods/cyclip --workdir runs/cyclip

Both consistencies have the published weight 0.25 and see cosines without a temperature. CLIP's temperature is
clamped as open_clip does; data, towers and schedule are the quickstart's.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.pair()
  pair = ("image[0]/image_joint", "text[0]/text_joint")
  c.objective = dict(
    image_text=dict(
      query="image[0]/image_joint",
      key="text[0]/text_joint",
      direction="both",
      temperature=dict(init=0.07, learned=True, min=0.01, clamp="after_step"),
    ),
    in_modal=dict(regularizer="in_modal_consistency", embeddings=pair, weight=0.25),
    cross_modal=dict(regularizer="cross_modal_consistency", embeddings=pair, weight=0.25),
  )
  return sized(c, arg)
