"""Writes preprocessing.npz: what open_clip, timm and torchvision make of two photographs that scikit-learn ships.

    PYTHONPATH=tests/oracles python tests/golden/make_preprocessing.py

Written with open_clip 3.3.0, timm 1.0.31, torchvision 0.28.0 and Pillow 13.0.0.
"""

import pathlib

import torchvision_ops  # noqa: F401  (before the others)

# isort: split
import numpy as np
import open_clip
import timm.data
import torchvision.transforms as transforms
from PIL import Image
from sklearn import datasets

SIZE = 32
PLAIN = dict(mean=(0.0,) * 3, std=(1.0,) * 3)  # pixels, as shares of 255


def photographs():
  """Landscape, and portrait with both sides odd."""
  folder = pathlib.Path(datasets.__file__).parent / "images"
  china, flower = (Image.open(folder / f"{name}.jpg") for name in ("china", "flower"))
  return {"china": china, "flower": flower.crop((3, 0, 270, 401))}


def cases():
  """ "mode interpolation share" -> the other package's transform."""
  found = {}
  for mode in ("shortest", "squash"):
    for interpolation in ("bilinear", "bicubic"):
      found[f"{mode} {interpolation} 1"] = open_clip.image_transform(
        SIZE, is_train=False, resize_mode=mode, interpolation=interpolation, **PLAIN
      )
  found["shortest bicubic 0.9"] = timm.data.create_transform(
    (3, SIZE, SIZE), interpolation="bicubic", crop_pct=0.9, **PLAIN
  )
  weights = transforms.Compose([transforms.Resize(37), transforms.CenterCrop(SIZE), transforms.ToTensor()])
  found[f"shortest bilinear {SIZE}/37"] = weights
  return found


if __name__ == "__main__":
  arrays = {
    f"{photo} {case}": np.asarray(transform(image) * 255).round().astype(np.uint8).transpose(1, 2, 0)
    for photo, image in photographs().items()
    for case, transform in cases().items()
  }
  np.savez_compressed(pathlib.Path(__file__).with_name("preprocessing.npz"), **arrays)
