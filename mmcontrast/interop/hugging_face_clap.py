"""Hugging Face's ClapModel without fusion: HTS-AT, a Swin transformer of folded spectrograms, and RoBERTa.

It has two logit scales, one of sounds that choose texts and one of texts that choose sounds.
"""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmcontrast.encoders.folded_spectrogram import strips_of
from mmcontrast.encoders.swin_blocks import distances
from mmcontrast.errors import UserError
from mmcontrast.interop import tokenizer_files
from mmcontrast.interop.hugging_face_bert import BERT, roberta_tower, text_input
from mmcontrast.interop.hugging_face_config import require, their_activation
from mmcontrast.interop.hugging_face_extractor import (
  CLAP,
  NAME,
  audio_input,
  check_heard,
  extractor_config,
  read_audio_input,
)
from mmcontrast.interop.hugging_face_swin import STAGES, stage_fields, stages_of
from mmcontrast.interop.naming import CONV, Arrays, Rule, check_named, linear, norm, to_ours, to_theirs, under
from mmcontrast.interop.pretrained import OTHERWISE, Pretrained, check_expressible, complete, shapes, take_logits
from mmcontrast.interop.square import square
from mmcontrast.interop.weights import write_weights

_TEXT = {
  "vocab_size": 50265, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
  "intermediate_size": 3072, "hidden_act": "gelu", "max_position_embeddings": 514, "type_vocab_size": 1,
  "layer_norm_eps": 1e-12, "pad_token_id": 1,
}  # fmt: skip
_AUDIO = {
  "window_size": 8, "num_mel_bins": 64, "spec_size": 256, "hidden_act": "gelu", "patch_size": 4, "patch_stride": (4, 4),
  "hidden_size": 768, "depths": (2, 2, 6, 2), "num_attention_heads": (4, 8, 16, 32), "patch_embeds_hidden_size": 96,
  "qkv_bias": True, "mlp_ratio": 4.0,
}  # fmt: skip
_AUDIO_TOWERS = ("swin", "swin_small", "swin_base", "htsat")
# Numbers of the program that it keeps beside its weights.
_COUNTED = ("num_batches_tracked", "relative_position_index", "position_ids", "token_type_ids")
_IGNORED = tuple(rf".*\.{name}" for name in _COUNTED)
_ENCODER, _EMBEDDINGS = "audio_model.audio_encoder", "text_model.embeddings"
_BATCH_NORM = {"weight": "params/input_norm/scale", "bias": "params/input_norm/bias",
               "running_mean": "batch_stats/input_norm/mean", "running_var": "batch_stats/input_norm/var"}  # fmt: skip
_RULES = [
  *under([
    *STAGES, *(Rule(f"batch_norm.{name}", path) for name, path in _BATCH_NORM.items()),
    Rule("patch_embed.proj.weight", "patch_embed/kernel", CONV), Rule("patch_embed.proj.bias", "patch_embed/bias"),
    *norm("patch_embed.norm", "patch_norm"), *norm("norm", "norm"),
  ], f"{_ENCODER}.", "towers/audio"),
  *under(BERT, "text_model.", "towers/text"),
  *(rule for name in ("audio", "text") for n in (1, 2)
    for rule in linear(f"{name}_projection.linear{n}", f"heads/{name}_joint/fc{n}")),
]  # fmt: skip


