"""TeminAL-style (Sinha et al., arXiv:2408.09269): sounds are first told apart in number, then in order.

    mmcontrast data build emoji_spoken
    mmcontrast train --config methods/teminal --workdir runs/teminal

Two stages of contrast between sounds and texts, built on TACT's weighted negatives; no code could be read, weights and
texts are ours. Stage `number`: two names spoken one after the other, whose hard negative is the first of them alone.
Stage `order`: the same against them in reversed order. The paper also lays sounds over each other, and goes on from a
trained CLAP. Evaluated on pairs of held-out concepts, each order an example of its own: the paper's zero-shot
evaluation asks for the order by templates.
"""

from mmcontrast.config import sized
from mmcontrast.configs import emoji
from mmcontrast.configs.methods.tact import both_orders, start

LEARNED = dict(init=0.07, learned=True, min=0.01)


def get_config(arg=None):
  c = start("emoji_spoken", "audio")
  c.data.audio.update(seconds=3.0, crop="first", columns="in_order")
  c.augment = dict(audio="speech")
  c.towers = dict(audio=dict(name="audio_convnet", width=16, stem=4), text=c.towers.text)
  c.heads = {f"{side}_joint": dict(tower=side, name="linear", dim=128) for side in ("audio", "text")}
  c.evaluation.update(image="", audio="audio_joint", features="audio")
  c.objective = both_orders("audio", (2.0, 1.0), LEARNED)
  number = emoji.stage(c, "number", steps=900)
  number["data"] = dict(views=dict(audio=3, text=3), captions=("forward", "reversed", "single"))
  number["objective"] = {
    f"{query}_{key}": dict(
      query=f"{query}[0]/{query}_joint",
      key=f"{key}[0]/{key}_joint",
      negative_keys=f"{key}[2]/{key}_joint",
      temperature="text_audio" if query == "audio" else LEARNED,
      weight=0.5,
    )
    for query, key in (("text", "audio"), ("audio", "text"))
  }
  c.stages = (number, dict(name="order", steps=900, init={"towers": "number:towers", "heads": "number:heads"}))
  return sized(c, arg)
