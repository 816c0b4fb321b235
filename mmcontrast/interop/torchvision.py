"""torchvision's ResNets: the state_dict of `torchvision.models.resnet50()` and its kin, version 1.5.

    torchvision:resnet50@FILE    FILE: .safetensors, or .pth in the import command

Version 1 has the same names and shapes with its strides on the 1x1 convolutions: such a file cannot be told apart
and gives other outputs. A classifier (fc) is left out, both ways.
"""

from __future__ import annotations

import pathlib

from mmcontrast.errors import UserError, choose
from mmcontrast.interop.naming import check_named, to_ours, to_theirs, under
from mmcontrast.interop.pretrained import Pretrained, check_expressible, complete, image_tower, shapes
from mmcontrast.interop.resnet import CLASSIFIER, INPUT, NAMES, TORCHVISION
from mmcontrast.interop.weights import PLAIN, Reading, read_weights, write_weights


def read(path: str, how: Reading = PLAIN) -> Pretrained:
  """A ResNet as tower "image"; see `formats.Format.read`."""
  name, at, file = path.partition("@")
  if not at:
    raise UserError(
      f"{path}: a file of torchvision does not say its architecture; give ARCHITECTURE@FILE, such as "
      "resnet50@resnet50.pth"
    )
  tower = complete({"name": choose(name, NAMES, f"{path}: architecture")})
  arrays = to_ours(
    under(TORCHVISION, "", "towers/image"),
    read_weights(file, how.torch, how.weights),
    shapes({"image": tower}, {}, INPUT),
    file,
    [*CLASSIFIER, *how.allow_unused],
  )
  return Pretrained({"image": tower}, {}, arrays, INPUT, source=path)


def plan(pretrained: Pretrained, where: str) -> str:
  """torchvision's name of the image tower; no array is looked at. Raises UserError for what it does not have."""
  tower, arrays = image_tower(pretrained, where)
  name = choose(tower["name"], NAMES, f"{where}: {pretrained.key('towers/image')}.name")
  check_expressible(pretrained, "towers/image", {"name": name}, f"{where}: not torchvision's {name}")
  check_named(under(TORCHVISION, "", "towers/image"), arrays, where)
  return name


def write(pretrained: Pretrained, out: pathlib.Path) -> None:
  """Writes the image tower as "ARCHITECTURE.safetensors", a state_dict without fc.

  model = torchvision.models.resnet50()
  model.fc = torch.nn.Identity()
  model.load_state_dict(safetensors.torch.load_file("resnet50.safetensors"))
  """
  name, arrays = plan(pretrained, str(out)), image_tower(pretrained, str(out))[1]
  theirs = to_theirs(under(TORCHVISION, "", "towers/image"), arrays, str(out))
  out.mkdir(parents=True, exist_ok=True)
  write_weights(out / f"{name}.safetensors", theirs)
