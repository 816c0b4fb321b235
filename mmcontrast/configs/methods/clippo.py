"""CLIPPO (Tschannen et al., arXiv:2212.08045): one tower for pictures and for pictures of texts.

    mmcontrast train --config methods/clippo --workdir runs/clippo

Captions are written as large as images are, and the same ViT and head read both, without a tokenizer; CLIP's loss, and
as in the paper a share of pairs of two texts, here two captions of the concept, whose loss counts a quarter. Ours:
DejaVu's letters for Unifont's, pooling by mean, and pictures of 64 px, so that a patch of 16 px holds two letters, as
in the paper; data and schedule are the quickstart's.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.pair()
  c.data.views = dict(image=1, written=2)
  c.data.image_size = 64
  c.data.written = dict(size=(64, 64), points=11)
  c.towers = dict(
    image=dict(name="vit", width=128, depth=3, heads=4, patch=16, pool="gap"), written=dict(same_as="image")
  )
  c.heads = dict(
    image_joint=dict(tower="image", name="linear", dim=128),
    written_joint=dict(tower="written", name="linear", dim=128, shared=dict(fc1="image_joint")),
  )
  temperature = dict(init=0.07, learned=True, min=0.01, clamp="after_step")
  image, text, other = "image[0]/image_joint", "written[0]/written_joint", "written[1]/written_joint"
  c.objective = dict(
    image_written=dict(query=image, key=text, direction="both", temperature=temperature),
    written_written=dict(query=text, key=other, direction="both", temperature="image_written", weight=0.25),
  )
  c.evaluation.update(image="image_joint", text="", written="written_joint")
  del c.evaluation.evaluators.zero_shot
  return sized(c, arg)
