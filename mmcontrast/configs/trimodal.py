"""Drawings, their names, and their names spoken, in one space: ten minutes on two CPU cores.

    mmcontrast data build emoji_spoken
    mmcontrast data build emoji_spoken_noto
    mmcontrast train --config trimodal --workdir runs/trimodal

CLIP's loss between each two of the three, with a learned temperature for each pair. Eight synthetic speakers are
trained on. Two are held out, as are Google's drawings: what is measured are concepts that were seen, in voices and in a
style of drawing that were not. Texts are the English names that are spoken, not their other captions.
"""

from mmcontrast.config import sized
from mmcontrast.configs import quickstart
from mmcontrast.data.datasets.spoken_columns import HELD_OUT

NODES = dict(image="image[0]/image_joint", text="text[0]/text_joint", audio="audio[0]/audio_joint")


def get_config(arg=None):
  c = three()
  for one, other in (("image", "text"), ("audio", "text"), ("image", "audio")):
    c.objective[f"{one}_{other}"] = pair(one, other)
  return sized(c, arg)


def pair(one, other):
  """CLIP's term between two of the three modalities."""
  temperature = dict(init=0.07, learned=True, min=0.01, clamp="after_step")
  return dict(query=NODES[one], key=NODES[other], direction="both", target="same_id", temperature=temperature)


def three():
  """The data, towers, heads, schedule and evaluation of all three modalities, without terms."""
  c = quickstart.get_config()
  c.steps = 3000
  c.data.update(dataset="emoji_spoken", languages=("en",), views=dict(image=1, text=1, audio=1), cache="decoded")
  c.data.audio.update(seconds=1.5, crop="first")  # nine names in ten are shorter
  c.augment.audio = "speech"
  c.towers.audio = dict(name="audio_convnet", width=16, stem=4)
  c.heads = {f"{name}_joint": dict(tower=name, name="linear", dim=128) for name in NODES}
  c.objective = dict()
  c.evaluation.update(
    image="image_joint",
    text="text_joint",
    audio="audio_joint",
    sets=tuple(f"{name}:{speaker}" for name in ("emoji_spoken", "emoji_spoken_noto") for speaker in HELD_OUT),
    optional_sets=tuple(f"emoji_spoken_noto:{speaker}" for speaker in HELD_OUT),
  )
  c.evaluation.evaluators = dict(retrieval=dict())
  return c
