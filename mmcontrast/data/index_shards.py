"""`mmcontrast data index PATTERN`: an index beside each tar or TFRecord shard."""

from __future__ import annotations

from mmcontrast.data import parallel
from mmcontrast.data.sources import shard_index
from mmcontrast.errors import UserError


def index_shards(pattern: str, workers: int | None = None) -> str:
  """Indexes the shards that `pattern` names and returns what was done, a line each.

  A shard with an index of its present state is left alone. One that is cut off or damaged is
  indexed as far as it goes, and named.

  Raises:
    UserError: no such file; or, when the others are done, a shard that is neither a tar nor a TFRecord file.
  """
  samples = there = 0
  damaged: list[str] = []
  refused: list[str] = []
  paths = shard_index.find(pattern)
  for path, found in parallel.each(_index, paths, workers, "indexing"):
    if isinstance(found, str):
      refused.append(found)
      continue
    count, whole, was_there = found
    samples += count
    there += was_there
    if not whole:
      damaged.append(f"{path}: cut off or damaged; the {count} samples before that place are indexed")
  if refused:
    more = f" (and {len(refused) - 1} more such shards)" if len(refused) > 1 else ""
    raise UserError(f"{min(refused)}{more}; the other {len(paths) - len(refused)} shards are indexed")
  note = f", {there} of them before" if there else ""
  note += f"; {len(damaged)} cut off or damaged" if damaged else ""
  return "\n".join([*sorted(damaged), f"{len(paths)} shards indexed{note}: {samples} samples"])


def _index(path: str) -> tuple[int, bool, bool] | str:
  """(samples, whether the shard is whole, whether the index was there before), or why there is none."""
  index = shard_index.current(path)
  was_there = index is not None
  try:
    if index is None:
      index = shard_index.scan(path)
      shard_index.write(path, index)
  except (UserError, OSError) as error:
    return str(error)
  return len(index), index.whole, was_there
