"""Pixel-Linguist (Xiao et al., arXiv:2402.08183): sentences as pictures, compared by a tower that reads by sight.

    mmcontrast train --config methods/pixel_linguist --workdir runs/pixel_linguist

In three stages, each from the last, by one loss, the cross entropy at 0.05 both ways. `visual`: a caption against the
same one mistyped and with its words in another order; `meaning`: two captions of a concept; `languages`: its English
name against that in German or Russian. Ours: emoji's names and keywords in place of Wikipedia's spans, entailed pairs
and parallel sentences, a tower that is not pretrained (PIXEL is), one round of the stages (theirs are repeated), no
average of checkpoints, and blank patches that are seen as any other. As in the public code, nothing is normalised.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji

PATCH = 16
WRITTEN = dict(size=(PATCH, 20 * PATCH), points=12, fonts=("sans", "serif", "mono"))


def get_config(arg=None):
  c = emoji.texts()
  del c.towers.text, c.heads.text_ssl
  c.steps = 900
  c.data.views = dict(written=2)
  c.data.written = WRITTEN
  c.augment, c.normalize = {}, dict(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
  c.towers.written = dict(name="vit", width=96, depth=3, heads=3, patch=PATCH, pool="gap", positions="learned")
  c.heads.written = dict(tower="written", name="identity")
  views = dict(query="written[0]/written", key="written[1]/written")
  c.objective = dict(sentences=dict(views, score="dot", direction="both", temperature=0.05))
  perturbed = dict(WRITTEN, typos=(0, 0.3), shuffles=(0, 0.3))
  parts = ("towers/written",)
  c.stages = (
    dict(name="visual", steps=300, data=dict(texts="same", written=perturbed)),
    dict(name="meaning", steps=300, init={part: f"visual:{part}" for part in parts}),
    dict(
      name="languages",
      steps=300,
      init={part: f"meaning:{part}" for part in parts},
      data=dict(languages=("en", "de", "ru")),
    ),
  )
  return sized(c, arg)
