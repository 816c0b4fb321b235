"""VALOR's grouping alignment (Chen et al., arXiv:2304.08345): text with vision, with sound, and with both together.

    mmcontrast data build emoji_spoken
    mmcontrast train --config methods/valor --workdir runs/valor
    mmcontrast train --config methods/valor:silent --workdir runs/valor_silent
    mmcontrast train --config methods/valor:stamps --workdir runs/valor_stamps    # after data build tux_stamps

A group is a term of tokens: each token's best match on the other side, weighted by a small network, both ways; the
tokens of vision and sound stand side by side in the third, and their weights are shared over both. A third of the
paper's 1.5 each, one temperature. An example without a modality is in the groups that do not read it: with `silent`,
half of the pictures come from emoji_views and say nothing, as the paper adds CC3M to its own million. With `stamps`
pictures are Tux Paint's and sounds those of the thing itself, a bird's song or a drum, recorded; one in seven has one.
Ours: cells of a picture for frames, one network of weights for the group of both, a temperature with bounds; its
captioning is left out.
"""

from mmcontrast.config import arguments, sized
from mmcontrast.configs import trimodal
from mmcontrast.errors import UserError

IMAGE, TEXT, AUDIO = (f"{one}[0]/{one}_tokens" for one in ("image", "text", "audio"))


def get_config(arg=None):
  a = arguments(arg, silent=False, stamps=False, smoke=False)
  if a.silent and a.stamps:
    raise UserError("the arguments 'silent' and 'stamps' after the colon: most stamps are silent already; give one")
  c = trimodal.three()
  if a.silent:
    c.data.mixture = dict(spoken=dict(dataset="emoji_spoken"), silent=dict(dataset="emoji_views"))
    c.data.update(languages=(), tokenizer="bytes", text_length=32)
  if a.stamps:
    c.steps, c.batch.size = 600, 64
    c.data.update(dataset="tux_stamps", split="train", source=dict(audio="sound"), languages=(), text_length=32)
    c.data.audio.update(seconds=3.0, crop="random")
    c.augment.audio = "spec_augment"
    held_out = dict(dataset="tux_stamps", split="test", source=dict(audio="sound"))
    c.evaluation.update(data=dict(held_out=held_out), sets=("held_out",), optional_sets=())
  c.data.missing = "mask"
  c.towers.joint = dict(name="joint_transformer", reads=("image", "audio"), width=128, depth=0, heads=4)
  c.heads = {f"{name}_tokens": dict(tower=name, name="token_weighted", dim=128) for name in c.towers}
  group = dict(query=TEXT, score="token_weighted", direction="both", target="same_id", weight=0.5)
  learned = dict(init=0.07, learned=True, min=0.01, clamp="after_step")
  c.objective = dict(
    vision=dict(key=IMAGE, temperature=learned, **group),
    sound=dict(key=AUDIO, temperature="vision", **group),
    both=dict(key="joint(image[0], audio[0])/joint_tokens", temperature="vision", **group),
  )
  c.evaluation.update(image="image_tokens", text="text_tokens", audio="audio_tokens")
  return sized(c, "smoke" if a.smoke else None)
