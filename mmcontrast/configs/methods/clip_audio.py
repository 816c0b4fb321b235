"""CLAP (Elizalde et al., arXiv:2206.04769): CLIP's symmetric softmax between a sound and its text.

    mmcontrast data build emoji_spoken
    mmcontrast train --config methods/clip_audio --workdir runs/clip_audio

English names by eight synthetic speakers, and what they say; two other speakers are for evaluation. A convolutional
network on log-mel spectrograms, as CLAP's first one is (PANNs), with SpecAugment. Ours: its size, and one linear layer
where CLAP projects by two. Data, text tower and schedule are those of `trimodal`.
"""

from mmcontrast.config import sized
from mmcontrast.configs import trimodal


def get_config(arg=None):
  c = trimodal.three()
  c.data.views = dict(audio=1, text=1)
  del c.towers.image, c.heads.image_joint
  c.evaluation.update(image="", features="audio", sets=c.evaluation.sets[:2], optional_sets=())
  c.objective.audio_text = trimodal.pair("audio", "text")
  return sized(c, arg)
