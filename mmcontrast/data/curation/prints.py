"""Prints of records: numbers that are equal for equal things, or near for pictures that look alike."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from mmcontrast.data.record import BadRecord

_SIDE, _LOW = 32, 8  # pixels a side that are transformed, and frequencies that are compared


def exact_print(things: Mapping[str, bytes] | Sequence[str]) -> np.ndarray:
  """uint64 [2]: equal for the same images (their bytes) under the same keys, or the same texts in any order.

  128 bits of BLAKE2b: two different ones of a thousand million share one with probability 1e-21.
  """
  items = sorted(things.items()) if isinstance(things, Mapping) else [("", text) for text in sorted(things)]
  digest = hashlib.blake2b(digest_size=16)
  for key, value in items:
    if isinstance(value, str):
      value = value.encode(errors="surrogatepass")
    data = value if isinstance(value, bytes) else np.ascontiguousarray(value).tobytes()
    digest.update(f"{key}\0{len(data)}\0".encode())
    digest.update(data)
  return np.frombuffer(digest.digest(), "<u8").copy()


def perceptual_print(pixels: np.ndarray) -> int:
  """64 bits of the low frequencies of a picture, uint8 [H, W, 3], which survive another size, format or quality.

  pHash: the picture in grey at 32 x 32, its discrete cosine transform, the lowest 8 x 8; bit k is whether number k is
  above their median. As `imagehash.phash` of the package ImageHash, highest bit first, but for flat
  pictures: black ones have one print, all others another.
  """
  grey = np.asarray(Image.fromarray(pixels).convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS), np.float64)
  low = np.round(_cosines() @ grey @ _cosines().T, 6)  # of a flat picture all but the first are 0, not nearly
  bits = (low > np.median(low)).ravel()
  return int(np.packbits(bits).view(">u8")[0])


def perceptual_print_of_file(data: bytes) -> int:
  """As `perceptual_print`, of an encoded image on white. Raises BadRecord."""
  from mmcontrast.data.images import decode

  try:
    return perceptual_print(decode(data))
  except (OSError, Image.DecompressionBombError) as error:
    raise BadRecord(f"not a readable image ({error})") from None


@functools.cache
def _cosines() -> np.ndarray:
  """float64 [8, 32]: the lowest frequencies of the discrete cosine transform II, unscaled."""
  frequency, place = np.arange(_LOW)[:, None], np.arange(_SIDE)[None]
  return 2 * np.cos(np.pi * frequency * (2 * place + 1) / (2 * _SIDE))


def same_as_before(prints: np.ndarray) -> np.ndarray:
  """bool [N]: whether a row of integers [N, ...] equals one before it."""
  prints = np.ascontiguousarray(prints).reshape(len(prints), -1)
  whole = prints.view([("", prints.dtype)] * prints.shape[1]).ravel()
  _, first = np.unique(whole, return_index=True)
  again = np.ones(len(prints), bool)
  again[first] = False
  return again


def near_in_bits(prints: np.ndarray, bits: int) -> np.ndarray:
  """int64 [P, 2]: all pairs (earlier, later) of uint64 [N] that differ in at most `bits` bits.

  Of bits + 1 bands of a print two such have one in common (the pigeonhole principle), so only those that share a band
  are compared (Norouzi et al., arXiv 1307.2982).
  """
  prints = np.asarray(prints, np.uint64)
  edges = np.linspace(0, 64, bits + 2).astype(int)
  found = [np.zeros((0, 2), np.int64)]
  for low, high in itertools.pairwise(edges):
    band = (prints >> np.uint64(low)) & np.uint64(2 ** int(high - low) - 1)
    order = np.argsort(band, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(band[order]) != 0])
    for members in np.split(order, starts[1:]):
      found += _near_among(prints, members, bits) if len(members) > 1 else []
  return np.unique(np.concatenate(found), axis=0)


def _near_among(prints: np.ndarray, members: np.ndarray, bits: int, rows: int = 1024) -> list[np.ndarray]:
  """The pairs among `members`, ascending numbers of prints."""
  found = []
  for start in range(0, len(members), rows):
    part = members[start : start + rows]
    apart = np.bitwise_count(prints[part][:, None] ^ prints[members[start:]][None])
    first, second = np.nonzero(apart <= bits)
    later = second > first
    found.append(np.stack([part[first[later]], members[start:][second[later]]], 1))
  return found


def like_an_earlier(records: np.ndarray, things: np.ndarray, pairs: np.ndarray, count: int) -> np.ndarray:
  """bool [N]: which of `count` records are left out when each that has a thing like one of an earlier record that is
  kept is left out. So each that is left out is like one that is kept.

  Args:
    records: int [R], ascending: the record of each of R rows.
    things: int [R]: what each row is; equal rows are one thing.
    pairs: int [P, 2]: things that are alike.
  """
  size = int(max(things.max(initial=-1), pairs.max(initial=-1))) + 1
  both = np.concatenate([pairs, pairs[:, ::-1]])
  near = both[np.argsort(both[:, 0], kind="stable"), 1]
  ends = np.cumsum(np.bincount(both[:, 0], minlength=size))
  starts = ends - np.bincount(both[:, 0], minlength=size)
  matters = (ends > starts) | (np.bincount(things, minlength=size) > 1)
  rows = np.flatnonzero(matters[things])
  out, covered = np.zeros(count, bool), np.zeros(size, bool)
  numbers, first = np.unique(records[rows], return_index=True)
  for number, its in zip(numbers.tolist(), np.split(things[rows], first[1:])):
    if covered[its].any():
      out[number] = True
      continue
    covered[its] = True
    for thing in its:
      covered[near[starts[thing] : ends[thing]]] = True
  return out
