"""Symile (Saporta et al., arXiv:2411.01053): drawing, English and German name in one multilinear product.

    mmcontrast train --config methods/symile --workdir runs/symile

Each modality is the anchor once, with one learned scale, against N tuples whose keys are of different examples
(`negatives="combined"`: against all N^2). Ours: cyclic shifts for random permutations, and a scale that starts at
50, since products of three unit vectors are small. Two embeddings alone need not be alike: cosine retrieval is not
what Symile trains. Data, towers and schedule are the quickstart's, with names in two languages for its captions.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.pair(text=2)
  c.data.languages, c.data.text_length = ("en", "de"), 16
  image, english, german = "image[0]/image_joint", "text[0]/text_joint", "text[1]/text_joint"
  common = dict(score="multilinear", negatives="permuted", weight=1 / 3)
  c.objective = dict(
    of_image=dict(query=image, key=(english, german), temperature=dict(init=0.02, learned=True), **common),
    of_english=dict(query=english, key=(image, german), temperature="of_image", **common),
    of_german=dict(query=german, key=(image, english), temperature="of_image", **common),
  )
  return sized(c, arg)
