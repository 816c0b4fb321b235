"""Clips of 8 frames of 224 px a second: ours beside decord's, on one video that is made here, in turns in one run.

    pip install decord                  # into any environment; without it only ours is timed
    python benchmarks/video_input.py --seconds 20 --rounds 5

Both read frames at the same random evenly spaced places of a 10 s H.264 video of 340 x 256 px (a key frame every 2 s),
by one thread, and make 224 px squares of them: ours as training does (a random crop), decord's by its own resize, which
is what it does fastest. Each round times both, one after the other; printed are each side's median and the ratio.
"""

from __future__ import annotations

import argparse
import io
import platform
import statistics
import tempfile
import time

import av
import numpy as np

from mmcontrast.data import transforms
from mmcontrast.modalities.video_reading import decode_frames, open_clip
from mmcontrast.modalities.video_sampling import frame_indices

FRAMES, SIZE = 8, 224


def made(seconds: int = 10, rate: int = 30, width: int = 340, height: int = 256) -> bytes:
  """An MP4 of moving bars and noise."""
  random, file = np.random.default_rng(0), io.BytesIO()
  texture = random.integers(0, 256, (height, 2 * width, 3), np.uint8)
  with av.open(file, "w", format="mp4") as container:
    stream = container.add_stream("libx264", rate=rate)
    stream.width, stream.height, stream.pix_fmt, stream.gop_size = width, height, "yuv420p", 2 * rate
    for number in range(seconds * rate):
      left = number % width
      picture = texture[:, left : left + width].copy()
      picture[40:120, (3 * number) % (width - 60) : (3 * number) % (width - 60) + 60] = number % 256
      container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
    container.mux(stream.encode())
  return file.getvalue()


def ours(data: bytes, draws: np.ndarray) -> np.ndarray:
  clip = open_clip(data)
  frames = decode_frames(clip, frame_indices(clip.count, FRAMES, draws, "uniform"), SIZE * 2)
  return np.stack([transforms.random_crop(frame, SIZE, draws[:8], transforms.CROP) for frame in frames])


def decords(path: str, draws: np.ndarray) -> np.ndarray:
  import decord

  reader = decord.VideoReader(path, width=SIZE, height=SIZE, num_threads=1)
  return reader.get_batch(frame_indices(len(reader), FRAMES, draws, "uniform")).asnumpy()


def rate(read, source, seconds: float) -> float:
  """Clips a second."""
  random, count, start = np.random.default_rng(1), 0, time.perf_counter()
  while time.perf_counter() - start < seconds:
    assert read(source, random.random(FRAMES)).shape == (FRAMES, SIZE, SIZE, 3)
    count += 1
  return count / (time.perf_counter() - start)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--seconds", type=float, default=10.0, help="of each side in each round")
  parser.add_argument("--rounds", type=int, default=5)
  options = parser.parse_args()
  data = made()
  sides = {"mmcontrast": (ours, data)}
  with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
    file.write(data)
    file.flush()
    try:
      import decord

      sides[f"decord {decord.__version__}"] = (decords, file.name)
    except ImportError:
      print("decord is not installed: only ours is timed")
    found = {name: [] for name in sides}
    for _ in range(options.rounds):
      for name, (read, source) in sides.items():
        found[name].append(rate(read, source, options.seconds))
  print(f"{platform.processor() or platform.machine()}, PyAV {av.__version__}, {len(data) / 1024:.0f} KiB of video")
  medians = {name: statistics.median(rates) for name, rates in found.items()}
  for name, median in medians.items():
    print(f"{name:20} {median:8.2f} clips/s  ({min(found[name]):.2f} to {max(found[name]):.2f})")
  if len(medians) == 2:
    first, second = medians.values()
    print(f"ratio {first / second:.2f}")


if __name__ == "__main__":
  main()
