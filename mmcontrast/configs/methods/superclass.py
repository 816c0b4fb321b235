"""SuperClass (Huang et al., arXiv:2411.03313): images are classified by the words of their captions; no text tower.

    mmcontrast train --config methods/superclass --workdir runs/superclass

The classes are the 2,000 pieces of the dataset's tokenizer; each is weighed by how seldom captions have it, counted as
training goes. A linear layer on the pooled image gives the logits, as published. There is no joint space to retrieve
in, so probes show what the images learned. Data, tower and schedule are the quickstart's.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.images()
  c.data.update(views=dict(image=1, text=1), facts=("ids",))
  c.heads = dict(image_words=dict(tower="image", name="match", dim=2000))
  c.objective = dict(
    words=dict(module=dict(name="word_classification", text="text[0]"), embeddings="image[0]/image_words")
  )
  return sized(c, arg)
