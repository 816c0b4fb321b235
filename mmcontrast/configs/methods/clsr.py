"""CLSR-style (Luo et al., arXiv:2309.08839): sounds and texts apart within each too, a temperature that follows them.

    mmcontrast data build emoji_spoken
    mmcontrast train --config methods/clsr --workdir runs/clsr

A sound chooses its text among all texts and all other sounds, a text its sound among all sounds and all other texts:
negatives within a modality keep it separable. The temperature of a step is a quarter of the standard deviation of the
similarities in its batch, at most 0.07: embeddings of few directions have similarities that differ much, and the high
temperature that follows keeps them so. Two small networks reconstruct, each from one modality's embedding, that of the
other. The paper's formulas could not be obtained: its adaptive temperature, its reconstruction and their weights are
ours. Data, towers and schedule are those of `clip_audio`.
"""

from mmcontrast.config import sized
from mmcontrast.configs import trimodal
from mmcontrast.configs.methods import clip_audio

AUDIO, TEXT = trimodal.NODES["audio"], trimodal.NODES["text"]


def get_config(arg=None):
  c = clip_audio.get_config()
  for source, made in (("audio_joint", "text_of_audio"), ("text_joint", "audio_of_text")):
    c.heads[made] = dict(of=source, name="mlp", dim=128, hidden=128)
  rebuilt = dict(regularizer="alignment", weight=0.5)
  c.objective = dict(
    audio_text=dict(
      query=(AUDIO, TEXT), key=(AUDIO, TEXT), target="same_id", temperature=dict(spread=0.25, min=0.01, max=0.07)
    ),
    text_rebuilt=dict(embeddings=("audio[0]/text_of_audio", TEXT), stop_gradient=(TEXT,), **rebuilt),
    audio_rebuilt=dict(embeddings=("text[0]/audio_of_text", AUDIO), stop_gradient=(AUDIO,), **rebuilt),
  )
  return sized(c, arg)
