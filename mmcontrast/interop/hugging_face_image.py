"""preprocessor_config.json of transformers: how an image, or each frame of a video, becomes a model's input."""

from __future__ import annotations

import math
import pathlib
from typing import Any

from mmcontrast.errors import UserError, choose
from mmcontrast.interop.hugging_face_config import missing_fields, require
from mmcontrast.interop.json_files import read_json
from mmcontrast.interop.pretrained import ImageInput
from mmcontrast.interop.square import square

NAME, OF_VIDEOS = "preprocessor_config.json", "video_preprocessor_config.json"
NATIVE = "native"
_HALF = (0.5, 0.5, 0.5)  # the mean and deviation that Siglip2ImageProcessor leaves out of its file
_RESAMPLE = {"2": "bilinear", "3": "bicubic"}  # Pillow's numbers


def read_image_input(folder: pathlib.Path, videos: bool = False) -> ImageInput:
  """The image input of a folder that transformers saved; with `videos` that of frames, which may have a file of its
  own name.

  Raises UserError where there is none: a model does not say how it was trained to see.
  """
  file = folder / (OF_VIDEOS if videos and (folder / OF_VIDEOS).is_file() else NAME)
  if not file.is_file():
    raise UserError(
      f"{folder}: no {NAME} there, which says the size, mean and deviation of the images; copy it from "
      "where the weights come from"
    )
  config = read_json(file)
  require(config, file, do_resize=True, do_rescale=True, do_normalize=True)
  if abs(config.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-3:
    raise UserError(f"{file}: rescale_factor is {config['rescale_factor']}; only 1/255 is supported")
  with missing_fields(file):
    if "max_num_patches" in config:
      most, patch = config["max_num_patches"], config["patch_size"]
      how = _RESAMPLE[choose(str(config.get("resample", 2)), _RESAMPLE, f"{file}: resample")]
      mean, std = (tuple(config.get(key, _HALF)) for key in ("image_mean", "image_std"))
      return ImageInput(patch * math.isqrt(most), mean, std, NATIVE, how, patches=most)
    size, cropped = config["size"], config.get("do_center_crop", False)
    interpolation = _RESAMPLE[choose(str(config.get("resample", 2)), _RESAMPLE, f"{file}: resample")]
    mean, std = tuple(config["image_mean"]), tuple(config["image_std"])
    shortest = size if isinstance(size, int) else size.get("shortest_edge")
    if cropped and shortest:
      side = square(config["crop_size"], f"{file}: crop_size")
      share = side / shortest
      share = share if int(side / share) == shortest else math.nextafter(share, 0)  # we round down what they say
      return ImageInput(side, mean, std, "shortest", interpolation, share)
    if cropped or (isinstance(size, dict) and "shortest_edge" in size):
      raise UserError(f"{file}: do_center_crop={cropped} with size={size} is not supported")
    return ImageInput(square(size, f"{file}: size"), mean, std, "squash", interpolation)


def image_config(image: ImageInput) -> dict[str, Any]:
  """The inverse: the content of the file."""
  if image.resize == NATIVE:
    return {
      "image_processor_type": "Siglip2ImageProcessor", "do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255,
      "do_normalize": True, "do_convert_rgb": True, "image_mean": list(image.mean), "image_std": list(image.std),
      "resample": _number_of(image.interpolation), "patch_size": image.patch, "max_num_patches": image.patches,
    }  # fmt: skip
  side, squash = {"height": image.size, "width": image.size}, image.resize == "squash"
  shortest = int(image.size / image.centre_crop)  # rounded down, as where we resize
  return {
    "image_processor_type": "ViTImageProcessor" if squash else "BitImageProcessor", "do_resize": True,
    "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "do_convert_rgb": True,
    "image_mean": list(image.mean), "image_std": list(image.std), "do_center_crop": not squash,
    "resample": _number_of(image.interpolation),
    **({"size": side} if squash else {"size": {"shortest_edge": shortest}, "crop_size": side}),
  }  # fmt: skip


def _number_of(interpolation: str) -> int:
  return {name: int(number) for number, name in _RESAMPLE.items()}[interpolation]
