"""Clips of 8 frames of 224 px a second: ours beside decord's, on videos that are made here, in turns in one run.

    pip install decord                  # into any environment; without it only ours is timed
    taskset -c 1 python benchmarks/video_input.py --seconds 5 --rounds 5 --out docs/results/video_input.json

Both read frames at the same random evenly spaced places of an H.264 video, by one thread, and make 224 px squares of
them: ours as training does (a random crop), decord's by its own resize, which is what it does fastest. Each round times
both, one after the other. Rates are of wall time, and of processor time, which another process on the machine does not
change; the ratio is of the medians of the latter.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import statistics
import tempfile
import time

import av
import numpy as np
from PIL import Image
from record import record

from mmcontrast.data import transforms
from mmcontrast.modalities.video_reading import decode_frames, open_clip
from mmcontrast.modalities.video_sampling import frame_indices

FRAMES, SIZE = 8, 224
# What is in it, width, height, seconds, options of the encoder; 30 frames a second, a key frame every 2 s.
VIDEOS = {
  "340 x 256, 10 s, noise": (1, 340, 256, 10, {}),
  "340 x 256, 10 s": (16, 340, 256, 10, {}),
  "340 x 256, 10 s, without B frames": (16, 340, 256, 10, {"bf": "0"}),
  "340 x 256, 2 s": (16, 340, 256, 2, {}),
  "1280 x 720, 4 s": (16, 1280, 720, 4, {}),
  "1280 x 720, 4 s, without B frames": (16, 1280, 720, 4, {"bf": "0"}),
}


def made(cell: int, width: int, height: int, seconds: int, options: dict[str, str], rate: int = 30) -> bytes:
  """An MP4 of a moving texture of cells of so many pixels, with a bar before it."""
  random, file = np.random.default_rng(0), io.BytesIO()
  cells = random.integers(0, 256, (max(height // cell, 1), max(2 * width // cell, 1), 3), np.uint8)
  texture = np.asarray(Image.fromarray(cells).resize((2 * width, height), Image.Resampling.BICUBIC))
  with av.open(file, "w", format="mp4") as container:
    stream = container.add_stream("libx264", rate=rate)
    stream.width, stream.height, stream.pix_fmt, stream.gop_size = width, height, "yuv420p", 2 * rate
    stream.options = {"threads": "1", **options}
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


def rates(read, source, seconds: float) -> tuple[float, float]:
  """Clips a second of wall time, and of processor time."""
  random, count, start, busy = np.random.default_rng(1), 0, time.perf_counter(), time.process_time()
  while time.perf_counter() - start < seconds or count < 3:
    assert read(source, random.random(FRAMES)).shape == (FRAMES, SIZE, SIZE, 3)
    count += 1
  return count / (time.perf_counter() - start), count / (time.process_time() - busy)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--seconds", type=float, default=10.0, help="of each side in each round")
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--out", help="write the JSON here")
  options = parser.parse_args()
  beside = importlib.util.find_spec("decord") is not None
  if not beside:
    print("decord is not installed: only ours is timed")
  rows = []
  for name, how in VIDEOS.items():
    data = made(*how)
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
      file.write(data)
      file.flush()
      sides = {"mmcontrast": (ours, data), **({"decord": (decords, file.name)} if beside else {})}
      found = {side: [] for side in sides}
      for _ in range(options.rounds):
        for side, (read, source) in sides.items():
          found[side].append(rates(read, source, options.seconds))
    row = {"video": name, "KiB": len(data) // 1024}
    for side, measured in found.items():
      wall, busy = zip(*measured)
      row |= {f"{side} clips/s": statistics.median(wall), f"{side} clips/CPU s": statistics.median(busy)}
      row |= {f"{side} least": min(busy), f"{side} most": max(busy)}
    if beside:
      row["ratio"] = row["mmcontrast clips/CPU s"] / row["decord clips/CPU s"]
    rows.append(row)
  record(rows, options.out)


if __name__ == "__main__":
  main()
