"""What is no part of a picture does not make it bad; damage to the picture does. Pixels are those of the clean file."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from mmcontrast.data import images
from mmcontrast.data.image_parts import jpeg_segments, picture_only
from mmcontrast.data.sources import BadRecord

FLOWER = load_sample_image("flower.jpg")[::5, ::5]
TURNED = Image.Exif()
TURNED[0x0112] = 6
FF = b"\xff" * 40


def encoded(form, **options):
  buffer = io.BytesIO()
  Image.fromarray(FLOWER).save(buffer, form, **options)
  return buffer.getvalue()


def pillow(data):
  """The pixels that Pillow shows of a clean file, upright."""
  image = Image.open(io.BytesIO(data))
  turn = {6: Image.Transpose.ROTATE_270}.get(image.getexif().get(0x0112))
  image = image.convert("RGB")
  return np.asarray(image.transpose(turn) if turn else image)


def same(data, clean):
  """Decoded, encoded from a Pillow image and by its header alone, `data` is as `clean`."""
  found = images.decode(data)
  if clean[:2] == b"\xff\xd8":
    np.testing.assert_array_equal(found, images.decode(clean))
    assert np.abs(found.astype(int) - pillow(clean)).max() <= 4
  else:
    np.testing.assert_array_equal(found, pillow(clean))
  assert images.header(data) == images.header(clean)
  try:
    image = Image.open(io.BytesIO(data))
  except Exception:  # so that nobody can hold such an image
    return
  assert np.abs(images.pixels_of(image).astype(int) - found).max() <= 4


def chunk(kind, body, crc=None):
  crc = zlib.crc32(kind + body) if crc is None else crc
  return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)


PNG = encoded("png")
PNG_TURNED = encoded("png", exif=TURNED)
BROKEN_CHUNKS = {
  "exif of FF": chunk(b"eXIf", FF),
  "exif that ends early": chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\x09"),
  "text with a wrong checksum": chunk(b"tEXt", b"Title\0a dog", crc=1),
  "profile with a wrong checksum": chunk(b"iCCP", b"icc\0\0" + zlib.compress(b"x"), crc=1),
  "profile of an unknown method": chunk(b"iCCP", b"icc\0\x07" + FF),
  "profile that is no zlib": chunk(b"iCCP", b"icc\0\0" + FF),
  "text of an unknown method": chunk(b"zTXt", b"Title\0\x07" + FF),
  "text too large": chunk(b"zTXt", b"Title\0\0" + zlib.compress(b"x" * 2**26)),
  "international text that is no UTF-8": chunk(b"iTXt", b"Title\0\0\0en\0\0" + FF),
  "international text without its parts": chunk(b"iTXt", b"Title"),
  "broken XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\x01\0\0\0" + FF),
  "short resolution": chunk(b"pHYs", b"\0"),
  "short gamma": chunk(b"gAMA", b"\0"),
  "short colours": chunk(b"cHRM", b"\0" * 5),
  "short intent": chunk(b"sRGB", b""),
  "profile in text": chunk(b"tEXt", b"Raw profile type exif\0no hexadecimals\n\n\nzz"),
  "animation of no frames": chunk(b"acTL", b"\0" * 8) + chunk(b"fcTL", b"\0"),
  "length too long": struct.pack(">I", 2**30) + b"tEXt" + b"Title\0a dog" + b"\0" * 4,
  "length too short": struct.pack(">I", 3) + b"tEXt" + b"Title\0a dog" + b"\0" * 4,
}  # fmt: skip


@pytest.mark.parametrize(
  "broken, clean",
  [
    *(pytest.param(broken, PNG, id=broken) for broken in BROKEN_CHUNKS),
    # Of two chunks of EXIF the last one counts.
    *(pytest.param(broken, PNG_TURNED, id=f"turned, {broken}") for broken in BROKEN_CHUNKS if "exif" not in broken),
  ],
)
def test_png_with_a_broken_chunk(broken, clean):
  start, end = 33, clean.index(b"IEND") - 4  # after the header, or after the picture
  same(clean[:start] + BROKEN_CHUNKS[broken] + clean[start:], clean)
  if "length" not in broken:
    same(clean[:end] + BROKEN_CHUNKS[broken] + clean[end:], clean)


def test_png_with_bytes_after_its_end():
  same(PNG + b"trailing" * 99, PNG)


@pytest.mark.parametrize("mode", ["P", "RGBA", "LA"])
def test_png_keeps_palette_and_transparency(mode):
  image = Image.fromarray(FLOWER).convert("RGBA")
  image.putalpha(Image.fromarray(FLOWER[..., 0]))
  image = image.quantize(64) if mode == "P" else image.convert(mode)
  buffer = io.BytesIO()
  image.save(buffer, "png", **dict(transparency=3) if mode == "P" else {})
  clean = buffer.getvalue()
  broken = clean[:33] + BROKEN_CHUNKS["text with a wrong checksum"] + clean[33:]
  np.testing.assert_array_equal(images.decode(broken), images.decode(clean))


WEBP = {"lossy": dict(quality=80), "lossless": dict(lossless=True), "turned": dict(exif=TURNED),
        "extended": dict(xmp=b"<x/>", icc_profile=b"x" * 128, exif=TURNED)}  # fmt: skip


@pytest.mark.parametrize("kind", WEBP)
def test_webp_with_broken_metadata(kind):
  clean = encoded("webp", **WEBP[kind])
  turned = b"EXIF" in clean

  def with_size(size, name=b"EXIF"):
    at = clean.index(name)
    return clean[: at + 4] + struct.pack("<I", size) + clean[at + 8 :]

  if turned:
    at = clean.index(b"EXIF")
    upright = np.rot90(images.decode(clean))
    broken = [clean[: at + 8] + FF[: len(clean) - at - 8] + clean[at + 8 + 40 :], with_size(2**20), clean[:-3]]
    for data in broken[: 3 if kind == "turned" else 2]:
      np.testing.assert_array_equal(images.decode(data), upright)
  same(clean + b"trailing" * 9, clean)
  same(clean[:4] + struct.pack("<I", len(clean) + 99) + clean[8:], clean)
  if kind == "extended":
    same(with_size(2**20, b"XMP "), clean)
    same(with_size(2**20, b"ICCP"), clean)
    same(clean.replace(b"x" * 128, b"\0" * 128), clean)


JPEG = encoded("jpeg", quality=92)
JPEG_TURNED = encoded("jpeg", quality=92, exif=TURNED, icc_profile=b"x" * 300, comment=b"a dog")


def places(data):
  """Where a segment of a JPEG begins, but for the first."""
  return [start for _, start, _ in jpeg_segments(data)][1:]


@pytest.mark.parametrize("stray", [b"\0", b"x", b"\n\n", b"\xff\xff\xff", b"\xff\0", b"a stray sentence of text"])
@pytest.mark.parametrize("clean", [JPEG, JPEG_TURNED], ids=["plain", "turned"])
def test_jpeg_with_stray_bytes_between_its_segments(stray, clean):
  for place in (2, *places(clean)):
    same(clean[:place] + stray + clean[place:], clean)


def test_jpeg_with_a_small_picture_in_its_exif():
  small = io.BytesIO()
  Image.new("RGB", (16, 16), (9, 9, 200)).save(small, "jpeg")
  body = b"Exif\0\0MM\0*" + FF + small.getvalue()
  segment = b"\xff\xe1" + struct.pack(">H", 2 + len(body)) + body
  same(JPEG[:20] + segment + b"x" + JPEG[20:], JPEG)
  short = b"\xff\xe1" + struct.pack(">H", 20) + body  # its length is wrong: the small picture must not be taken for it
  with contextlib.suppress(BadRecord):
    assert images.decode(JPEG[:20] + short + JPEG[20:]).shape == FLOWER.shape


@pytest.mark.parametrize("segment", [
  b"\xff\xe2" + struct.pack(">H", 60) + b"MPF\0" + b"\xff" * 54,
  b"\xff\xe2" + struct.pack(">H", 30) + b"ICC_PROFILE\0\x09" + b"\x01" * 15,
  b"\xff\xed" + struct.pack(">H", 30) + b"Photoshop 3.0\0" + b"8BIM" + FF[:10],
  b"\xff\xfe" + struct.pack(">H", 42) + FF,
  b"\xff\xe1" + struct.pack(">H", 48) + b"Exif\0\0" + FF,
  b"\xff\xe1" + struct.pack(">H", 42) + b"http://ns.adobe.com/xap/1.0/\0" + FF[:11],
  b"\xff\xe0" + struct.pack(">H", 4) + b"JF", b"\xff\xee" + struct.pack(">H", 4) + b"Ad",
  b"\xff\xe0" + struct.pack(">H", 7) + b"JFIF\0", b"\xff\xee" + struct.pack(">H", 7) + b"Adobe",
], ids=["MPF", "ICC", "Photoshop", "comment", "EXIF", "XMP", "JFIF", "Adobe", "short JFIF", "short Adobe"])  # fmt: skip
def test_jpeg_with_a_broken_segment(segment):
  same(JPEG[:20] + segment + JPEG[20:], JPEG)
  same(JPEG[:20] + segment + b"x" + JPEG[20:], JPEG)


def test_jpeg_with_other_files_after_its_end():
  buffer = io.BytesIO()
  Image.fromarray(FLOWER).save(buffer, "mpo", save_all=True, append_images=[Image.new("RGB", (9, 9))], quality=92)
  same(JPEG + b"trailing" * 99, JPEG)
  same(JPEG + JPEG, JPEG)
  np.testing.assert_array_equal(images.decode(buffer.getvalue()), images.decode(JPEG))


def test_cmyk_jpeg_with_stray_bytes():
  buffer = io.BytesIO()
  Image.fromarray(FLOWER).convert("CMYK").save(buffer, "jpeg")
  clean = buffer.getvalue()
  for place in places(clean):
    np.testing.assert_array_equal(images.decode(clean[:place] + b"x" + clean[place:]), images.decode(clean))


def test_gif_with_a_broken_comment():
  clean = encoded("gif", comment=b"a dog")
  at = clean.index(b"!\xfe")
  for comment in (b"!\xfe\x05\xff\xff\xff\xff\xff\0", b"!\xfe\x02a dog, red; and! more\0", b"!\xfe\xf0a dog", b"!\xfe",
                  b"!\xff\x0bNETSCAPE2.0\x01", b"!\x77\x05hello\0", b"trailing, bytes; here"):  # fmt: skip
    same(clean[:at] + comment + clean[at:], clean)
  same(clean + b"trailing" * 9, clean)


@pytest.mark.parametrize(
  "options", [dict(), dict(compression="tiff_lzw"), dict(compression="jpeg"), dict(big_tiff=True)], ids=str
)
def test_tiff_with_broken_tags(options):
  exif = Image.Exif()
  exif[0x010E], exif[0x0112] = "a description", 6
  exif.get_ifd(0x8769)[0x9286] = b"a comment"
  clean = encoded("tiff", exif=exif, icc_profile=b"x" * 200, **options)
  order = "<" if clean[:2] == b"II" else ">"
  big = clean[2:4] in (b"+\0", b"\0+")
  (directory,) = struct.unpack_from(order + ("Q" if big else "I"), clean, 8 if big else 4)
  (count,) = struct.unpack_from(order + ("Q" if big else "H"), clean, directory)
  start, step = directory + (8 if big else 2), 20 if big else 12
  broken_tags = 0
  for place in range(start, start + step * count, step):
    (tag,) = struct.unpack_from(order + "H", clean, place)
    if tag in (0x8769, 0x8773, 0x010E, 0x9286):
      broken_tags += 1
      for value in (b"\xff" * (step - 4), struct.pack(order + "Q", 2**31)[: step - 4], b"\0" * (step - 4)):
        data = clean[: place + 4] + value.ljust(step - 4, b"\xff") + clean[place + step :]
        np.testing.assert_array_equal(images.decode(data), images.decode(clean))
  assert broken_tags >= 2
  assert images.decode(clean).shape == FLOWER.swapaxes(0, 1).shape
  np.testing.assert_array_equal(images.decode(picture_only(clean)), images.decode(clean))


def test_avif_with_broken_exif():
  clean, plain = encoded("avif", exif=b"Exif\0\0MM\0*" + FF), encoded("avif")
  np.testing.assert_array_equal(images.decode(clean), images.decode(plain))


@pytest.mark.parametrize("form", ["png", "jpeg", "webp", "gif", "tiff", "bmp", "avif"])
def test_the_picture_alone_is_the_picture(form):
  clean = encoded(form)
  part = picture_only(clean)
  assert (part is None) == (form == "bmp")
  np.testing.assert_array_equal(images.decode(part or clean), images.decode(clean))
  for length in range(0, min(len(clean), 400), 7):  # whatever the bytes are, nothing is raised
    picture_only(clean[:length])
    picture_only(clean[:length] + FF + clean[length:])


def test_damage_to_the_picture_stays_bad():
  zero = bytes(20)
  cut = {
    "png": [PNG[: len(PNG) // 2], PNG[:60] + zero + PNG[80:], PNG.replace(b"IHDR", b"IHDX")],
    "jpeg": [JPEG[: len(JPEG) // 2], JPEG.replace(b"\xff\xdb", b"\xff\xe5"), JPEG[:-2]],
    "webp": [(lossy := encoded("webp"))[: len(lossy) // 2], lossy[:20] + zero + lossy[40:]],
    "gif": [(gif := encoded("gif"))[: len(gif) // 2]],
    "tiff": [(tiff := encoded("tiff"))[: len(tiff) // 2]],
  }
  at = PNG.index(b"IDAT") - 4
  transparent = PNG[:at] + chunk(b"tRNS", b"\0\x01\0\x02\0\x03", crc=1) + PNG[at:]  # it is of the picture
  middle = JPEG[: len(JPEG) // 2] + b"\xff\xd9" + JPEG[len(JPEG) // 2 :]
  for data in [*(one for many in cut.values() for one in many), transparent, middle]:
    with pytest.raises(BadRecord, match="not a readable image"):
      images.decode(data)
    with contextlib.suppress(BadRecord, OSError, SyntaxError):  # no other error: Pillow may show a part
      images.pixels_of(Image.open(io.BytesIO(data)))


def test_a_pillow_image_that_was_closed_is_bad_and_no_traceback():
  image = Image.open(io.BytesIO(PNG))
  image.close()
  with pytest.raises(BadRecord, match="not a readable image"):
    images.pixels_of(image)