def read(
  folder: pathlib.Path, config: Mapping[str, Any], arrays: Arrays, allow_unused: Sequence[str] = ()
) -> Pretrained:
  """Both towers and projections of a folder whose `config` and `arrays` have been read.

  Raises UserError for a field of the config that our encoders or our front end do not compute, and as `naming.to_ours`.
  """
  file = folder / "config.json"
  towers, heads = _describe(config, file)
  audio = read_audio_input(folder, CLAP)
  if (mels := _section(config, "audio")["num_mel_bins"]) != audio.log_mel.mels:
    raise UserError(f"{file}: num_mel_bins is {mels}, and {NAME} makes spectrograms for {audio.log_mel.mels}")
  try:
    strips_of(towers["audio"]["fold"], mels, audio.frames)
  except UserError as error:
    raise UserError(f"{file}: spec_size: {error}") from None
  text, pad = text_input(folder, towers["text"]["max_length"]), towers["text"]["first_position"] - 1
  if text.tokenizer and text.token_ids["pad"] != pad:
    raise UserError(
      f"{file}: text_config.pad_token_id is {pad}, behind which positions begin, and the tokenizer pads with "
      f"{text.token_ids['pad']}"
    )
  arrays, scale, _ = take_logits(arrays, ("logit_scale_a", "logit_bias"), str(folder))
  arrays, text_scale, _ = take_logits(arrays, ("logit_scale_t", "logit_bias"), str(folder))
  wanted = shapes(towers, heads, text=text, audio=audio)
  found = to_ours(_RULES, arrays, wanted, str(folder), (*_IGNORED, *allow_unused))
  return Pretrained(
    towers, heads, found, text=text, audio=audio, logit_scale=scale, text_logit_scale=text_scale, source=str(folder)
  )


def plan(pretrained: Pretrained, where: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, bytes]]:
  """(config.json, preprocessor_config.json, the files of the tokenizer); no array is looked at.

  Raises UserError for what the model has and ClapModel has not.
  """
  config, extractor = _config(pretrained, where), extractor_config(pretrained.audio, CLAP)
  said = f"{where}: not transformers' clap"
  for part, understood in zip(("towers", "heads"), _describe(config, where)):
    for name, needed in understood.items():
      check_expressible(pretrained, f"{part}/{name}", needed, said)
  check_heard(pretrained.audio, audio_input(extractor, where, CLAP), said)
  if pretrained.logit_scale is None or pretrained.logit_bias is not None:
    has = "none" if pretrained.logit_scale is None else "a bias beside it"
    raise UserError(f"{where}: clap has a logit scale for sounds and one for texts, and this model has {has}")
  tokenizer = tokenizer_files.contents(pretrained.text) if pretrained.text.tokenizer else {}
  check_named(_RULES, pretrained.arrays, where)
  return config, extractor, tokenizer


def write(pretrained: Pretrained, out: pathlib.Path) -> None:
  """Writes what `AutoModel`, `AutoTokenizer` and `AutoFeatureExtractor.from_pretrained(OUT)` load. Raises UserError as
  `plan`."""
  config, extractor, tokenizer = plan(pretrained, str(out))
  arrays = to_theirs(_RULES, pretrained.arrays, str(out)) | _counted(config)
  scales = {"a": pretrained.logit_scale, "t": pretrained.text_logit_scale or pretrained.logit_scale}
  arrays |= {f"logit_scale_{name}": np.float32(math.log(scale)) for name, scale in scales.items()}
  out.mkdir(parents=True, exist_ok=True)
  write_weights(out / "model.safetensors", arrays)
  for name, content in {"config.json": config, NAME: extractor}.items():
    (out / name).write_text(json.dumps(content, indent=2) + "\n")
  for name, content in tokenizer.items():
    (out / name).write_bytes(content)


def _counted(config: Mapping[str, Any]) -> Arrays:
  """What the file of a model has beside its weights, without which transformers says that something is missing."""
  audio, positions = config["audio_config"], config["text_config"]["max_position_embeddings"]
  cells = distances(audio["window_size"], audio["window_size"]).astype(np.int64)
  return {
    f"{_EMBEDDINGS}.position_ids": np.arange(positions)[None],
    f"{_EMBEDDINGS}.token_type_ids": np.zeros((1, positions), np.int64),
    f"{_ENCODER}.batch_norm.num_batches_tracked": np.int64(0),
    **{f"{_ENCODER}.layers.{stage}.blocks.{block}.attention.self.relative_position_index": cells
       for stage, depth in enumerate(audio["depths"]) for block in range(depth)},
  }  # fmt: skip


