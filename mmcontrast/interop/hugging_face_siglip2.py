"""Hugging Face's Siglip2VisionModel: SigLIP 2's image tower of images that keep their ratio (NaFlex), alone.

Both towers together, Siglip2Model, are hugging_face_clip.py's.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from mmcontrast.errors import UserError
from mmcontrast.interop import hugging_face_clip
from mmcontrast.interop.hugging_face_image import NAME, image_config, read_image_input
from mmcontrast.interop.naming import Arrays, Rule, check_named, to_ours, to_theirs
from mmcontrast.interop.pretrained import OTHERWISE, Pretrained, check_expressible, complete, image_tower, shapes
from mmcontrast.interop.weights import write_weights

_KIND, _PREFIX = "siglip2", "vision_model."  # of a folder of both towers, and of older ones of the image tower


def read(
  folder: pathlib.Path, config: Mapping[str, Any], arrays: Arrays, allow_unused: Sequence[str] = ()
) -> Pretrained:
  """The image tower of a folder whose `config` and `arrays` have been read.

  Raises UserError for a field of the config that our encoder does not compute, and as `naming.to_ours`.
  """
  file = folder / "config.json"
  tower, image = complete(hugging_face_clip.image_tower(_KIND, config, str(file))), read_image_input(folder)
  hugging_face_clip.check_images({"patch_size": tower["patch"]}, image, file)
  arrays = {name.removeprefix(_PREFIX): array for name, array in arrays.items()}
  found = to_ours(_rules(), arrays, shapes({"image": tower}, {}, image), str(folder), allow_unused)
  return Pretrained({"image": tower}, {}, found, image, source=str(folder))


def plan(pretrained: Pretrained, where: str) -> dict[str, Any]:
  """The config.json of the image tower; no array is looked at.

  Raises UserError for an option that Siglip2VisionModel has not.
  """
  tower, inside = image_tower(pretrained, where)
  if not tower["name"].startswith("vit"):
    raise UserError(
      f"{where}: {pretrained.key('towers/image')}.name is {tower['name']!r}, and Siglip2VisionModel is a 'vit'; "
      f"{OTHERWISE}"
    )
  config = hugging_face_clip.vision_fields(pretrained, tower)
  needed = complete(hugging_face_clip.image_tower(_KIND, config, where))
  check_expressible(pretrained, "towers/image", needed, f"{where}: not transformers' Siglip2VisionModel")
  check_named(_rules(), inside, where)
  return {"model_type": "siglip2_vision_model", "architectures": ["Siglip2VisionModel"], **config}


def write(pretrained: Pretrained, out: pathlib.Path) -> None:
  """Writes the image tower for `AutoModel.from_pretrained(OUT)`; heads stay behind.

  Raises UserError for an option that Siglip2VisionModel has not.
  """
  config = plan(pretrained, str(out))
  arrays = to_theirs(_rules(), image_tower(pretrained, str(out))[1], str(out))
  out.mkdir(parents=True, exist_ok=True)
  write_weights(out / "model.safetensors", arrays)
  for name, content in {"config.json": config, NAME: image_config(pretrained.image)}.items():
    (out / name).write_text(json.dumps(content, indent=2) + "\n")


def _rules() -> list[Rule]:
  rules = hugging_face_clip.image_rules(_KIND)
  return [Rule(tuple(name.removeprefix(_PREFIX) for name in rule.names), rule.paths, rule.layout) for rule in rules]
