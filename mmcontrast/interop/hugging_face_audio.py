"""Hugging Face's ASTModel, alone or with its classifier, which is left out, and the encoder of WhisperModel.

How a sound becomes a spectrogram is hugging_face_extractor.py's. Whisper's attention has no bias of keys: see
hugging_face_videomae.py.
"""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmcontrast.errors import UserError
from mmcontrast.interop.hugging_face_config import activation, require, their_activation
from mmcontrast.interop.hugging_face_extractor import (
  AST,
  NAME,
  WHISPER,
  audio_input,
  check_heard,
  extractor_config,
  read_audio_input,
)
from mmcontrast.interop.naming import (
  LEADING,
  STACKED,
  STACKED_LINEAR,
  WITHOUT_KEYS,
  Arrays,
  Rule,
  check_named,
  linear,
  norm,
  to_ours,
  to_theirs,
  under,
  unstacked,
)
from mmcontrast.interop.pretrained import (
  OTHERWISE,
  AudioInput,
  Pretrained,
  check_expressible,
  complete,
  only_tower,
  shapes,
)
from mmcontrast.interop.square import square
from mmcontrast.interop.weights import write_weights

_TOWERS = {"audio_transformer": AST, "speech_transformer": WHISPER}  # ours -> the model that has it
_AST = {
  "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
  "hidden_act": "gelu", "layer_norm_eps": 1e-12, "patch_size": 16, "frequency_stride": 10, "time_stride": 10,
  "max_length": 1024, "num_mel_bins": 128,
}  # fmt: skip
_SPEECH = {
  "d_model": 384, "encoder_layers": 4, "encoder_attention_heads": 6, "encoder_ffn_dim": 1536, "num_mel_bins": 80,
  "activation_function": "gelu", "max_source_positions": 1500,
}  # fmt: skip
_IGNORED = (r"classifier\..*", r"projector\..*", r"(model\.)?decoder\..*", r"proj_out\..*", r"layer_weights")


