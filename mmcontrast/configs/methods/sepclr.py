"""SepCLR (Louiset et al., ICLR 2024): what all examples share in one space, what sets some apart in another.

    mmcontrast data build emoji_tones
    mmcontrast train --config methods/sepclr --workdir runs/sepclr

Yellow emoji of people and hands are the background, those with a skin tone the targets: the common head is to say what
is drawn, the salient one which tone, and nothing of yellow drawings. Two augmented drawings are the views; jitter of
colours would hide what is salient, so only brightness changes a little. Weights (1, 1000, 1000, 10) are the released
ones, heads of 128 and 32 dimensions ours, and the rest is the quickstart's.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.tones()
  c.heads.image_common = dict(tower="image", name="mlp", dim=128)
  c.heads.image_salient = dict(tower="image", name="mlp", dim=32)
  views = [f"image[{view}]/image_{head}" for head in ("common", "salient") for view in range(2)]
  c.objective = dict(spaces=dict(module=dict(name="sepclr", label="toned", background=0), embeddings=tuple(views)))
  c.evaluation.evaluators.knn.node = ("image_common", "image_salient")
  return sized(c, arg)
