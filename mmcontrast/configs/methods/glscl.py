"""GLSCL (Zhang et al., arXiv:2405.12710): the text decides which frames count, and shared queries say what both mean.

    mmcontrast train --config methods/glscl --workdir runs/glscl

A pair's score is the cosine of the text with what it attends to in the image, and half the mean cosine of the outputs
of 8 learned queries, which a decoder of 3 blocks, shared by both towers, reads from patches and from word pieces. Two
regularisers keep the outputs apart and bring those of both modalities together, with the released weights (1e-4, 0.02).
Cells of a drawing stand for the frames of a video; data, towers and schedule are the quickstart's.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji

IMAGE, TEXT = "image[0]/image_tokens", "text[0]/text_tokens"


def get_config(arg=None):
  c = emoji.tokens("shared_queries")
  c.heads.text_tokens.shared = dict(decoder="image_tokens")
  c.objective = dict(
    image_text=dict(
      query=TEXT,
      key=IMAGE,
      score=dict(name="text_conditioned_frames", queries=8, temperature=3.0, weight=0.5),
      direction="both",
      temperature=dict(init=0.07, learned=True, min=0.01),
    ),
    concepts=dict(module=dict(name="shared_concepts", queries=8), embeddings=(IMAGE, TEXT)),
  )
  return sized(c, arg)
