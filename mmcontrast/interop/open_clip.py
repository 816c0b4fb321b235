"""open_clip's models: CLIP, SigLIP, CoCa with its decoder, and the ResNets of CLIP. Format of open_clip 3.3.

open_clip:DIR         a folder with open_clip_config.json and its weights, as open_clip saves and downloads it
open_clip:NAME@FILE   a file of weights; NAME: a JSON config, or a model of an installed open_clip
"""

from __future__ import annotations

import importlib.util
import json
import math
import pathlib
from typing import Any

import numpy as np

from mmcontrast.errors import UserError, nearest
from mmcontrast.interop import tokenizer_files, torch_file
from mmcontrast.interop.json_files import read_json
from mmcontrast.interop.naming import Rule, check_named, to_ours, to_theirs
from mmcontrast.interop.open_clip_config import config_of, describe, text_input
from mmcontrast.interop.pretrained import Pretrained, check_expressible, shapes, take_logits
from mmcontrast.interop.weights import PLAIN, Reading, find_weights, read_weights, write_weights

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
_FILES = (WEIGHTS, "open_clip_pytorch_model.bin")
_IGNORED = (
  r".*\.num_batches_tracked",
  "input_resolution",
  "context_length",
  "vocab_size",
  r"(text\.|text_decoder\.)?(transformer\.resblocks\.\d+\.)?attn_mask",
)

_QUICK_GELU = 1.702  # its factor


def read(path: str, how: Reading = PLAIN) -> Pretrained:
  """A model of open_clip; see `formats.Format.read`.

  Raises UserError also for a field of its config, or a value, that our encoders do not compute.
  """
  config, file = _find(path)
  found, text = describe(config, path), text_input(config, file.parent, path)
  arrays = read_weights(file, how.torch, how.weights)
  if found.towers["text"]["activation"] != "quick_gelu" and torch_file.program_has(file, _QUICK_GELU):
    raise UserError(
      f"{path}: the program in {file.name} computes QuickGELU, as OpenAI's models do, and the config "
      f"says {found.towers['text']['activation']!r}: give one of quick_gelu, such as ViT-B-32-quickgelu"
    )
  arrays, scale, bias = take_logits(arrays, ("logit_scale", "logit_bias"), str(file))
  prefix = "text." if any(name.startswith("text.") for name in arrays) else ""
  wanted = shapes(found.towers, found.heads, found.image, text)
  ours = to_ours(found.rules(prefix), arrays, wanted, str(file), (*_IGNORED, *how.allow_unused))
  return Pretrained(found.towers, found.heads, ours, found.image, text, scale, bias, path)


def plan(pretrained: Pretrained, where: str) -> tuple[dict[str, Any], dict[str, bytes], list[Rule]]:
  """The config, the files of the tokenizer and the names of a model in open_clip's terms; no array is looked at.

  Raises UserError for what open_clip does not have.
  """
  config = config_of(pretrained, where)
  files, said = tokenizer_files.contents(pretrained.text), describe(config, where)
  for kind, parts in (("towers", said.towers), ("heads", said.heads)):
    for name, understood in parts.items():
      check_expressible(pretrained, f"{kind}/{name}", understood, f"{where}: not in open_clip")
  rules = said.rules("text." if config["model_cfg"]["custom_text"] else "")
  check_named(rules, pretrained.arrays, where)
  if pretrained.logit_scale is None:
    raise UserError(
      f"{where}: open_clip needs a logit scale, and this model has none: train with "
      "temperature=dict(learned=True) in the term between the two heads"
    )
  return config, files, rules


def write(pretrained: Pretrained, out: pathlib.Path) -> None:
  """Writes what `open_clip.create_model_and_transforms("local-dir:OUT")` and its `get_tokenizer` load.

  Raises UserError for an option of a tower or a head that open_clip does not have.
  """
  config, files, rules = plan(pretrained, str(out))
  arrays = to_theirs(rules, pretrained.arrays, str(out))
  arrays["logit_scale"] = np.float32(math.log(pretrained.logit_scale))
  if pretrained.logit_bias is not None:
    arrays["logit_bias"] = np.float32(pretrained.logit_bias)
  out.mkdir(parents=True, exist_ok=True)
  write_weights(out / WEIGHTS, arrays)
  for name, content in {CONFIG: (json.dumps(config, indent=2) + "\n").encode(), **files}.items():
    (out / name).write_bytes(content)


def _find(path: str) -> tuple[dict[str, Any], pathlib.Path]:
  """The config, {"model_cfg", "preprocess_cfg"}, and the file of weights."""
  name, at, file = path.partition("@")
  if at:
    return _config(_named(name, path)), pathlib.Path(file)
  folder = pathlib.Path(path)
  if not (folder / CONFIG).is_file():
    raise UserError(
      f"{path}: no {CONFIG} there; give the folder of a model of open_clip, or NAME@FILE, such as "
      "ViT-B-32@open_clip_model.safetensors"
    )
  return _config(folder / CONFIG), find_weights(folder, _FILES)


def _named(name: str, path: str) -> pathlib.Path:
  """The file of the config `name`: a JSON, or one that an installed open_clip brings (found, not imported)."""
  if name.endswith(".json"):
    return pathlib.Path(name)
  spec = importlib.util.find_spec("open_clip")
  if spec is None:
    raise UserError(
      f"{path}: the config of {name!r} is not known without open_clip; give CONFIG.json@FILE, or "
      "pip install --no-deps open_clip_torch"
    )
  configs = pathlib.Path(spec.origin).parent / "model_configs"
  if not (configs / f"{name}.json").is_file():
    known = [file.stem for file in configs.iterdir()]
    raise UserError(f"{path}: open_clip has no model {name!r}; {nearest(name, known)}")
  return configs / f"{name}.json"


def _config(file: pathlib.Path) -> dict[str, Any]:
  found = read_json(file)
  found = found if "model_cfg" in found else {"model_cfg": found}
  model = found["model_cfg"]
  missing = [key for key in ("embed_dim", "vision_cfg", "text_cfg") if not isinstance(model, dict) or key not in model]
  if missing:
    raise UserError(f"{file}: model_cfg has no {missing[0]}; it is not a config of open_clip")
  return found
