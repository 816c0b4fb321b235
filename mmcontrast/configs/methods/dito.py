"""DITO-style (Kim et al., arXiv:2310.00161): regions pooled from the image's map against their texts.

    mmcontrast data build emoji_scenes
    mmcontrast train --config methods/dito --workdir runs/dito

Composed scenes, regions and the pair term as in `cloc`. A region is its cells by RoI-align, through two layers, and
their mean: what DITO's detector heads do, which the paper trains on whole captions. Only texts that are the same are no
negatives of each other. DITO's pretraining is not public.
"""

from mmcontrast.config import sized
from mmcontrast.configs.methods import cloc


def get_config(arg=None):
  c = cloc.scenes()
  c.objective.regions = dict(
    module=dict(name="pooled_regions", temperature=0.07, alike=0.99, cells=3),
    embeddings=("image[0]/image_regions", *(f"text_region[{r}]/text_joint" for r in range(4))),
    weight=1.0,
  )
  return sized(c, arg)
