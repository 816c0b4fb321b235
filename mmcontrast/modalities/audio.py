"""Sounds: waveforms, which become log-mel spectrograms on the device."""

from __future__ import annotations

from mmcontrast.modalities.audio_use import AudioInUse
from mmcontrast.modalities.modality import Modality


class Audio(AudioInUse, Modality):
  """Sounds in use; there are no views of them to train on yet."""

  source_option, absent, view_sets = "audio", "no sound", ("audio",)
