"""3DSG-VLP-style (3D Scene Graph Guided Vision-Language Pre-training, 2024): objects, relations and the whole scene.

    mmcontrast data build emoji_scenes
    mmcontrast train --config methods/scene_graph --workdir runs/scene_graph

A scene is a graph, and each level has its texts: an object its name, an edge a phrase ("fox left of hat"), the scene
its caption. Three contrasts of weight 1: regions pooled from the image's map against names; two regions and where they
lie against the phrase; image against caption. Relations follow from the boxes by rule (data/relations.py: left of,
above, larger than, and their reverses), one that holds for each of three pairs. Ours: composed pictures of emoji for
rooms of points, RoI-align for a point tower, two layers for its graph network, no masked modelling; no code could be
read. Views are not mirrored, since left would be right.
"""

from mmcontrast.config import sized
from mmcontrast.configs.methods import cloc


def get_config(arg=None):
  c = cloc.scenes()
  c.data.update(facts=("box", "subject", "object"), regions=dict(views=3, relations=3))
  c.augment.image.flip = 0.0
  regions = dict(temperature=0.07, alike=0.99, cells=3)
  image = "image[0]/image_regions"
  c.objective.update(
    objects=dict(
      module=dict(name="pooled_regions", **regions),
      embeddings=(image, *(f"text_region[{r}]/text_joint" for r in range(3))),
    ),
    relations=dict(
      module=dict(name="region_relations", **regions),
      embeddings=(image, *(f"text_relation[{k}]/text_joint" for k in range(3))),
    ),
  )
  return sized(c, arg)
