"""`mmcontrast data index PATTERN`: an index next to each tar or TFRecord shard."""

from __future__ import annotations

from mmcontrast.data import parallel
from mmcontrast.data.made_shards import read_part
from mmcontrast.data.sources import SOURCES, shard_index
from mmcontrast.errors import UserError

_INDEXED = ("webdataset", "tfrecord")


def index_shards(pattern: str, workers: int | None = None, part: str | None = None) -> str:
  """Indexes the shards that `pattern` names and returns what was done, a line each.

  The pattern may begin as `data.dataset` does, and hold {split}: "webdataset:/data/{split}/*.tar".

  A shard with an up-to-date index is skipped. One that is cut off or damaged is
  indexed as far as it goes, and named; so is one with something after its end marker.

  `part`: "2/8", the third of eight: every eighth shard from the third on; None: all.

  Raises:
    UserError: no such file or part; or, when the others are done, a shard that is neither a tar nor a TFRecord file, or
      a tar in which the members of a sample stand apart.
  """
  samples = there = 0
  damaged: list[str] = []
  refused: list[str] = []
  its = read_part(part)
  found_paths = shard_index.find(_without_kind(pattern).replace("{split}", "*"))
  paths = [found_paths[number] for number in its.of_all(len(found_paths))]
  for path, found in parallel.each(_index, paths, workers, "indexing"):
    if isinstance(found, str):
      refused.append(found)
      continue
    count, whole, beyond, was_there = found
    samples += count
    there += was_there
    if not whole:
      damaged.append(f"{path}: cut off or damaged; the {count} samples before that place are indexed")
    if beyond:
      damaged.append(f"{path}: {beyond} bytes after its end marker are not read; where tars were joined by cat, write "
                     f"one anew: mkdir anew && tar --ignore-zeros -xf '{path}' -C anew && "
                     "tar --sort=name -cf NEW.tar -C anew .")  # fmt: skip
  if refused:
    more = f" (and {len(refused) - 1} more such shards)" if len(refused) > 1 else ""
    others = f"; the other {len(paths) - len(refused)} shards are indexed" if len(paths) > 1 else ""
    raise UserError(f"{min(refused)}{more}{others}")
  note = f", {there} of them before" if there else ""
  note += f"; {len(damaged)} cut off, damaged or with more after the end" if damaged else ""
  return "\n".join([*sorted(damaged), f"{len(paths)} shards indexed{note}: {samples} samples"])


def _without_kind(pattern: str) -> str:
  kind, colon, path = pattern.partition(":")
  if colon and kind in SOURCES and kind not in _INDEXED:
    raise UserError(f"{pattern}: {kind} data has no index, and needs none; {' and '.join(_INDEXED)} shards have one")
  return path if colon and kind in _INDEXED else pattern


def _index(path: str) -> tuple[int, bool, int, bool] | str:
  """(samples, whether the shard is whole, bytes after its end, whether the index was there before), or why there is
  none."""
  index = shard_index.current(path)
  was_there = index is not None
  try:
    if index is None:
      index = shard_index.scan(path)
      shard_index.write(path, index)
  except (UserError, OSError) as error:
    return str(error)
  return len(index), index.whole, index.beyond, was_there
