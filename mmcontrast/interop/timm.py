"""Image encoders of timm (Wightman): a folder with config.json and weights, or "ARCHITECTURE@FILE" for bare weights.

timm writes such a folder with `timm.models.save_for_hf` and reads it as `timm.create_model("local-dir:DIR",
pretrained=True)`. A classifier is left out, both ways: what an encoder gives is `num_classes=0` of timm.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from mmcontrast.errors import UserError, choose, nearest
from mmcontrast.interop.json_files import read_json
from mmcontrast.interop.naming import Rule, check_named, to_ours, to_theirs, under
from mmcontrast.interop.pretrained import OTHERWISE, ImageInput, Pretrained, check_same, complete, image_tower, shapes
from mmcontrast.interop.weights import NAMES, PLAIN, Reading, find_weights, read_weights, write_weights

# What an architecture's name begins with -> the file here that knows its family. It has
#   from_timm(architecture, args, where) -> Encoder     of the arguments that timm's constructor was given
#   to_timm(tower, size, where) -> (architecture, the arguments that are not its defaults, rules)
# and both raise UserError for what the other side does not compute.
FAMILIES = {"resnet": "resnet", "convnext": "convnext", "vit": "vit"}
CENTRE, SQUASH = "center", "squash"  # timm's crop_mode


@dataclasses.dataclass(frozen=True)
class Encoder:
  """A timm architecture in our terms.

  Attributes:
    tower: encoder options, "name" among them, complete.
    rules: timm's names and ours, of the tower only.
    ignored: regexes of timm's names that are no encoder's, such as a classifier's.
    image: its input where the folder does not say otherwise.
  """

  tower: Mapping[str, Any]
  rules: Sequence[Rule]
  ignored: Sequence[str]
  image: ImageInput


def read(path: str, how: Reading = PLAIN) -> Pretrained:
  """An encoder of timm as tower "image"; see `formats.Format.read`."""
  name, config, file = _open(path)
  args = dict(config.get("model_args", {}))
  for key in ("num_classes", "global_pool"):  # of the classifier's side; said once more at the top
    if key in config:
      args.setdefault(key, config[key])
  found = encoder(name, args, path)
  image = _image(config.get("pretrained_cfg", {}), found.image, path)
  wanted = shapes({"image": found.tower}, {}, image)
  arrays = to_ours(
    under(found.rules, "", "towers/image"),
    read_weights(file, how.torch, how.weights),
    wanted,
    str(file),
    [*found.ignored, *how.allow_unused],
  )
  return Pretrained({"image": found.tower}, {}, arrays, image, source=path)


def plan(pretrained: Pretrained, where: str) -> tuple[str, dict[str, Any], Sequence[Rule]]:
  """timm's name of the image tower, its arguments and its arrays' names; no array is looked at.

  Raises UserError for what timm does not have.
  """
  tower, inside = image_tower(pretrained, where)
  image = pretrained.image
  name, args, rules = architecture(tower, image.size, where, pretrained.key("towers/image"))
  for path, shape in shapes({"image": tower}, {}, image).items():
    if inside[path].shape != shape:
      raise UserError(
        f"{where}: {path.removeprefix('params/')} is for images of another size than {image.size} px, "
        "and timm resizes otherwise; export a run of that size, started from these weights (config.init)"
      )
  check_named(under(rules, "", "towers/image"), inside, where)
  return name, args, rules


def write(pretrained: Pretrained, out: pathlib.Path) -> None:
  """Writes the image tower as a folder of timm; its heads and other towers stay behind."""
  name, args, rules = plan(pretrained, str(out))
  image = pretrained.image
  arrays = to_theirs(under(rules, "", "towers/image"), image_tower(pretrained, str(out))[1], str(out))
  cfg = {
    "input_size": [3, image.size, image.size],
    "mean": list(image.mean),
    "std": list(image.std),
    "interpolation": image.interpolation,
    "crop_pct": image.centre_crop,
    "num_classes": 0,
    "crop_mode": SQUASH if image.resize == "squash" else CENTRE,
    "custom_load": False,
    "fixed_input_size": name.startswith("vit"),
  }  # or timm builds it for 224 px
  config = {"architecture": name, "num_classes": 0, "model_args": args, "pretrained_cfg": cfg}
  out.mkdir(parents=True, exist_ok=True)
  write_weights(out / NAMES[0], arrays)
  (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def encoder(architecture: str, args: Mapping[str, Any], where: str) -> Encoder:
  """What timm's `create_model(architecture, **args)` makes, in our terms.

  Raises UserError for an architecture or an argument that is not computed here.
  """
  return _family(architecture, where).from_timm(architecture.partition(".")[0], args, where)


def architecture(
  tower: Mapping[str, Any], size: int, where: str, key: str = "towers.image"
) -> tuple[str, dict[str, Any], Sequence[Rule]]:
  """timm's name of a tower for images of `size` px, its arguments where they are no defaults, its arrays' names.

  Raises UserError, which names the tower by its config `key`, for one that timm does not have.
  """
  name, args, rules = _family(tower["name"], where).to_timm(complete(tower), size, where)
  # What is written is read again, so that nothing is left unsaid.
  try:
    theirs = encoder(name, args, where).tower
  except UserError as error:
    raise UserError(f"{where}: {key}: {str(error).removeprefix(f'{where}: ')}; {OTHERWISE}") from None
  check_same(tower, theirs, f"{where}: not timm's {name}: {key}", f"; {OTHERWISE}")
  return name, args, rules


def take(args: dict[str, Any], known: Mapping[str, Any], where: str) -> dict[str, Any]:
  """timm's arguments over `known`, their defaults.

  Raises UserError for an argument that is not in `known`, unless it acts in training only.
  """
  training = (
    "drop_rate",
    "drop_path_rate",
    "drop_block_rate",
    "proj_drop_rate",
    "attn_drop_rate",
    "pos_drop_rate",
    "patch_drop_rate",
    "weight_init",
    "zero_init_last",
    "head_init_scale",
  )
  for key in args:
    if key not in training:
      choose(key, known, f"{where}: model_args")
  return {**known, **{key: value for key, value in args.items() if key in known and value is not None}}


def expect(args: Mapping[str, Any], expected: Mapping[str, Any], where: str) -> None:
  """Raises UserError for an argument of timm with another value than the one our encoder computes."""
  for key, value in expected.items():
    if args[key] != value:
      raise UserError(f"{where}: {key}={args[key]!r} is not supported, only {key}={value!r}")


def _open(path: str) -> tuple[str, dict[str, Any], pathlib.Path]:
  """The architecture, config.json (empty for bare weights) and the file of weights."""
  folder = pathlib.Path(path)
  if not folder.is_dir():
    architecture, at, file = path.partition("@")
    if not at:
      raise UserError(
        f"{path}: no such folder; give one with config.json, or ARCHITECTURE@FILE for bare weights, such "
        "as resnet50@model.safetensors"
      )
    return architecture, {}, pathlib.Path(file)
  config = read_json(folder / "config.json")
  architecture = config.get("architecture")
  if not isinstance(architecture, str):
    raise UserError(
      f"{folder / 'config.json'}: not a model's config of timm, which says its architecture; for bare "
      "weights give ARCHITECTURE@FILE"
    )
  return architecture, config, find_weights(folder)


def _family(architecture: str, where: str) -> Any:
  beginning = architecture.partition("_")[0].partition(".")[0].rstrip("0123456789")
  if beginning not in FAMILIES:
    raise UserError(f"{where}: timm's {architecture!r} is not supported; {nearest(beginning, FAMILIES)}")
  return importlib.import_module(f"mmcontrast.interop.{FAMILIES[beginning]}")


def _image(cfg: Mapping[str, Any], default: ImageInput, where: str) -> ImageInput:
  """The input as pretrained_cfg gives it, for the rest `default`."""
  mode, interpolation = cfg.get("crop_mode", CENTRE), cfg.get("interpolation", default.interpolation)
  choose(mode, (CENTRE, SQUASH), f"{where}: pretrained_cfg.crop_mode")
  choose(interpolation, ("bilinear", "bicubic"), f"{where}: pretrained_cfg.interpolation")
  channels, height, width = cfg.get("input_size", (3, default.size, default.size))
  if channels != 3 or height != width:
    raise UserError(
      f"{where}: pretrained_cfg.input_size is {[channels, height, width]}; only squares of 3 channels are read"
    )
  return ImageInput(
    height,
    tuple(cfg.get("mean", default.mean)),
    tuple(cfg.get("std", default.std)),
    "squash" if mode == SQUASH else "shortest",
    interpolation,
    cfg.get("crop_pct", default.centre_crop),
  )
