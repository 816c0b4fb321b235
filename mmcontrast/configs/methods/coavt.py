"""CoAVT (Li et al., arXiv:2401.12264), in its manner: sound and vision in one encoder, each and both against the text.

    mmcontrast data build emoji_spoken
    mmcontrast train --config methods/coavt --workdir runs/coavt

The tokens of a drawing and of its name spoken attend to each other; a term of the text with both together, one with
each, and a fusion encoder that tells texts which belong to the two from texts that the drawing, or the sound, draws as
hard negatives. No code is public. Ours: means of tokens for its query encoder's learned queries, emoji for videos, and
no language modelling.
"""

from mmcontrast.config import sized
from mmcontrast.configs import trimodal

JOINT = "joint(image[0], audio[0])"


def get_config(arg=None):
  c = trimodal.three()
  c.towers.joint = dict(name="joint_transformer", reads=("image", "audio"), width=128, depth=1, heads=4)
  c.towers.fusion = dict(name="fusion_transformer", reads=("text", "joint"), width=128, depth=1, heads=4)
  c.heads.joint = dict(tower="joint", name="linear", dim=128)
  c.heads.match = dict(tower="fusion", name="match")
  image, text, audio = trimodal.NODES.values()
  pair = dict(key=text, direction="both", target="same_id")
  learned = dict(init=0.07, learned=True, min=0.01, clamp="after_step")
  c.objective = dict(
    both_text=dict(query=f"{JOINT}/joint", temperature=learned, **pair),
    image_text=dict(query=image, temperature="both_text", **pair),
    audio_text=dict(query=audio, temperature="both_text", **pair),
    match=dict(
      module=dict(name="matching"),
      embeddings=(
        f"fusion(text[0], {JOINT})/match",
        f"fusion(text[0]~image_text, {JOINT})/match",
        f"fusion(text[0]~audio_text, {JOINT})/match",
      ),
    ),
  )
  return sized(c, arg)
