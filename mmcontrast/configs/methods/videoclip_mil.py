"""VATT's video and text (Akbari et al., arXiv:2104.11178): MIL-NCE of a clip and several texts, on tubelets.

    mmcontrast data build furniture
    mmcontrast train --config methods/videoclip_mil --workdir runs/videoclip_mil

A transformer of tubelets, and of each turntable a bag of its names in three languages, any of which may be right.
Ours: names for narrations, unit vectors and a temperature of 0.07; without VATT's sound.
"""

from mmcontrast.config import sized
from mmcontrast.configs import furniture


def get_config(arg=None):
  c = furniture.pair()
  c.data.update(dataset="furniture", languages=("en", "de", "fr"))
  c.data.views = dict(video=1, text=3)
  c.towers.video = dict(name="tubelet_vit", width=96, depth=3, heads=3, tubelet=(2, 8))
  texts = tuple(f"text[{view}]/text_joint" for view in range(3))
  c.objective = dict(
    bags=dict(module=dict(name="mil_nce", temperature=0.07), embeddings=("video[0]/video_joint", *texts))
  )
  c.evaluation.evaluators = dict(retrieval=dict(), linear_probe=dict(label="group"))
  return sized(c, arg)
