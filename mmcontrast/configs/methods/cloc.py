"""CLOC-style (Chen et al., arXiv:2410.02746): regions of an image against their texts, beside the pair of the whole.

    mmcontrast data build emoji_scenes
    mmcontrast train --config methods/cloc --workdir runs/cloc

Composed scenes of emoji: four regions of each, a box and a name. A prompter draws a region from the image's map by its
box, and finds the box by the text; texts of cosine over 0.9 are no negatives. Weights are 1. CLOC has no public code:
prompter, box codes and temperature are ours; towers (three stages, 8 x 8 cells) and schedule are the quickstart's.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = scenes()
  c.objective.regions = dict(
    module=dict(name="prompted_regions", temperature=0.07, alike=0.9, ground=1.0),
    embeddings=("image[0]/image_regions", *(f"text_region[{r}]/text_joint" for r in range(4))),
    weight=1.0,
  )
  return sized(c, arg)


def scenes():
  """Composed scenes with four regions of each, both towers, and the pair of an image and its caption."""
  c = emoji.pair()
  c.data.update(dataset="emoji_scenes", split="train", trim=False, centre_crop=1.0, image_size=64, text_length=48)
  c.data.update(facts=("box",), regions=dict(views=4))
  c.towers.image.update(stages=(1, 1, 1), width=32)
  c.heads.image_regions = dict(tower="image", name="token_linear", dim=128)
  c.objective.pair = dict(
    query="image[0]/image_joint", key="text[0]/text_joint", direction="both", temperature=dict(init=0.07, learned=True)
  )
  c.evaluation.update(sets=("scenes", "emoji_noto"), data=dict(scenes=dict(split="validation")))
  c.evaluation.evaluators = dict(retrieval=dict())
  return c
