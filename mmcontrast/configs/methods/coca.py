"""CoCa (Yu et al., arXiv:2205.01917): CLIP's loss, and a decoder that writes the caption.

    mmcontrast train --config methods/coca --workdir runs/coca
    mmcontrast caption drawing.png --workdir runs/coca

The text tower is the decoder's first half: causal, with a learned token after the text that gives the contrastive
vector. The second half reads its tokens and attends to the image's. Captioning weighs twice as much as contrast, as in
the paper. Ours: the quickstart's image tower, whose 16 cells the decoder reads as they are (the paper pools 256 tokens
by attention: a vit with pool="queries"), two layers in the first half and one in the second, and the quickstart's data
and schedule.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.pair()
  c.data.facts = ("ids",)
  small = dict(width=128, heads=4, causal=True)
  c.towers.text = dict(name="text_transformer", depth=2, pool="end_token", norm_after_pool=True, **small)
  c.towers.decoder = dict(
    name="fusion_transformer", reads=("text", "image"), depth=1, pool="last", context_norm=True, **small
  )
  c.heads.words = dict(tower="decoder", name="words")
  c.objective = dict(
    image_text=dict(
      query="image[0]/image_joint",
      key="text[0]/text_joint",
      direction="both",
      temperature=dict(init=0.07, learned=True, min=0.01, clamp="after_step"),
    ),
    caption=dict(module="caption", embeddings="decoder(text[0], image[0])/words", weight=2.0),
  )
  c.evaluation.evaluators.update(captioning=dict(), perplexity=dict())
  return sized(c, arg)
