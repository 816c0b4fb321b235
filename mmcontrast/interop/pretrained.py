"""What a file of another package holds, in our terms: towers, heads, arrays, and how its inputs are made."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmcontrast.encoders import ENCODERS, HEADS, complete
from mmcontrast.errors import UserError
from mmcontrast.modalities import MODALITIES
from mmcontrast.modalities.audio_log_mel import LogMel, frame_count
from mmcontrast.modalities.views import Inputs
from mmcontrast.models.model import build_model
from mmcontrast.parameter_paths import path_name

# Options that change how an output is computed or trained, not that of an evaluation on images of the size trained on.
_WITHOUT_EFFECT = (
  "dropout",
  "drop_path",
  "patch_drop",
  "leave_out",
  "dtype",
  "scan",
  "remat",
  "attention",
  "lowering",
  "bn_momentum",
  "zero_init_residual",
  "position_antialias",
  "position_side",
  "cut_edges",
  "tower",
  "modality",
  "reads",
)

_MOST_LOG = math.log(np.finfo(np.float32).max)


@dataclasses.dataclass(frozen=True)
class ImageInput:
  """How an image becomes the image tower's input.

  Attributes:
    size: side in pixels; of images that keep their ratio, of a square one.
    mean, std: of each channel, of pixels in [0, 1].
    resize: "shortest" (the shorter side, then the middle), "squash" (both sides, whatever the shape was), or "native"
      (to at most `patches` patches, at the image's ratio: config.data.native).
    interpolation: "bilinear" or "bicubic".
    centre_crop: share of the shorter side that is seen.
  """

  size: int
  mean: tuple[float, float, float]
  std: tuple[float, float, float]
  resize: str = "shortest"
  interpolation: str = "bicubic"
  centre_crop: float = 1.0
  patches: int = 0

  @property
  def patch(self) -> int:
    """The side of a patch, of images that keep their ratio."""
    return self.size // math.isqrt(self.patches)


@dataclasses.dataclass(frozen=True)
class TextInput:
  """How a text becomes the text tower's input.

  Attributes:
    length: tokens, bos and eos included.
    tokenizer: as config.data.tokenizer; a path of a file next to the weights.
    token_ids: {"pad", "bos", "eos"}; bos -1 where texts begin with their first token.
    lower: whether texts are made small first.
  """

  length: int
  tokenizer: str
  token_ids: Mapping[str, int]
  lower: bool = True


@dataclasses.dataclass(frozen=True)
class AudioInput:
  """How a sound becomes the audio tower's input.

  Attributes:
    rate: samples a second.
    seconds: that are heard.
    log_mel: of what they become.
  """

  rate: int
  seconds: float
  log_mel: LogMel

  @property
  def frames(self) -> int:
    """Of a spectrogram."""
    return frame_count(self.log_mel, round(self.rate * self.seconds))


@dataclasses.dataclass(frozen=True)
class Pretrained:
  """A model of another package.

  Attributes:
    towers: "image", "text", "video", "audio", "decoder" of one that writes captions, "fusion" of a text with an image
      -> encoder options, "name" among them, complete: no default is left to a later version.
    heads: "image_joint", "text_joint", "words" -> head options, "tower" and "name" among them.
    arrays: "params/towers/image/..." -> float32 array, all that towers, heads and modules have.
    image, text, audio: their inputs; None where there is no such tower. `image` is of each frame of a video too.
    frames: of a video; None where there is no tower of them.
    modules: "prompted" -> the options of a module of a term ("name" among them) that has parameters; its arrays are
      "params/terms/prompted/...".
    logit_scale: the factor itself (one over the temperature), None where the model has none.
    text_logit_scale: that of texts that choose, where it is another one (CLAP); `logit_scale` is that of what they
      choose from.
    logit_bias: what is added to logits after it.
    source: where it was read, for messages.
    names: "towers/image" -> "towers/photo", the name in the config of the run that it was.
  """

  towers: Mapping[str, Mapping[str, Any]]
  heads: Mapping[str, Mapping[str, Any]]
  arrays: Mapping[str, np.ndarray]
  image: ImageInput | None = None
  text: TextInput | None = None
  logit_scale: float | None = None
  logit_bias: float | None = None
  source: str = ""
  names: Mapping[str, str] = dataclasses.field(default_factory=dict)
  audio: AudioInput | None = None
  frames: int | None = None
  modules: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
  text_logit_scale: float | None = None

  def __post_init__(self):
    """Raises UserError for numbers with which no embedding comes out."""
    for kind, options in self.towers.items():
      for name in ("norm_epsilon", "bn_epsilon"):
        if name in options and not (_is_number(options[name]) and options[name] > 0):
          raise UserError(f"{self.source}: {name} of the {kind} tower is {options[name]!r}, and must be above 0")
    if image := self.image:
      for name, values, least in (("mean", image.mean, -math.inf), ("standard deviation", image.std, 0)):
        if len(values) != 3 or not all(_is_number(one) and one > least for one in values):
          raise UserError(
            f"{self.source}: the {name} of images is {values!r}, and must be a number for each of three "
            f"channels{', above 0' * (least == 0)}"
          )
      if not (_is_number(image.centre_crop) and 0 < image.centre_crop <= 1):
        raise UserError(
          f"{self.source}: the share of images that is seen is {image.centre_crop!r}, and must be above 0 and up to 1"
        )

  def without_decoder(self) -> Pretrained:
    """The model without what writes captions."""
    towers = {name: options for name, options in self.towers.items() if name != "decoder"}
    heads = {name: options for name, options in self.heads.items() if options["tower"] in towers}
    left_out = [f"/towers/{name}/" for name in self.towers if name not in towers]
    left_out += [f"/heads/{name}/" for name in self.heads if name not in heads]
    arrays = {path: array for path, array in self.arrays.items() if not any(part in path for part in left_out)}
    return dataclasses.replace(self, towers=towers, heads=heads, arrays=arrays)

  def key(self, part: str) -> str:
    """The config key of `part`, such as "towers/image"."""
    return f"config.{self.names.get(part, part).replace('/', '.')}"


OTHERWISE = "train with that, or export --to stablehlo, which takes any towers"


def check_expressible(pretrained: Pretrained, part: str, needed: Mapping[str, Any], where: str) -> None:
  """Raises UserError where `part`, such as "towers/image", is not what the format would have of it: `needed`."""
  kind, _, name = part.partition("/")
  check_same(getattr(pretrained, kind)[name], needed, f"{where}: {pretrained.key(part)}", f"; {OTHERWISE}")


def only_tower(pretrained: Pretrained, kind: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """The options, complete, and the arrays of the tower `kind`, without its heads."""
  inside = {path: array for path, array in pretrained.arrays.items() if path.split("/")[1:3] == ["towers", kind]}
  return complete(pretrained.towers[kind]), inside


def image_tower(pretrained: Pretrained, where: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """The options, complete, and the arrays of only tower "image", for a format without heads.

  Raises UserError, which names `where`, for a model without it.
  """
  if "image" not in pretrained.towers:
    raise UserError(
      f"{where}: the format holds image encoders, and this model has no tower 'image'; its towers are "
      f"{', '.join(sorted(pretrained.towers))}"
    )
  return only_tower(pretrained, "image")


def model_config(towers: Mapping[str, Mapping], heads: Mapping[str, Mapping], text: TextInput | None) -> dict[str, Any]:
  """The sections of a config that `build_model` reads, for towers named by their modality and their heads."""
  ids = dict(text.token_ids) if text else {"pad": 0, "bos": 1, "eos": 2}
  data = {
    "views": {name: int(name in towers) for name in MODALITIES},
    "token_ids": ids,
    "text_length": text.length if text else 3,
  }
  return {"data": data, "towers": towers, "heads": heads}


def shapes(
  towers: Mapping[str, Mapping],
  heads: Mapping[str, Mapping],
  image: ImageInput | None = None,
  text: TextInput | None = None,
  audio: AudioInput | None = None,
  frames: int | None = None,
) -> dict[str, tuple[int, ...]]:
  """Path -> shape of every array that such towers and heads have: what `naming.to_ours` wants. Nothing is computed.

  Args:
    frames: of a video, each of which is made as `image` says.

  Raises UserError for an unknown option.
  """
  model = build_model(model_config(towers, heads, text))
  views = {}
  if image and image.patches:
    arrays = (((image.patches, 3 * image.patch**2), jnp.float32), ((image.patches,), jnp.bool_), ((2,), jnp.int32))
    views["image"] = Inputs(*(jax.ShapeDtypeStruct((1, *shape), dtype) for shape, dtype in arrays))
  elif image:
    times = () if frames is None else (frames,)
    pixels = jax.ShapeDtypeStruct((1, *times, image.size, image.size, 3), jnp.float32)
    views["image" if frames is None else "video"] = Inputs(pixels)
  if audio:
    of_frames = (1, audio.frames)
    spectrogram = jax.ShapeDtypeStruct((*of_frames, audio.log_mel.mels), jnp.float32)
    views["audio"] = Inputs(spectrogram, jax.ShapeDtypeStruct(of_frames, jnp.bool_))
  if text:
    views["text"] = Inputs(*(jax.ShapeDtypeStruct((1, text.length), dtype) for dtype in (jnp.int32, jnp.bool_)))
  made = jax.eval_shape(model.init, jax.random.key(0), views)
  return {path_name(path): leaf.shape for path, leaf in jax.tree_util.tree_flatten_with_path(made)[0]}


def variables(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """Arrays by path as the variables of a model: {"params", "batch_stats"}, each of {"towers", "heads"}."""
  found: dict[str, Any] = {collection: {"towers": {}, "heads": {}} for collection in ("params", "batch_stats")}
  for path, array in arrays.items():
    *holders, last = path.split("/")
    tree = found
    for name in holders:
      tree = tree.setdefault(name, {})
    tree[last] = array
  return found


def take_logits(
  arrays: Mapping[str, np.ndarray], names: tuple[str, str], where: str
) -> tuple[dict[str, np.ndarray], float | None, float | None]:
  """Takes the logarithm of the logit scale, and the bias, out of a file's arrays.

  Args:
    names: of the two in the file, which may lack them.
    where: the file, for messages.
  Returns:
    (the other arrays, the scale itself, the bias).
  Raises UserError for one that is no single finite number, and for a scale beyond float32.
  """
  rest, found = dict(arrays), []
  for name in names:
    array = rest.pop(name, None)
    if array is not None and (array.size != 1 or not np.isfinite(array).all()):
      shown = array.item() if array.size == 1 else f"an array of shape {list(array.shape)}"
      raise UserError(f"{where}: {name!r} is {shown}, and one finite number is needed")
    found.append(None if array is None else array.item())
  scale, bias = found
  if scale is not None and not abs(scale) < _MOST_LOG:
    raise UserError(
      f"{where}: {names[0]!r} is {scale:g}, the logarithm of a number beyond float32; it has to be the "
      "logarithm of the scale, such as 4.6052 for 100"
    )
  return rest, None if scale is None else math.exp(scale), bias


def check_same(given: Mapping[str, Any], needed: Mapping[str, Any], where: str, hint: str = "") -> None:
  """Raises UserError where an encoder or a head of options `given` computes something else than `needed` says.

  `where` is of `given`, such as "config.towers.image"; `hint`: what else the message says.
  """
  if key := difference(given, needed):
    mine, theirs = complete(given), complete(needed)
    raise UserError(f"{where}.{key} is {mine.get(key)!r}, and {theirs.get(key)!r} is needed{hint}")


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
  """The first option in which two encoders or heads differ; None where both compute the same.

  Options that act in training only, or that change only how an output is computed.
  """
  one, other = complete(one), complete(other)
  if _module(one["name"]) != _module(other["name"]):
    return "name"
  keys = [key for key in {**other, **one} if key not in ("name", *_WITHOUT_EFFECT)]
  return next((key for key in keys if _listed(one.get(key)) != _listed(other.get(key))), None)


def _is_number(value: Any) -> bool:
  return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _listed(value: Any) -> Any:
  return list(value) if isinstance(value, tuple) else value


def _module(name: str) -> Any:
  builder = {**HEADS, **ENCODERS}[name]
  return getattr(builder, "func", builder)
