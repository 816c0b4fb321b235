"""Decoding: every kind of picture, every kind of damage, the limits; and the resize of crops."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from mmcontrast.data import images
from mmcontrast.data.sources import BadRecord

FLOWER = load_sample_image("flower.jpg")[::2, ::2]  # uint8 [214, 320, 3]
RED = (200, 40, 40)


def encoded(image, form="png", **options):
  image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
  buffer = io.BytesIO()
  image.save(buffer, form, **options)
  return buffer.getvalue()


def bad(data, limits=images.LIMITS):
  with pytest.raises(BadRecord) as raised:
    images.decode(data, limits)
  message = str(raised.value)
  assert "image" in message and "\n" not in message and len(message) < 160
  return message


def test_jpeg_is_pillows_to_within_a_few_levels():
  for options in (dict(quality=90), dict(progressive=True), dict(subsampling=0)):
    data = encoded(FLOWER, "jpeg", **options)
    out = images.decode(data)
    assert out.dtype == np.uint8 and out.shape == FLOWER.shape
    assert np.abs(out.astype(int) - np.asarray(Image.open(io.BytesIO(data)))).max() <= 4


def test_what_training_decodes_faster_is_nearly_the_same():
  for name in ("china.jpg", "flower.jpg"):
    data = encoded(load_sample_image(name), "jpeg", quality=85)
    box = (40.0, 30.0, 520.0, 400.0)
    fast, exact = (images.resize(images.decode(data, exact=e), 224, box).astype(float) for e in (False, True))
    assert 0 < np.abs(fast - exact).mean() < 1
    assert 10 * np.log10(255**2 / np.square(fast - exact).mean()) > 44  # dB
    grey = [pixels @ (0.299, 0.587, 0.114) for pixels in (fast, exact)]
    assert np.abs(grey[0] - grey[1]).mean() < 0.5


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "P", "1", "LA", "RGBA", "YCbCr"])
def test_any_mode_becomes_rgb(mode):
  red = Image.new("RGB", (8, 6), RED)
  grey = int(np.asarray(red.convert("L"))[0, 0])
  wanted = {"L": (grey,) * 3, "LA": (grey,) * 3}.get(mode, RED)
  forms = {"P": ("png", "gif", "bmp"), "CMYK": ("jpeg", "tiff"), "L": ("jpeg", "png", "tiff"), "1": ("png", "tiff"),
           "YCbCr": ("jpeg", "tiff"), "LA": ("png",), "RGBA": ("png", "webp", "tiff")}  # fmt: skip
  for form in forms.get(mode, ("jpeg", "png", "webp", "bmp", "tiff", "avif")):
    out = images.decode(encoded(red.quantize(4) if mode == "P" else red.convert(mode), form))
    assert out.shape == (6, 8, 3)
    if mode != "1":
      assert np.abs(out[3, 4].astype(int) - wanted).max() <= 8, form


def test_transparency_is_laid_on_white():
  image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
  image.putpixel((1, 1), (255, 0, 0, 255))
  image.putpixel((2, 2), (0, 0, 0, 128))
  out = images.decode(encoded(image))
  assert (out[0, 0] == 255).all() and tuple(out[1, 1]) == (255, 0, 0)
  assert abs(int(out[2, 2, 0]) - 127) <= 1
  palette = Image.new("P", (2, 1), 0)
  palette.putpalette([0, 0, 0, 9, 9, 9])
  palette.putpixel((1, 0), 1)
  out = images.decode(encoded(palette, transparency=0))
  assert (out[0, 0] == 255).all() and (out[0, 1] == 9).all()


def test_16_bit_grey_is_scaled_and_32_bit_refused():
  levels = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
  for form in ("png", "tiff"):
    assert images.decode(encoded(Image.fromarray(levels), form))[0, :, 0].tolist() == [0, 0, 1, 128, 255]
  assert "32-bit" in bad(encoded(Image.fromarray(levels.astype(np.float32)), "tiff"))


def test_an_animation_gives_its_first_frame():
  frames = [Image.new("RGB", (8, 6), colour) for colour in (RED, (0, 0, 0), (0, 0, 255))]
  for form, options in (("gif", {}), ("webp", dict(lossless=True)), ("png", {})):
    data = encoded(frames[0], form, save_all=True, append_images=frames[1:], duration=50, **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert np.abs(images.decode(data)[3, 4].astype(int) - RED).max() <= 1, form


@pytest.mark.parametrize("form", ["jpeg", "png", "webp", "tiff"])
def test_exif_orientation_is_applied(form):
  back = {  # how what the camera stored is made from what was seen
    1: lambda seen: seen, 2: np.fliplr, 3: lambda seen: np.rot90(seen, 2), 4: np.flipud,
    5: lambda seen: seen.swapaxes(0, 1), 6: np.rot90, 7: lambda seen: np.rot90(seen, 2).swapaxes(0, 1),
    8: lambda seen: np.rot90(seen, -1),
  }  # fmt: skip
  exif = Image.Exif()
  for orientation, store in back.items():
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(store(FLOWER))
    out = images.decode(encoded(stored, form, exif=exif, **dict(quality=95) if form in ("jpeg", "webp") else {}))
    assert out.shape == FLOWER.shape and out.flags.c_contiguous
    assert np.abs(out.astype(int) - FLOWER).mean() < 6, orientation


def test_exif_is_found_behind_other_segments():
  exif = Image.Exif()
  exif[0x0112] = 6
  turned, text = encoded(FLOWER, "jpeg", exif=exif), b"\xff\xda" + 9000 * b"-"
  # A start of scan inside a segment is no end of the header; nor does padding hide what follows.
  behind = turned[:2] + b"\xff\xfe" + (2 + len(text)).to_bytes(2, "big") + text + b"\xff\xff" + turned[2:]
  np.testing.assert_array_equal(images.decode(behind), images.decode(turned))


def test_broken_exif_does_not_touch_the_picture():
  exif = Image.Exif()
  exif[0x0112] = 6
  data = bytearray(encoded(FLOWER, "jpeg", exif=exif))
  place = data.find(b"Exif\0\0") + 6
  data[place : place + 12] = b"\xff" * 12
  assert images.decode(bytes(data)).shape == FLOWER.shape


@pytest.mark.parametrize("data", [b"hello", b"\xff\xd8\xff broken", b"\x89PNG\r\n\x1a\n", b"\0" * 99, b"%!PS-Adobe"])
def test_what_is_no_image_is_bad(data):
  assert bad(b"") == "empty image"
  assert "not a readable image" in bad(data)


@pytest.mark.parametrize(("form", "options"), [
  ("jpeg", {}), ("jpeg", dict(progressive=True)), ("jpeg", dict(restart_marker_blocks=8)), ("png", {}), ("webp", {}),
  ("gif", {}),
])  # fmt: skip
def test_truncated_images_are_bad(form, options):
  data = encoded(FLOWER, form, **options)
  for length in (3, 40, len(data) // 4, len(data) // 2, len(data) - 40, len(data) - 2 * (form == "jpeg")):
    if length < len(data):
      assert "readable image" in bad(data[:length])


def test_bit_flips_are_bad_or_a_whole_picture():
  """A flip may hit what no decoder can check, but nothing else than BadRecord is ever raised."""
  random = np.random.default_rng(0)
  for form, share in (("png", 0.95), ("jpeg", 0.1), ("webp", 0.0), ("gif", 0.0), ("tiff", 0.0)):
    data, refused = encoded(FLOWER[:64, :64], form), 0
    for _ in range(60):
      flipped = bytearray(data)
      for place in random.integers(0, len(data), 3):
        flipped[place] ^= 1 << random.integers(8)
      try:
        out = images.decode(bytes(flipped), dict(pixels=2**20, bytes=2**20))
        assert out.ndim == 3 and out.dtype == np.uint8
      except BadRecord:
        refused += 1
    assert refused >= share * 60, form


def test_stray_bytes_before_the_end_marker_are_no_damage():
  data = encoded(FLOWER, "jpeg")
  assert images.decode(data[:-2] + b"abc" + data[-2:]).shape == FLOWER.shape
  assert "extraneous" in bad(data[:-2] + b"abc" * 9 + data[-2:])


def png_header(width, height):
  def chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

  header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
  return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")


def jpeg_header(width, height):
  data = bytearray(encoded(Image.new("RGB", (8, 8)), "jpeg"))
  place = data.find(b"\xff\xc0") + 5
  data[place : place + 4] = struct.pack(">HH", height, width)
  return bytes(data)


def test_bombs_are_refused_before_they_take_memory_and_nothing_is_printed():
  """In a process of its own with 1 GiB of memory more than it has: 50,000 x 50,000 x 3 would be 7."""
  program = (
    "import resource, sys; from mmcontrast.data import images; from mmcontrast.data.record import BadRecord\n"
    "pages = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
    "resource.setrlimit(resource.RLIMIT_AS, (pages + 2**30, -1))\n"
    "for data in (PNG, JPEG, LARGE, TORN, WARNED):\n"
    "  try: images.decode(data)\n"
    "  except BadRecord as error: print(error)\n"
  )
  contents = {
    "PNG": png_header(50_000, 50_000), "JPEG": jpeg_header(50_000, 50_000),
    "LARGE": png_header(10_000, 9_000),  # where Pillow only warns
    "TORN": encoded(FLOWER, "jpeg")[:5000],
    "WARNED": encoded(FLOWER[:8, :8], "tiff").replace(b"\x01\x01\x04\0\x01\0\0\0", b"\x01\x01\x04\0\xff\xff\0\0"),
  }  # fmt: skip
  for name, data in contents.items():
    program = program.replace(name, repr(data))
  result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
  assert result.stderr == "" and result.returncode == 0
  lines = result.stdout.splitlines()
  assert len(lines) == 5 and all("over data.limits.pixels" in line for line in lines[:3])


def test_limits_on_pixels_and_bytes():
  for form in ("jpeg", "png"):
    data = encoded(FLOWER, form)
    pixels = FLOWER.shape[0] * FLOWER.shape[1]
    exact = dict(pixels=pixels, bytes=len(data))
    assert images.decode(data, exact).shape == FLOWER.shape
    assert f"320 x 214 pixels, over data.limits.pixels={pixels - 1}" in bad(data, {**exact, "pixels": pixels - 1})
    assert f"{len(data)} bytes, over data.limits.bytes={len(data) - 1}" in bad(data, {**exact, "bytes": len(data) - 1})


def test_thin_images():
  for shape in ((1, 10_000, 3), (10_000, 1, 3)):
    for form in ("jpeg", "png"):
      assert images.decode(encoded(np.full(shape, 9, np.uint8), form)).shape == shape


def test_the_fast_resize_is_pillows_to_within_one_level():
  photograph, random = load_sample_image("china.jpg"), np.random.default_rng(0)
  height, width, _ = photograph.shape
  for size, least in ((224, 0.3), (32, 0.02), (96, 0.9), (400, 0.05)):  # smaller and larger than the box
    for _ in range(4):
      left, right = sorted(random.uniform(0, width, 2))
      top, bottom = sorted(random.uniform(0, height, 2))
      box = (left, top, max(right, left + least), max(bottom, top + least))
      box = (*box[:2], min(box[2], width), min(box[3], height))
      fast, slow = (how(photograph, size, box) for how in (images.resize, images.pillow_resize))
      assert fast.shape == slow.shape == (size, size, 3)
      assert np.abs(fast.astype(int) - slow).max() <= 1, (size, box)


def test_without_the_fast_resize_pillow_does_it(monkeypatch):
  monkeypatch.setattr(images, "cykooz_resizer", None)
  box = (3.5, 4.25, 200.0, 180.5)
  assert (images.resize(FLOWER, 64, box) == images.pillow_resize(FLOWER, 64, box)).all()
