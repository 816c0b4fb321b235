"""X-CLIP (Ni et al., arXiv:2208.02816): messages between frames in each block, and texts told what is seen.

    mmcontrast data build furniture
    mmcontrast train --config methods/xclip --workdir runs/xclip

A message token of each frame, a transformer over frames, and prompts that each video adds to each text, blocks as in
microsoft/VideoX@1744b21. The paper classifies names of actions; here captions of the batch are contrasted both ways,
and retrieval by single vectors, without prompts, is trained by a plain term beside it. Ours: towers from nothing.
"""

from mmcontrast.config import sized
from mmcontrast.configs import furniture


def get_config(arg=None):
  c = furniture.pair("xclip", tokens="patches", temporal_heads=2)
  c.heads.video_patches = dict(tower="video", name="token_linear", dim=96)
  prompted = ("video[0]/video_joint", "video[0]/video_patches", "text[0]/text_joint")
  c.objective = dict(
    video_text=furniture.contrast(), prompted=dict(module=dict(name="video_prompts", heads=2), embeddings=prompted)
  )
  return sized(c, arg)
