"""A source of made-up examples, into which faults can be put, and batches of it."""

import io

import numpy as np
from PIL import Image

from mmcontrast.data import pipeline, sources

BATCH = 48


class Toy:
  """N examples of one flat colour and two captions each; `broken` maps index -> record fields."""

  def __init__(self, count, broken=None):
    self.info = sources.Info("toy", ("a", "b"), ("even",), {"parity": ("even", "odd")})
    self._count, self._broken = count, broken or {}

  def __len__(self):
    return self._count

  def __getitem__(self, index):
    buffer = io.BytesIO()
    Image.new("RGB", (12, 12), (index % 256, index // 256, 0)).save(buffer, "png")
    record = {
      "images": {"a": buffer.getvalue(), "b": buffer.getvalue()},
      "captions": {"caption": [f"number {index}", f"the {index} th"]},
      "tags": np.array([index % 2 == 0], np.uint8),
      "labels": {"parity": index % 2},
      "id": 10 * index,
      "name": f"toy-{index}",
      "mirror_safe": True,
    }
    return {**record, **self._broken.get(index, {})}


def take(count, config, source, batch_size=BATCH, seed=3, **options):
  options |= dict(seed=seed, batch_size=batch_size, source=source)
  iterator = pipeline.train_batches(config, **options)
  try:
    return [next(iterator) for _ in range(count)], iterator
  finally:
    iterator.close()