def _section(config: Mapping[str, Any], name: str) -> dict[str, Any]:
  defaults = {"text": _TEXT, "audio": _AUDIO}[name]
  return {**defaults, **(config.get(f"{name}_config") or {}), **(config.get(f"{name}_config_dict") or {})}


def _describe(config: Mapping[str, Any], where: object) -> tuple[dict[str, dict], dict[str, dict]]:
  """(towers, heads) of a config. Raises UserError for a value that is not computed."""
  audio, text, dim = _section(config, "audio"), _section(config, "text"), config.get("projection_dim", 512)
  require(config, where, projection_hidden_act="relu")
  said, width, widths = f"{where}: audio_config", audio["patch_embeds_hidden_size"], 2 ** (len(audio["depths"]) - 1)
  require(
    audio, said, enable_fusion=False, patch_embed_input_channels=1, flatten_patch_embeds=True,
    enable_patch_layer_norm=True, hidden_size=width * widths,
  )  # fmt: skip
  tower = {
    **stages_of(audio, said), "width": width, "heads": tuple(audio["num_attention_heads"]), "fold": audio["spec_size"],
  }  # fmt: skip
  stride = square(audio["patch_stride"], f"{said}: patch_stride")
  tower["stride"] = None if stride == tower["patch"] else stride
  words = {**roberta_tower(text, f"{where}: text_config"), "pool": "pooler"}
  heads = {
    f"{name}_joint": {"tower": name, "name": "mlp", "dim": dim, "hidden": dim, "depth": 2} for name in ("audio", "text")
  }
  return {"audio": complete(tower), "text": complete(words)}, heads


def _config(pretrained: Pretrained, where: str) -> dict[str, Any]:
  """The config.json that comes nearest to a model; where it says something else, `_describe` shows it."""
  towers = {name: complete(pretrained.towers[name]) for name in ("audio", "text")}
  for name, nouns, theirs in (("audio", "sounds", _AUDIO_TOWERS), ("text", "texts", ("bert", "bert_large"))):
    if towers[name]["name"] not in theirs:
      raise UserError(
        f"{where}: {pretrained.key(f'towers/{name}')}.name is {towers[name]['name']!r}, and transformers' clap has "
        f"{' or '.join(map(repr, theirs))} only; {OTHERWISE}"
      )
    if f"{name}_joint" not in pretrained.heads:
      raise UserError(f"{where}: transformers' clap has a head of {nouns}, and this model has none")
  audio, text = towers["audio"], towers["text"]
  dim, ids = pretrained.heads["audio_joint"].get("dim", 512), pretrained.text.token_ids
  pad = ids["pad"] if pretrained.text.tokenizer else text["first_position"] - 1
  stride = audio["stride"] or audio["patch"]
  sounds = {
    **stage_fields(audio), "patch_stride": [stride, stride], "patch_embeds_hidden_size": audio["width"],
    "hidden_size": audio["width"] * 2 ** (len(audio["stages"]) - 1), "num_attention_heads": list(audio["heads"]),
    "num_mel_bins": pretrained.audio.log_mel.mels, "spec_size": audio["fold"], "enable_fusion": False,
    "patch_embed_input_channels": 1, "flatten_patch_embeds": True, "enable_patch_layer_norm": True,
    "num_hidden_layers": len(audio["stages"]),
  }  # fmt: skip
  words = {
    "vocab_size": text["vocab_size"], "hidden_size": text["width"], "num_hidden_layers": text["depth"],
    "num_attention_heads": text["heads"], "intermediate_size": round(text["width"] * text["mlp_ratio"]),
    "hidden_act": their_activation(text["activation"]), "max_position_embeddings": pad + 1 + text["max_length"],
    "type_vocab_size": text["token_types"], "layer_norm_eps": text["norm_epsilon"], "pad_token_id": pad,
    "bos_token_id": ids["bos"], "eos_token_id": ids["eos"],
  }  # fmt: skip
  return {
    "model_type": CLAP, "architectures": ["ClapModel"], "projection_dim": dim, "projection_hidden_act": "relu",
    "audio_config": sounds, "text_config": words,
  }  # fmt: skip
