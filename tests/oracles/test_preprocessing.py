"""What evaluation sees of photographs, pixel by pixel beside open_clip's, timm's and torchvision's transforms.

From an array of pixels: bit-equal. From the bytes of a JPEG: within one level of 255 of what Pillow decodes.
"""

import io

import numpy as np
import open_clip
import pytest
import skimage.data
import timm.data
import torchvision.transforms as transforms
from PIL import Image

from mmcontrast.data.images import decode
from mmcontrast.data.transforms import evaluation_view

PHOTOS = ("astronaut", "coffee", "chelsea", "rocket")
PLAIN = dict(mean=(0.0,) * 3, std=(1.0,) * 3)


def view(pixels, size, mode, interpolation, share=1.0):
  return evaluation_view(
    pixels, dict(image_size=size, trim=False, centre_crop=share, resize=dict(mode=mode, interpolation=interpolation))
  )


def levels(tensor):
  return np.asarray(tensor * 255).round().astype(np.uint8).transpose(1, 2, 0)


@pytest.fixture(scope="module", params=PHOTOS)
def photo(request):
  return getattr(skimage.data, request.param)()


@pytest.mark.parametrize("size", [224, 225, 384])
@pytest.mark.parametrize("mode", ["shortest", "squash"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_open_clip(photo, size, mode, interpolation):
  theirs = open_clip.image_transform(size, is_train=False, resize_mode=mode, interpolation=interpolation, **PLAIN)
  for pixels in (photo, photo[:, 1:], photo[2:301, :222], photo[:100, :101]):  # odd sides, and enlarged
    np.testing.assert_array_equal(view(pixels, size, mode, interpolation), levels(theirs(Image.fromarray(pixels))))


def test_open_clips_normalised_pixels(photo):
  """The step on the device too: in float32, within 1e-6."""
  from mmcontrast.modalities.image_augmentation import normalize

  theirs = open_clip.image_transform(224, is_train=False)(Image.fromarray(photo)).numpy().transpose(1, 2, 0)
  ours = normalize(
    view(photo, 224, "shortest", "bicubic") / np.float32(255),
    open_clip.OPENAI_DATASET_MEAN,
    open_clip.OPENAI_DATASET_STD,
  )
  np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("share", [0.875, 0.9, 0.95, 1.0])
def test_timm(photo, share):
  theirs = timm.data.create_transform((3, 224, 224), interpolation="bicubic", crop_pct=share, **PLAIN)
  np.testing.assert_array_equal(view(photo, 224, "shortest", "bicubic", share), levels(theirs(Image.fromarray(photo))))


@pytest.mark.parametrize("resize", [232, 256])
def test_torchvision(photo, resize):
  theirs = transforms.Compose([transforms.Resize(resize), transforms.CenterCrop(224), transforms.ToTensor()])
  np.testing.assert_array_equal(
    view(photo, 224, "shortest", "bilinear", 224 / resize), levels(theirs(Image.fromarray(photo)))
  )


def test_from_the_bytes_of_a_jpeg(photo):
  out = io.BytesIO()
  Image.fromarray(photo).save(out, "JPEG", quality=90)
  theirs = levels(open_clip.image_transform(224, is_train=False, **PLAIN)(Image.open(out)))
  ours = view(decode(out.getvalue()), 224, "shortest", "bicubic")
  assert np.abs(ours.astype(int) - theirs).max() <= 1
