"""Videos made for tests: frame number n is of the colour (5 n, 0, 255 - 5 n)."""

import io

import av
import numpy as np
from PIL import Image

SIDE = 32


def frame(number: int, side: int = SIDE) -> np.ndarray:
  made = np.zeros((side, side, 3), np.uint8)
  made[..., 0], made[..., 2] = 5 * number, 255 - 5 * number
  return made


def ffmpeg(count=40, format="mp4", codec="libx264", stamps=None, side=SIDE, options=()) -> bytes:
  """A video with a key frame every ten frames; `stamps`: when each is shown, in 1/25 s."""
  file = io.BytesIO()
  with av.open(file, "w", format=format) as container:
    stream = container.add_stream(codec, rate=25)
    stream.width = stream.height = side
    stream.pix_fmt, stream.gop_size, stream.options = (
      "yuv420p",
      10,
      {"bf": "2", "crf": "1"} if codec == "libx264" else dict(options),
    )
    for number in range(count):
      picture = av.VideoFrame.from_ndarray(frame(number, side), format="rgb24")
      picture.pts = number if stamps is None else stamps[number]
      container.mux(stream.encode(picture))
    container.mux(stream.encode())
  return file.getvalue()


def animation(format: str, count=12, milliseconds=100) -> bytes:
  """A GIF, or an animated WebP; `milliseconds`: of each frame, one number or a list."""
  pictures = [Image.fromarray(frame(number)) for number in range(count)]
  lossless = {"lossless": True} if format == "WEBP" else {}
  file = io.BytesIO()
  pictures[0].save(file, format, save_all=True, append_images=pictures[1:], duration=milliseconds, **lossless)
  return file.getvalue()


def rotated(data: bytes) -> bytes:
  """An MP4 that asks to be shown turned by a quarter, clockwise, as phones write it."""
  matrix = b"".join(value.to_bytes(4, "big", signed=True) for value in (0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30))
  at = data.index(b"tkhd") + 4 + 40
  return data[:at] + matrix + data[at + 36 :]


def numbers_of(frames) -> list[int]:
  """The numbers of frames, by their colour."""
  return [round(float(picture[..., 0].mean()) / 5) for picture in frames]
