"""SupReMix (Wu et al., arXiv:2309.16633): labels are numbers, and mixtures of the batch hard examples.

    mmcontrast data build emoji_tones
    mmcontrast train --config methods/supremix --workdir runs/supremix

The number is the skin tone of a drawing, 0 (light) to 4 (dark); what else is drawn must not matter. A drawing between
two others in tone is a positive of their mixture, and a drawing mixed with one of another tone its negative. Window 5,
temperature 0.3 and Beta(2, 8) are released; 32 partners a batch stand for all. A yellow drawing has no number and takes
no part. One softmax and division by the number of positives (the other public version: by one more); the rest is the
quickstart's, on fewer drawings.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.tones()
  c.heads.image_ssl = dict(tower="image", name="mlp", dim=128)
  c.objective = dict(
    tones=dict(
      module=dict(name="supremix", label="tone", temperature=0.3, window=5.0, partners=32),
      embeddings=("image[0]/image_ssl", "image[1]/image_ssl"),
    )
  )
  return sized(c, arg)
