"""Counts the padding of images that keep their ratio: each in a row, as config.data.native makes batches, and several
packed into one row (Patch n' Pack, arXiv:2307.06304). Nothing is timed, so it is the same on any machine.

    python benchmarks/native_padding.py

Images have ratios from 1:3 to 3:1. Packing is first fit, the longest image first, which no order of arrival beats by
much. Scores are what attention computes: the square of a row's length, of which a mask leaves out all but the blocks of
images.
"""

from __future__ import annotations

import numpy as np

from mmcontrast.data.native import grid_of

IMAGES, SIDE, PATCH = 1001, 480, 16
PATCHES = (128, 256, 576, 784, 1024)  # of methods/siglip2_naflex
ROWS = (1, 2, 4, 16)  # lengths of packed rows, in budgets


def lengths(most: int) -> np.ndarray:
  """[IMAGES]: the patches of each image where it may have so many."""
  ratios = np.exp(np.linspace(-np.log(3), np.log(3), IMAGES))
  return np.array([np.prod(grid_of(SIDE, SIDE * ratio, PATCH, most)) for ratio in ratios])


def packed_rows(images: np.ndarray, length: int) -> int:
  """How many rows of `length` hold the images, by first fit, the longest first."""
  free: list[int] = []
  for size in sorted(images, reverse=True):
    at = next((number for number, left in enumerate(free) if left >= size), None)
    if at is None:
      free.append(length - size)
    else:
      free[at] -= size
  return len(free)


def show(name: str, images: np.ndarray, rows: int, length: int, plain: int) -> None:
  padding, scores = 1 - images.sum() / (rows * length), rows * length**2 / plain
  print(f"{name:<34}{rows:>6} rows of {length:>6}: padding {100 * padding:5.1f} %, scores x {scores:.2f}")


def main() -> None:
  every = {most: lengths(most) for most in PATCHES}
  for most, images in every.items():
    plain = IMAGES * most**2
    show(f"{most} patches, one in a row", images, IMAGES, most, plain)
    for times in ROWS[1:]:
      show(f"{most} patches, packed", images, packed_rows(images, times * most), times * most, plain)
  images = np.concatenate(list(every.values()))
  plain = sum(IMAGES * most**2 for most in PATCHES)
  tokens = sum(IMAGES * most for most in PATCHES)
  padding = 1 - images.sum() / tokens
  print(f"\nas many of each number of patches: in buckets, padding {100 * padding:.1f} %, scores x 1.00")
  show("all padded to the largest", images, len(images), PATCHES[-1], plain)
  for times in ROWS:
    length = times * PATCHES[-1]
    show("all packed", images, packed_rows(images, length), length, plain)


if __name__ == "__main__":
  main()
