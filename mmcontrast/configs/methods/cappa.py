"""CapPa (Tschannen et al., arXiv:2306.07915): an image tower trained by captioning alone, mostly in parallel.

    mmcontrast train --config methods/cappa --workdir runs/cappa

A decoder over the image's tokens predicts the caption. For 75 % of the examples all of its inputs are one learned
token, and no causal mask: every word has to come from the image. The others are predicted word by word, and so are
captions that are written. `--config.towers.text.parallel=0` is Cap. Ours: the quickstart's image tower, data and
schedule, and a decoder of two layers.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji


def get_config(arg=None):
  c = emoji.pair()
  del c.heads.image_joint, c.heads.text_joint
  c.data.facts = ("ids",)
  embedding = dict(width=128, depth=0, heads=4, causal=True, pool="last", norm_after_pool=True)
  c.towers.text = dict(name="text_transformer", parallel=0.75, **embedding)
  c.towers.decoder = dict(
    name="fusion_transformer", reads=("text", "image"), width=128, depth=2, heads=4, causal=True, pool="last"
  )
  c.heads.words = dict(tower="decoder", name="words")
  c.objective = dict(caption=dict(module="caption", embeddings="decoder(text[0], image[0])/words"))
  c.evaluation.update(image="", text="")  # no joint space: probes and captions show what it learns
  del c.evaluation.evaluators.retrieval, c.evaluation.evaluators.zero_shot
  c.evaluation.evaluators.update(captioning=dict(), perplexity=dict())
  return sized(c, arg)
