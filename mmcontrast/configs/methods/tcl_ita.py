"""TCL's alignment loss (Yang et al., arXiv:2202.10401): across modalities, within each, and from global to local.

    mmcontrast train --config methods/tcl_ita --workdir runs/tcl_ita

ALBEF's two terms, an image view against its other view's momentum key, a caption against its own, and each of them
against the momentum tokens of its other view (of itself, for text): every token is a positive of its own against
the tokens of all other examples. Six terms of one weight. Ours: the image tower's 2 x 2 map needs no pooling into
locals; text tokens are all real ones, as there is no first one that stands for the text; queues of 512 keys.
"""

from mmcontrast.config import sized
from mmcontrast.configs.methods import albef_itc

IMAGE, TEXT, SECOND = "image[0]/image_joint", "text[0]/text_joint", "image[1]/image_joint@momentum"


def get_config(arg=None):
  c = albef_itc.get_config()
  c.data.views.image = 2
  for modality in ("image", "text"):  # tokens are projected as pooled vectors are
    c.heads[f"{modality}_local"] = dict(
      tower=modality, name="token_linear", dim=128, shared=dict(fc1=f"{modality}_joint")
    )
  across, back = c.objective.image_to_text, c.objective.text_to_image
  across.weight = back.weight = 1 / 6
  across.target.query = back.key = SECOND
  queued = dict(negatives="batch+queue:512", temperature="image_to_text", weight=1 / 6)
  local = dict(token_keys=True, criterion="each_positive", temperature="image_to_text", weight=1 / 6)
  c.objective.update(
    image_to_image=dict(queued, query=IMAGE, key=SECOND),
    text_to_text=dict(queued, query=TEXT, key=f"{TEXT}@momentum"),
    image_to_local=dict(local, query=IMAGE, key="image[1]/image_local@momentum"),
    text_to_local=dict(local, query=TEXT, key="text[0]/text_local@momentum"),
  )
  return sized(c, arg)
