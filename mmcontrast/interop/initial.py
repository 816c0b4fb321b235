"""`config.init` from files of other packages: "KIND:PATH", or "KIND:PATH:PART" for a part of another name."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmcontrast.data.settings import resolve
from mmcontrast.encoders import nested
from mmcontrast.encoders.flexible_patches import resized_kernel
from mmcontrast.encoders.layers import layers_as
from mmcontrast.encoders.positions import resize_positions
from mmcontrast.errors import UserError, choose
from mmcontrast.interop.formats import FORMATS, read
from mmcontrast.interop.pretrained import AudioInput, Pretrained, check_same
from mmcontrast.objectives.embedding_path import parse_embedding
from mmcontrast.objectives.module_term import MODULES
from mmcontrast.registry import options_of

_OTHER_PATCHES = ("patches", "evaluation_patch")  # to which a tower resizes what it starts from
Arrays = dict[str, Any]  # "params/towers/image/..." -> array
_OF_PIXELS = ("image", "video")  # modalities whose towers have positions of patches
_OF_THE_START = ("alpha",)  # options of a module that say what parameters start with


def is_of_a_format(source: str) -> bool:
  """Whether a value of `config.init` begins with a kind of file that is read."""
  kind = source.partition(":")[0]
  return kind in FORMATS and FORMATS[kind].reads


def open_part(source: str, part: str, wanted: Arrays, config: Mapping[str, Any], where: str) -> tuple[str, Arrays]:
  """What the file of `source` has for `part` of this run.

  Args:
    source: "hf:PATH", "hf:PATH:towers/text".
    part: "towers/text", "towers/video/of", "heads/image_joint", or "terms/NAME": its scale and bias, or what its module
      has.
    wanted: path -> array or shape, all of this run.
    config: of this run; its tower or head has to compute what the file's does, of the same inputs.
    where: of the entry, for messages.
  Returns:
    The part's path in the file, and the file's arrays: blocks in a loop or one by one as `wanted` has them,
    learned positions of patches resized to as many as it has.
  Raises UserError where the two differ, and as `formats.read`.
  """
  place, _, path = source.rpartition(":")
  if path.partition("/")[0] not in ("towers", "heads"):
    place, path = source, part
  if part.startswith("terms/"):
    return part, _of_term(_read(source, where), part, wanted, config, where)
  kind, _, name = part.partition("/")
  name, _, within = name.partition("/")  # "video/of": a tower that is an option of another
  their_kind, _, their_name = path.partition("/")
  towers_within = nested(config["towers"].get(name, {})) if kind == "towers" else {}
  if kind not in ("towers", "heads") or not name or kind != their_kind or (within and within not in towers_within):
    raise UserError(f"{where}: a file gives a whole tower or head, such as 'towers/text', or the scale of 'terms/NAME'")
  if "/" in their_name:
    raise UserError(
      f"{where}: say which tower of the file it is, such as '{source.removesuffix(':' + path)}:towers/image'"
    )
  pretrained = _read(place, where)
  parts = getattr(pretrained, kind)
  choose(their_name, parts, f"{where}: {place} has {kind}")
  given = config[kind].get(name)
  if given is None:
    choose(name, config[kind], f"{where}: config.{kind}")
  modality = given.get("modality", name)
  if within:  # a tower of images, applied to each frame
    given, modality = towers_within[within], "image"
  if kind == "towers" and modality == "text":  # what build_model fills in
    theirs = parts[their_name]
    given = {"vocab_size": theirs["vocab_size"], "max_length": config["data"]["text_length"], **given}
    if given["max_length"] > theirs.get("max_length", math.inf):  # their positions are stretched
      given["max_length"] = theirs["max_length"]
  if given.get("patches") and "patch" in parts[their_name]:  # to which the embedding of theirs is resized
    given = {**given, "patch": parts[their_name]["patch"]}
  given = {key: value for key, value in given.items() if key not in _OTHER_PATCHES}
  check_same(given, parts[their_name], f"{where}: config.{part.replace('/', '.')}")
  if kind == "towers":
    _check_inputs(modality, pretrained, config, where)
  antialias = parts[their_name].get("position_antialias", modality == "image")
  inside = {key: value for key, value in wanted.items() if f"/{part}/" in key}
  return path, {
    key: _resized(array, inside.get(key.replace(path, part, 1)), key, antialias) if modality in _OF_PIXELS else array
    for key, array in layers_as(inside, pretrained.arrays).items()
  }


def _check_inputs(modality: str, pretrained: Pretrained, config: Mapping[str, Any], where: str) -> None:
  if modality == "text":
    given, text = dict(config["data"]["token_ids"]), pretrained.text
    if text.tokenizer and given != dict(text.token_ids):
      raise UserError(
        f"{where}: config.data.token_ids is {given}, and {dict(text.token_ids)} is needed; set "
        f"config.data.tokenizer={text.tokenizer!r} too"
      )
  elif pretrained.audio:
    _check_sounds(pretrained.audio, resolve(config["data"])["audio"], where)
  elif pretrained.image:
    for key in ("mean", "std"):
      given, needed = config["normalize"][key], getattr(pretrained.image, key)
      if not np.allclose(given, needed, atol=1e-4):
        raise UserError(f"{where}: config.normalize.{key} is {tuple(given)}, and {tuple(needed)} is needed")


def _check_sounds(needed: AudioInput, given: Mapping[str, Any], where: str) -> None:
  if given["rate"] != needed.rate:
    raise UserError(f"{where}: config.data.audio.rate is {given['rate']}, and {needed.rate} is needed")
  for key, value in dataclasses.asdict(needed.log_mel).items():
    if given["log_mel"][key] != value:
      raise UserError(f"{where}: config.data.audio.log_mel.{key} is {given['log_mel'][key]!r}, and {value!r} is needed")


def _resized(array: np.ndarray, like: Any, path: str, antialias: bool) -> np.ndarray:
  """Learned positions of an image tower, [1, N, D] or those of an attention pool [N, D], for another image size.

  `antialias`: as the other package resizes them, when it loads weights or at every call. A patch embedding of another
  size of patches is resized as FlexiViT has it.
  """
  if like is not None and path.endswith("/patch_embed/kernel") and array.ndim == 4:
    return np.asarray(resized_kernel(array, like.shape[0]))
  of_images = (path.endswith("/pos_embed") and array.ndim == 3 and "/mit/" not in path) or path.endswith(
    "/attnpool/positional_embedding"
  )
  if like is None or not of_images or array.shape == like.shape:
    return array
  extra = array.shape[-2] - math.isqrt(array.shape[-2]) ** 2
  side = math.isqrt(like.shape[-2] - extra)
  return np.asarray(resize_positions(array.reshape(1, *array.shape[-2:]), (side, side), extra, antialias)).reshape(
    *array.shape[:-2], -1, array.shape[-1]
  )


def _of_term(pretrained: Pretrained, part: str, wanted: Arrays, config: Mapping[str, Any], where: str) -> Arrays:
  """What a term learns: the parameters of its module, or its scale, in its form, and its bias."""
  name = part.partition("/")[2]
  options = config.get("objective", {}).get(name, {}).get("module", {})
  for theirs, module in pretrained.modules.items():
    if module["name"] == options.get("name"):
      _check_module(options, module, f"{where}: config.objective.{name}.module")
      prefix = f"params/terms/{theirs}/"
      found = {path: array for path, array in pretrained.arrays.items() if path.startswith(prefix)}
      return {path.replace(prefix, f"params/{part}/", 1): array for path, array in found.items()}
  if pretrained.logit_scale is None:
    raise UserError(f"{where}: the file has no logit scale")
  scale = pretrained.logit_scale
  if pretrained.text_logit_scale and _asks_by_texts(config.get("objective", {}).get(name, {})):
    scale = pretrained.text_logit_scale
  known = {"log_scale": math.log(scale), "tau": 1 / scale}
  found = {name: value for name, value in known.items() if f"params/{part}/{name}" in wanted}
  if pretrained.logit_bias is not None:
    found["bias"] = pretrained.logit_bias
  return {f"params/{part}/{name}": np.float32(value) for name, value in found.items()}


def _asks_by_texts(term: Mapping[str, Any]) -> bool:
  """Whether the queries of a term are texts."""
  queries = term.get("query", ())
  return any(
    parse_embedding(one).source.modality == "text" for one in ((queries,) if isinstance(queries, str) else queries)
  )


def _check_module(given: Mapping[str, Any], needed: Mapping[str, Any], where: str) -> None:
  defaults = options_of(MODULES[needed["name"]])
  for key, value in needed.items():
    mine = given.get(key, defaults.get(key))
    if key not in _OF_THE_START and mine != value:
      raise UserError(f"{where}.{key} is {mine!r}, and {value!r} is needed")


def _read(place: str, where: str) -> Pretrained:
  try:
    return read(place)
  except UserError as error:
    raise UserError(f"{where}: {error}") from None
