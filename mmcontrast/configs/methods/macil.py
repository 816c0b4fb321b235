"""MACIL (Yu et al., arXiv:2207.05500): of a bag of snippets only the bag has a label; scores choose what is contrasted.

    mmcontrast train --config methods/macil --workdir runs/macil

Cells of a drawing and word pieces of its name stand for the paper's snippets of vision and sound; a bag is positive
where the concept is of people or faces, and nothing says which cell or word shows it. The bags' loss and the four
InfoNCE between top and bottom snippets stand beside a pair term of the same tokens. Weight 0 to 1.5 in 15 epochs and
temperature 0.1 are the paper's; its distillation from a visual model is left out. The rest is the quickstart's.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji

IMAGE, TEXT = "image[0]/image_tokens", "text[0]/text_tokens"
PEOPLE = (5, 6)  # of the label "group": People & Body, Smileys & Emotion


def get_config(arg=None):
  c = emoji.tokens("token_weighted")
  rising = dict(name="linear", init=0.0, end=1.5, epochs=15)
  c.objective = dict(
    image_text=dict(
      query=IMAGE,
      key=TEXT,
      score="token_weighted",
      direction="both",
      temperature=dict(init=0.07, learned=True, min=0.01),
    ),
    bags=dict(
      module=dict(name="snippet_bags", label="group", positive=PEOPLE, temperature=0.1, contrast=rising),
      embeddings=(IMAGE, TEXT),
    ),
  )
  return sized(c, arg)
