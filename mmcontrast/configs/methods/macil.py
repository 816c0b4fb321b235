"""MACIL (Yu et al., arXiv:2207.05500): of a bag of snippets only the bag has a label; scores choose what is contrasted.

    mmcontrast train --config methods/macil --workdir runs/macil
    mmcontrast train --config methods/macil:video --workdir runs/macil_video    # after mmcontrast data build furniture

Cells of a drawing and word pieces of its name stand for the paper's snippets of vision and sound; a bag is positive
where the concept is of people or faces, and nothing says which cell or word shows it. With `video` snippets are the
frames of a turning thing and word pieces of its name, and bags of the living room are positive. The bags' loss and the
four InfoNCE between top and bottom snippets stand beside a pair term of the same tokens, which the paper does not have:
the InfoNCE rise to a weight of 0.1 in 15 epochs, where the paper has 1.5, with which no pair is found. Temperature 0.1
is the paper's; its distillation from a visual model is left out. The rest is the quickstart's.
"""

from mmcontrast.config import arguments, sized
from mmcontrast.configs import emoji, furniture

PEOPLE = (5, 6)  # of emoji's label "group": People & Body, Smileys & Emotion
LIVING_ROOM = (7,)  # of furniture's


def get_config(arg=None):
  a = arguments(arg, video=False, smoke=False)
  c = furniture.tokens("token_weighted") if a.video else emoji.tokens("token_weighted")
  if a.video:
    c.data.update(dataset="furniture")
    c.evaluation.evaluators = dict(retrieval=dict(), linear_probe=dict(label="group"))
  seen = "video" if a.video else "image"
  shown, text = f"{seen}[0]/{seen}_tokens", "text[0]/text_tokens"
  rising = dict(name="linear", init=0.0, end=0.1, epochs=15)
  c.objective = {
    f"{seen}_text": dict(
      query=shown,
      key=text,
      score="token_weighted",
      direction="both",
      temperature=dict(init=0.07, learned=True, min=0.01),
    ),
    "bags": dict(
      module=dict(
        name="snippet_bags",
        label="group",
        positive=LIVING_ROOM if a.video else PEOPLE,
        temperature=0.1,
        contrast=rising,
      ),
      embeddings=(shown, text),
    ),
  }
  return sized(c, "smoke" if a.smoke else None)
