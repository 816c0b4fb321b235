"""Hugging Face's transformers: folders with config.json, whose `model_type` says which file here knows the model.

Such a file has
    read(folder, config, arrays, allow_unused) -> Pretrained
    plan(pretrained, where): raises UserError for what the model has and transformers has not; looks at no array
    write(pretrained, out) -> None
"""

from __future__ import annotations

import importlib
import pathlib
from typing import Any

from mmcontrast.errors import UserError, choose
from mmcontrast.interop.json_files import read_json
from mmcontrast.interop.pretrained import Pretrained
from mmcontrast.interop.weights import PLAIN, Reading, find_weights, read_weights

MODELS = {  # model_type -> its file
  "clip": "hugging_face_clip",
  "siglip": "hugging_face_clip",
  "siglip2": "hugging_face_clip",
  "siglip2_vision_model": "hugging_face_siglip2",
  "bert": "hugging_face_bert",
  "blip_text_model": "hugging_face_decoder",
  "roberta": "hugging_face_bert",
  "xlm-roberta": "hugging_face_bert",
  "modernbert": "hugging_face_bert",
  "vit": "hugging_face_vit",
  "dinov2": "hugging_face_vit",
  "dinov2_with_registers": "hugging_face_vit",
  "dinov3_vit": "hugging_face_dinov3",
  "xclip": "hugging_face_xclip",
  "videomae": "hugging_face_videomae",
  "audio-spectrogram-transformer": "hugging_face_audio",
  "whisper": "hugging_face_audio",
  "clap": "hugging_face_clap",
  "swin": "hugging_face_swin",
}
_WRITERS = {  # towers -> the file that writes them
  ("image", "text"): "hugging_face_clip", ("text",): "hugging_face_bert", ("image",): "hugging_face_vit",
  ("text", "video"): "hugging_face_xclip", ("video",): "hugging_face_videomae", ("audio",): "hugging_face_audio",
  ("audio", "text"): "hugging_face_clap",
  ("decoder", "text"): "hugging_face_decoder", ("fusion", "text"): "hugging_face_decoder",
}  # fmt: skip


def read(path: str, how: Reading = PLAIN) -> Pretrained:
  """A folder that transformers saved; see `formats.Format.read`."""
  folder = pathlib.Path(path)
  file = folder / "config.json"
  if not file.is_file():
    raise UserError(f"{path}: no config.json there; give a folder as save_pretrained of transformers writes it")
  config = read_json(file)
  model = choose(str(config.get("model_type")), MODELS, f"{file}: model_type")
  arrays = read_weights(find_weights(folder), how.torch, how.weights)
  if model == "bert" and config.get("add_cross_attention"):
    model = "blip_text_model"  # which has it always; the same file knows both
  return _module(MODELS[model]).read(folder, config, arrays, how.allow_unused)


def plan(pretrained: Pretrained, where: str) -> None:
  """Raises UserError for what transformers does not have. No array is looked at."""
  pretrained = _expressed(pretrained)
  _writer(pretrained, where).plan(pretrained, where)


def write(pretrained: Pretrained, out: pathlib.Path) -> None:
  """Writes what `AutoModel.from_pretrained(OUT)` loads. Raises UserError for what transformers does not have."""
  pretrained = _expressed(pretrained)
  _writer(pretrained, str(out)).write(pretrained, out)


def _expressed(pretrained: Pretrained) -> Pretrained:
  """The model without a decoder, where that is not written with the other towers."""
  return pretrained if tuple(sorted(pretrained.towers)) in _WRITERS else pretrained.without_decoder()


def _writer(pretrained: Pretrained, where: str) -> Any:
  towers = tuple(sorted(pretrained.towers))
  if towers not in _WRITERS:
    raise UserError(f"{where}: towers {' and '.join(towers)} are not a model of transformers")
  if towers == ("image",) and pretrained.image and pretrained.image.patches:
    return _module("hugging_face_siglip2")
  if towers == ("image",) and pretrained.towers["image"]["name"].startswith("swin"):
    return _module("hugging_face_swin")
  return _module(_WRITERS[towers])


def _module(name: str) -> Any:
  return importlib.import_module(f"mmcontrast.interop.{name}")
