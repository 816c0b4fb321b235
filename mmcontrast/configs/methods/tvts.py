"""TVTS (Zeng et al., arXiv:2209.15280): clips and what is said of each of their parts, and in which order it is said.

    mmcontrast data build furniture
    mmcontrast train --config methods/tvts --workdir runs/tvts

Four clips of an object in which it turns, stands and spins in some order, with a caption of each part. A tower of
tubelets of which a quarter is seen, a contrast with the mean of the four captions, and the task of saying from the clip
which caption comes when, whose gradient ends at the texts; weights and temperature are those of the public code. Ours:
towers from nothing where theirs are BERT and a ViT of MAE, the mean of the tubelets for its class token, no ReLU before
the text's projection, and examples of one object as positives, since their four captions are alike but for the order.
"""

from mmcontrast.config import sized
from mmcontrast.configs import furniture
from mmcontrast.data.sources.furniture import PARTS

SHARE = 0.75


def get_config(arg=None):
  c = furniture.pair()
  c.data.update(dataset="furniture_scripts", captions=PARTS, views=dict(video=1, text=len(PARTS)))
  c.data.video.update(frames=16, masked=dict(views=1, tubelet=(2, 8, 8), share=SHARE))
  c.towers.video = dict(name="tubelet_vit", width=96, depth=3, heads=3, tubelet=(2, 8), leave_out=SHARE)
  c.heads.video_tokens = dict(tower="video", name="token_identity")
  c.heads.text_sorted = dict(tower="text", name="identity")
  said = tuple(f"text[{place}]" for place in range(len(PARTS)))
  c.objective = dict(
    contrast=dict(
      query="video_masked[0]/video_joint",
      key=tuple(f"{text}/text_joint" for text in said),
      score="mean_of_keys",
      direction="both",
      target="same_id",
      temperature=0.05,
      weight=2.0,
    ),
    order=dict(
      module=dict(name="order", depth=2, heads=2),
      embeddings=(*(f"{text}/text_sorted" for text in said), "video_masked[0]/video_tokens"),
      weight=2.0,
    ),
  )
  c.evaluation.evaluators = dict(retrieval=dict())
  return sized(c, arg)