def read(
  folder: pathlib.Path, config: Mapping[str, Any], arrays: Arrays, allow_unused: Sequence[str] = ()
) -> Pretrained:
  """The audio tower of a folder whose `config` and `arrays` have been read.

  Raises UserError for a field of the config that our encoder or our front end does not compute, and as
  `naming.to_ours`.
  """
  file, kind = folder / "config.json", config["model_type"]
  config = {**(_AST if kind == AST else _SPEECH), **config}
  audio = read_audio_input(folder, kind)
  heard = {"num_mel_bins": audio.log_mel.mels}
  heard |= {"max_length": audio.frames} if kind == AST else {"max_source_positions": (audio.frames + 1) // 2}
  for key, value in heard.items():
    if config[key] != value:
      raise UserError(f"{file}: {key} is {config[key]}, and {NAME} makes spectrograms for {value}")
  tower = _tower(config, file)
  # Of a model with a classifier or a decoder.
  prefix = r"audio_spectrogram_transformer\." if kind == AST else r"(model\.)?encoder\."
  arrays = {re.sub(f"^{prefix}", "", name): array for name, array in arrays.items()}
  wanted = shapes({"audio": tower}, {}, audio=audio)
  found = to_ours(_rules(tower, audio), arrays, wanted, str(folder), (*_IGNORED, *allow_unused))
  return Pretrained({"audio": tower}, {}, found, audio=audio, source=str(folder))


def plan(pretrained: Pretrained, where: str) -> tuple[dict[str, Any], dict[str, Any]]:
  """(config.json, preprocessor_config.json) of the audio tower; no array is looked at.

  Raises UserError for an option of the tower or of the front end that the model does not have.
  """
  tower, inside = only_tower(pretrained, "audio")
  if tower["name"] not in _TOWERS:
    raise UserError(
      f"{where}: {pretrained.key('towers/audio')}.name is {tower['name']!r}, and of transformers' audio encoders only "
      f"{' and '.join(map(repr, _TOWERS))} are written (AST and Whisper's encoder); {OTHERWISE}"
    )
  kind = _TOWERS[tower["name"]]
  config, extractor = _config(tower, kind, pretrained.audio), extractor_config(pretrained.audio, kind)
  check_expressible(pretrained, "towers/audio", _tower(config, where), f"{where}: not transformers' {kind}")
  check_heard(pretrained.audio, audio_input(extractor, where, kind), f"{where}: not transformers' {kind}")
  check_named(_rules(tower, pretrained.audio), inside, where)
  return config, extractor


def write(pretrained: Pretrained, out: pathlib.Path) -> None:
  """Writes the audio tower for `from_pretrained` of ASTModel or WhisperEncoder; heads stay behind.

  Raises UserError as `plan`.
  """
  config, extractor = plan(pretrained, str(out))
  tower, inside = only_tower(pretrained, "audio")
  arrays = to_theirs(_rules(tower, pretrained.audio), inside, str(out))
  out.mkdir(parents=True, exist_ok=True)
  write_weights(out / "model.safetensors", arrays)
  for name, content in {"config.json": config, NAME: extractor}.items():
    (out / name).write_text(json.dumps(content, indent=2) + "\n")


def _tower(config: Mapping[str, Any], file: object) -> dict[str, Any]:
  """Our encoder of a config. Raises UserError for a value that it does not compute."""
  if config["model_type"] == WHISPER:
    width, act = config["d_model"], activation(config, "activation_function", file)
    return complete({
      "name": "speech_transformer", "width": width, "depth": config["encoder_layers"],
      "heads": config["encoder_attention_heads"], "mlp_ratio": config["encoder_ffn_dim"] / width, "activation": act,
      "stem_activation": "gelu", "norm_epsilon": 1e-5,
    })  # fmt: skip
  require(config, file, qkv_bias=True)
  width, patch = config["hidden_size"], square(config["patch_size"], f"{file}: patch_size")
  return complete({
    "name": "audio_transformer", "width": width, "depth": config["num_hidden_layers"],
    "heads": config["num_attention_heads"], "mlp_ratio": config["intermediate_size"] / width, "patch": (patch, patch),
    "stride": (config["time_stride"], config["frequency_stride"]), "pool": "cls_distillation", "positions": "grid",
    "cut_edges": True, "activation": activation(config, "hidden_act", file), "norm_epsilon": config["layer_norm_eps"],
  })  # fmt: skip


def _config(tower: Mapping[str, Any], kind: str, audio: AudioInput) -> dict[str, Any]:
  """The inverse, as near as they come."""
  act, hidden = their_activation(tower["activation"]), round(tower["width"] * tower["mlp_ratio"])
  if kind == AST:
    return {
      "model_type": AST, "architectures": ["ASTModel"], "hidden_size": tower["width"], "hidden_act": act,
      "num_hidden_layers": tower["depth"], "num_attention_heads": tower["heads"], "intermediate_size": hidden,
      "layer_norm_eps": tower["norm_epsilon"], "patch_size": tower["patch"][0], "time_stride": tower["stride"][0],
      "frequency_stride": tower["stride"][1], "max_length": audio.frames, "num_mel_bins": audio.log_mel.mels,
      "qkv_bias": True,
    }  # fmt: skip
  return {
    "model_type": WHISPER, "architectures": ["WhisperEncoder"], "d_model": tower["width"],
    "encoder_layers": tower["depth"], "encoder_attention_heads": tower["heads"], "encoder_ffn_dim": hidden,
    "activation_function": act, "num_mel_bins": audio.log_mel.mels, "max_source_positions": (audio.frames + 1) // 2,
  }  # fmt: skip


def _rules(tower: Mapping[str, Any], audio: AudioInput) -> list[Rule]:
  return under(_speech() if tower["name"] == "speech_transformer" else _spectrograms(tower, audio), "", "towers/audio")


def _speech() -> list[Rule]:
  layer, attention = "layers.{i}", "layers.{i}.self_attn"
  taps = unstacked(
    lambda a: a.transpose(2, 1, 0).reshape(-1, a.shape[0]), lambda a: a.reshape(3, -1, a.shape[-1]).transpose(2, 1, 0)
  )  # [O, I, 3] <-> [3 I, O]
  return [
    *(rule for name in ("conv1", "conv2") for rule in (
      Rule(f"{name}.weight", f"{name}/kernel", taps), Rule(f"{name}.bias", f"{name}/bias"))),
    Rule("embed_positions.weight", "pos_embed", LEADING),
    Rule(tuple(f"{attention}.{x}_proj.weight" for x in "qkv"), "blocks_{i}/attn/qkv/kernel", STACKED_LINEAR),
    Rule(tuple(f"{attention}.{x}_proj.bias" for x in "qv"), "blocks_{i}/attn/qkv/bias", WITHOUT_KEYS),
    *linear(f"{attention}.out_proj", "blocks_{i}/attn/proj"),
    *norm(f"{layer}.self_attn_layer_norm", "blocks_{i}/norm1"), *norm(f"{layer}.final_layer_norm", "blocks_{i}/norm2"),
    *linear(f"{layer}.fc1", "blocks_{i}/mlp/fc1"), *linear(f"{layer}.fc2", "blocks_{i}/mlp/fc2"),
    *norm("layer_norm", "norm"),
  ]  # fmt: skip


def _spectrograms(tower: Mapping[str, Any], audio: AudioInput) -> list[Rule]:
  layer, attention = "encoder.layer.{i}", "encoder.layer.{i}.attention.attention"
  sizes = (audio.frames, audio.log_mel.mels)
  times, filters = (1 + max(n - size, 0) // step for n, size, step in zip(sizes, tower["patch"], tower["stride"]))
  long, high = tower["patch"]
  # Theirs lie filters first, then frames.
  cells = unstacked(
    lambda a: a.transpose(3, 2, 1, 0).reshape(-1, a.shape[0]),
    lambda a: a.reshape(long, high, 1, -1).transpose(3, 2, 1, 0),
  )  # [O, 1, filters, frames] <-> [frames filters, O]
  places = unstacked(lambda a: _turned(a, filters, times), lambda a: _turned(a, times, filters))
  attended = [f"{attention}.{x}" for x in ("query", "key", "value")]
  return [
    Rule("embeddings.cls_token", "cls_token"), Rule("embeddings.distillation_token", "distillation_token"),
    Rule("embeddings.position_embeddings", "pos_embed", places),
    Rule("embeddings.patch_embeddings.projection.weight", "patch_embed/kernel", cells),
    Rule("embeddings.patch_embeddings.projection.bias", "patch_embed/bias"),
    Rule(tuple(f"{x}.weight" for x in attended), "blocks_{i}/attn/qkv/kernel", STACKED_LINEAR),
    Rule(tuple(f"{x}.bias" for x in attended), "blocks_{i}/attn/qkv/bias", STACKED),
    *linear(f"{layer}.attention.output.dense", "blocks_{i}/attn/proj"),
    *norm(f"{layer}.layernorm_before", "blocks_{i}/norm1"), *norm(f"{layer}.layernorm_after", "blocks_{i}/norm2"),
    *linear(f"{layer}.intermediate.dense", "blocks_{i}/mlp/fc1"),
    *linear(f"{layer}.output.dense", "blocks_{i}/mlp/fc2"), *norm("layernorm", "norm"),
  ]  # fmt: skip


def _turned(positions: np.ndarray, rows: int, columns: int) -> np.ndarray:
  """[1, 2 + rows columns, D] with the places of the grid column by column."""
  grid = positions[:, 2:].reshape(1, rows, columns, -1).swapaxes(1, 2)
  return np.concatenate([positions[:, :2], grid.reshape(1, rows * columns, -1)], axis=1)
