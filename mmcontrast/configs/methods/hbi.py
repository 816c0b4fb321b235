"""HBI (Jin et al., arXiv:2303.14369): words and frames as players, at the levels of entities, actions and events.

    mmcontrast train --config methods/hbi --workdir runs/hbi

At each level a pair's score is that of weighted tokens; between levels a quarter of the tokens are left, then half of
these, merged by density peaks. Scores at the upper levels are to agree with the entities' (weight 0.2), and a small
network at each is to predict from a pair's similarities how much a word and a frame are worth together: their Banzhaf
interaction, counted over all coalitions of events and actions and over 16 drawn ones of entities, where the paper has a
network trained on draws. Cells of a drawing stand for frames; data, towers and schedule are the quickstart's.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji

LEVELS = {"entity": "tokens", "action": "actions", "event": "events"}


def get_config(arg=None):
  c = emoji.tokens("token_weighted")
  for modality in ("image", "text"):
    c.heads[f"{modality}_actions"] = dict(of=f"{modality}_tokens", name="token_merge", dim=128, rate=0.25)
    c.heads[f"{modality}_events"] = dict(of=f"{modality}_actions", name="token_merge", dim=128, rate=0.5)
  c.objective = dict()
  for level, head in LEVELS.items():
    image, text = f"image[0]/image_{head}", f"text[0]/text_{head}"
    c.objective[level] = dict(
      query=text,
      key=image,
      score="token_weighted",
      direction="both",
      temperature="entity" if level != "entity" else dict(init=0.07, learned=True, min=0.01),
    )
    c.objective[f"{level}_interaction"] = dict(module=dict(name="interaction"), embeddings=(text, image))
    if level != "entity":
      finer = ("text[0]/text_tokens", "image[0]/image_tokens")
      c.objective[f"{level}_agrees"] = dict(
        module=dict(name="level_divergence"), embeddings=(text, image, *finer), weight=0.2
      )
  return sized(c, arg)
