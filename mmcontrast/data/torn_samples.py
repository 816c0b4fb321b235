"""Samples of tar shards whose members are not next to each other, so that an index takes them for two.

Each is then half a sample: where all images come first and then all captions, or images and captions are in two folders
or in two shards.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Sequence

# Beside any of these a member of another kind is a caption, a label or the like.
IMAGES = ("jpg", "jpeg", "jpe", "jfif", "mpo", "png", "apng", "webp", "gif", "bmp", "tif", "tiff", "avif", "jp2")


def apart(keys: Sequence[str], kinds: Sequence[int]) -> list[str]:
  """Keys that come back with other members than before; with the same ones they are two samples of one name.

  Args:
    keys: of the samples, in order.
    kinds: of the samples: bit k is set when it has a member of kind k.
  """
  seen: dict[str, int] = {}
  found = []
  for key, has in zip(keys, kinds):
    if key in seen and not seen[key] & has:
      found.append(key)
    seen[key] = seen.get(key, 0) | has
  return found


def in_folders(keys: Sequence[str], kinds: Sequence[int], extensions: Sequence[str]) -> tuple[str, str] | None:
  """Two members of one name in two folders, "images/0.jpg" and "texts/0.txt", where no sample has more than one."""
  if any(has & (has - 1) for has in kinds):
    return None
  return _halves(zip(keys, kinds), extensions, posixpath.basename)


def in_shards(shards: Iterable[tuple[Sequence[str], Sequence[int], Sequence[str]]]) -> tuple[str, str] | None:
  """As `in_folders`, of shards: (keys, kinds, extensions) of each, in which no sample has more than one member."""
  names: list[str] = []
  samples = []
  for keys, kinds, extensions in shards:
    for key, has in zip(keys, kinds):
      extension = extensions[has.bit_length() - 1]
      if extension not in names:
        names.append(extension)
      samples.append((key, 1 << names.index(extension)))
  return _halves(samples, names, lambda key: key)


def _halves(samples: Iterable[tuple[str, int]], extensions: Sequence[str],
            name: Callable[[str], str]) -> tuple[str, str] | None:  # fmt: skip
  """The first two samples of equal `name`, of one member each, an image and something else."""
  pictures = sum(1 << kind for kind, extension in enumerate(extensions) if _is_image(extension))
  first: dict[str, tuple[str, int]] = {}
  for key, has in samples:
    other, its = first.setdefault(name(key), (key, has))
    if bool(its & pictures) != bool(has & pictures):
      return tuple(f"{one}.{extensions[kind.bit_length() - 1]}" for one, kind in ((other, its), (key, has)))
  return None


def _is_image(extension: str) -> bool:
  return extension.rpartition(".")[2] in IMAGES
