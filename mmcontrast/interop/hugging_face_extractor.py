"""preprocessor_config.json of transformers' models of sounds: how a sound becomes a spectrogram. Our front end has the
same numbers (modalities/audio_log_mel.py, KALDI, WHISPER and CLAP)."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from mmcontrast.errors import UserError, choose
from mmcontrast.interop.hugging_face_config import missing_fields, require
from mmcontrast.interop.hugging_face_image import NAME
from mmcontrast.interop.json_files import read_json
from mmcontrast.interop.pretrained import OTHERWISE, AudioInput
from mmcontrast.modalities import audio_log_mel as log_mel

AST, WHISPER, CLAP = "audio-spectrogram-transformer", "whisper", "clap"
_RATE = 16_000  # of AST and Whisper
_EXTRACTORS = {AST: "ASTFeatureExtractor", WHISPER: "WhisperFeatureExtractor", CLAP: "ClapFeatureExtractor"}
_PADDING = {"repeatpad": "repeat_whole", "repeat": "repeat", "pad": "silence"}  # CLAP's -> ours
_CLAP = {
  "sampling_rate": 48_000, "feature_size": 64, "fft_window_size": 1024, "hop_length": 480, "max_length_s": 10,
  "frequency_min": 0, "frequency_max": 14_000, "truncation": "fusion", "padding": "repeatpad",
}  # fmt: skip


def read_audio_input(folder: pathlib.Path, kind: str) -> AudioInput:
  """How the extractor of a folder makes spectrograms, for model type `kind`. Raises UserError where there is none."""
  file = folder / NAME
  if not file.is_file():
    raise UserError(
      f"{folder}: no {NAME} there, which says how a sound becomes a spectrogram; copy it from where the weights come "
      "from"
    )
  with missing_fields(file):
    return audio_input(read_json(file), file, kind)


def audio_input(extractor: Mapping[str, Any], file: object, kind: str) -> AudioInput:
  """The same, of the content of a file. Raises UserError for a value that our front end does not compute."""
  choose(extractor.get("feature_extractor_type", ""), [_EXTRACTORS[kind]], f"{file}: feature_extractor_type")
  require(extractor, file, padding_side="right", padding_value=0.0)
  if kind == CLAP:
    return _clap_input({**_CLAP, **extractor}, file)
  require(extractor, file, sampling_rate=_RATE)
  if kind == WHISPER:
    require(extractor, file, dither=0.0)
    fft = extractor["n_fft"]
    settings = dict(window=fft, fft=fft, hop=extractor["hop_length"], mels=extractor["feature_size"])
    return AudioInput(_RATE, float(extractor["chunk_length"]), dataclasses.replace(log_mel.WHISPER, **settings))
  normal = extractor.get("do_normalize", True)
  mean, std = (extractor["mean"], 2 * extractor["std"]) if normal else (0.0, 1.0)
  settings = dict(mels=extractor["num_mel_bins"], frames=extractor["max_length"], mean=mean, std=std)
  mel = dataclasses.replace(log_mel.KALDI, **settings)
  return AudioInput(_RATE, (mel.window + (mel.frames - 1) * mel.hop) / _RATE, mel)


def _clap_input(extractor: Mapping[str, Any], file: object) -> AudioInput:
  """Without fusion, where a longer sound is cut: theirs at random, ours where data.audio.crop and evaluation_crop say.
  Theirs leaves `top_db` unused."""
  require(extractor, file, truncation="rand_trunc")
  padding = _PADDING[choose(extractor["padding"], _PADDING, f"{file}: padding")]
  fft = extractor["fft_window_size"]
  mel = dataclasses.replace(
    log_mel.CLAP, window=fft, fft=fft, hop=extractor["hop_length"], mels=extractor["feature_size"],
    low=float(extractor["frequency_min"]), high=float(extractor["frequency_max"]), padding=padding,
  )  # fmt: skip
  return AudioInput(extractor["sampling_rate"], float(extractor["max_length_s"]), mel)


def extractor_config(audio: AudioInput, kind: str) -> dict[str, Any]:
  """The inverse of `audio_input`, as near as they come."""
  mel = audio.log_mel
  same = {
    "feature_extractor_type": _EXTRACTORS[kind], "sampling_rate": audio.rate if kind == CLAP else _RATE,
    "padding_side": "right", "padding_value": 0.0, "return_attention_mask": False,
  }  # fmt: skip
  if kind == AST:
    return same | {
      "feature_size": 1, "num_mel_bins": mel.mels, "max_length": mel.frames or audio.frames, "do_normalize": True,
      "mean": mel.mean, "std": mel.std / 2,
    }  # fmt: skip
  if kind == CLAP:
    seconds, high = max(1, round(audio.seconds)), audio.rate / 2 if mel.high is None else mel.high
    return same | {
      "processor_class": "ClapProcessor", "feature_size": mel.mels, "fft_window_size": mel.fft, "hop_length": mel.hop,
      "nb_frequency_bins": mel.fft // 2 + 1, "max_length_s": seconds, "nb_max_samples": seconds * audio.rate,
      "frequency_min": mel.low, "frequency_max": high, "top_db": None, "truncation": "rand_trunc",
      "padding": {ours: theirs for theirs, ours in _PADDING.items()}.get(mel.padding, "repeatpad"),
    }  # fmt: skip
  samples = round(audio.seconds * _RATE)
  return same | {
    "feature_size": mel.mels, "hop_length": mel.hop, "n_fft": mel.fft, "chunk_length": max(1, round(audio.seconds)),
    "n_samples": samples, "nb_max_frames": samples // mel.hop, "dither": 0.0,
  }  # fmt: skip


def check_heard(given: AudioInput, needed: AudioInput, said: str) -> None:
  """Raises UserError where sounds are heard otherwise than an extractor says."""
  for key in [field.name for field in dataclasses.fields(given.log_mel)]:
    mine, theirs = getattr(given.log_mel, key), getattr(needed.log_mel, key)
    if mine != theirs:
      raise UserError(f"{said}: config.data.audio.log_mel.{key} is {mine!r}, and {theirs!r} is needed; {OTHERWISE}")
  for key in ("rate", "seconds"):
    mine, theirs = getattr(given, key), getattr(needed, key)
    if abs(mine - theirs) * given.rate >= 1:
      raise UserError(f"{said}: config.data.audio.{key} is {mine!r}, and {theirs!r} is needed; {OTHERWISE}")
