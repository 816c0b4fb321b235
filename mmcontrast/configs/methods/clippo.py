"""CLIPPO (Tschannen et al., arXiv:2212.08045): one tower for pictures and for pictures of texts.

    mmcontrast train --config methods/clippo --workdir runs/clippo

Captions are written as large as images are, and the same ViT and head read both, without a tokenizer; CLIP's loss, and
as in the paper a share of pairs of two texts, here two captions of the concept, whose loss counts a quarter. Ours:
DejaVu's letters for Unifont's, pooling by mean, fixed positions, and pictures of 64 px, so that a patch of 16 px holds
two letters, as in the paper; a batch norm at the end, of each modality by itself, which takes out what all pictures
have in common: without it all embeddings became one; no jitter of colours, with which hardly more than chance was
learned in the same time. Data and the number of steps are the quickstart's.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.pair()
  c.data.views = dict(image=1, written=2)
  c.data.image_size = 64
  c.data.written = dict(size=(64, 64), points=11)
  c.data.crop = dict(scale=(0.8, 1.0), ratio=(3 / 4, 4 / 3))
  c.augment, c.normalize = dict(image=dict(flip=0.5)), dict(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
  c.towers = dict(
    image=dict(name="vit", width=128, depth=3, heads=4, patch=16, pool="gap", positions="sincos2d"),
    written=dict(same_as="image"),
  )
  head = dict(name="mlp", depth=1, dim=128, batch_norm_last=True)
  c.heads = dict(
    image_joint=dict(head, tower="image"), written_joint=dict(head, tower="written", shared=dict(fc1="image_joint"))
  )
  c.optimizer.learning_rate.peak = 1e-3
  temperature = dict(init=0.07, learned=True, min=0.01, clamp="after_step")
  image, text, other = "image[0]/image_joint", "written[0]/written_joint", "written[1]/written_joint"
  c.objective = dict(
    image_written=dict(query=image, key=text, direction="both", temperature=temperature),
    written_written=dict(query=text, key=other, direction="both", temperature="image_written", weight=0.25),
  )
  c.evaluation.update(image="image_joint", text="", written="written_joint")
  del c.evaluation.evaluators.zero_shot
  return sized(c, arg)
