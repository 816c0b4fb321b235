"""Work on shards of a set: by this process, by parts of it on many machines (`--part`), or on Ray (`--ray`).

Each shard is the work of one process whatever the way, so the files are the same, bit for bit.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from mmcontrast.data.made_shards import ALL, Made, MadeShards, Part
from mmcontrast.errors import UserError, note, one_line


class Worker(Protocol):
  """Makes shards; a context.

  Attributes:
    shards: the folder.
  """

  shards: MadeShards

  def __enter__(self) -> Worker: ...
  def __exit__(self, *error: object) -> None: ...
  def __call__(self, shard: int, advance: Callable[[int], None]) -> Made:
    """Makes a shard, or sees that it is done; `advance` is called with how many records are. Nobody else is at it."""


def make_shards(
  start: Callable[[], Worker],
  shards: MadeShards,
  part: Part = ALL,
  ray: str | None = None,
  advance: Callable[[int], None] = lambda count: None,
) -> list[Made]:
  """Makes the shards of a part, all that are not done.

  Args:
    start: gives a worker; can be pickled.
    ray: the address of a Ray cluster, or "auto"; None: this process makes them.
    advance: called with how many records are done.
  Raises UserError: as the worker does; no such cluster.
  """
  numbers = part.of_all(shards.manifest["shards"])
  if not ray:
    return sorted(_here(start, numbers, advance))
  made = []
  with contextlib.closing(_on_ray(start, numbers, ray)) as found:
    for one in found:
      made.append(one)
      advance(len(shards.records(one.shard)))
  return sorted(made)


def of_part(shards: MadeShards, part: Part) -> str:
  """Says which shards are not done when those of a part are; "" where all are."""
  missing = shards.manifest["shards"] - len(shards.done)
  if not missing:
    return ""
  done = len(part.of_all(shards.manifest["shards"]))
  return (
    f"part {part} is done: {done} of {shards.manifest['shards']} shards of {shards.folder}; {missing} of the other "
    "parts are not made yet"
  )


def _here(start: Callable[[], Worker], numbers: Sequence[int], advance: Callable[[int], None]) -> Iterator[Made]:
  with start() as worker:
    later = []
    for number in numbers:
      with worker.shards.held(f"{number:05d}", wait=False) as held:
        if held:
          yield worker(number, advance)
        else:
          later.append(number)
    if later:
      note(f"{worker.shards.folder}: another process makes {len(later)} of these shards; waiting for it")
    for number in later:  # whose process may have been killed since
      with worker.shards.held(f"{number:05d}", wait=True):
        yield worker(number, advance)


def _on_ray(start: Callable[[], Worker], numbers: Sequence[int], address: str) -> Iterator[Made]:
  try:
    import ray
    import ray.data
  except ImportError:
    raise UserError(f"--ray {address}: needs the package ray; pip install 'mmcontrast[ray]'") from None
  if began := not ray.is_initialized():
    try:
      _reach(address)
      ray.init(address, log_to_driver=False, logging_level="error")
    except Exception as error:  # each kind of address has its own
      raise UserError(
        f"--ray {address}: no such cluster ({one_line(error)}); start one by ray start --head, or leave --ray out"
      ) from None
  try:
    yield from _mapped(ray, start, numbers)
  finally:
    if began:
      ray.shutdown()


def _reach(address: str) -> None:
  """Raises OSError where nobody listens at HOST:PORT, for which Ray would wait for minutes; of "auto" at the address
  that Ray takes from the environment or from what the last cluster of this machine left behind."""
  if address == "auto":
    from ray._private.services import canonicalize_bootstrap_address

    address = canonicalize_bootstrap_address(address) or ""
  host, colon, port = address.rpartition(":")
  if colon and port.isdigit() and "/" not in host:
    socket.create_connection((host, int(port)), timeout=10).close()


def _mapped(ray: Any, start: Callable[[], Worker], numbers: Sequence[int]) -> Iterator[Made]:
  if not numbers:
    return
  nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
  needs, most = _needs(nodes)
  ray.data.DataContext.get_current().enable_progress_bars = False
  rows = ray.data.from_items([{"shard": number} for number in numbers], override_num_blocks=len(numbers))
  done = rows.map_batches(
    OnRay,
    fn_constructor_args=(start, os.getcwd()),
    batch_size=1,
    concurrency=(1, max(1, min(most, len(numbers)))),
    **needs,
  )
  try:
    for row in done.iter_rows():
      yield Made(int(row["shard"]), bool(row["changed"]))
  except Exception as error:
    raise _of_user(error) from None


def _needs(nodes: Sequence[dict[str, float]]) -> tuple[dict[str, Any], int]:
  """(what one worker takes of a cluster, how many workers there is room for): a GPU each, all TPUs of a node each, else
  all cores of the smallest node each."""
  gpus, tpus = (int(sum(node.get(kind, 0) for node in nodes)) for kind in ("GPU", "TPU"))
  if gpus:
    return {"num_gpus": 1}, gpus
  if tpus:
    each = min(node["TPU"] for node in nodes if node.get("TPU"))
    return {"resources": {"TPU": each}}, int(tpus // each)
  each = min((node["CPU"] for node in nodes), default=1)
  return {"num_cpus": each}, int(sum(node.get("CPU", 0) // each for node in nodes))


def _of_user(error: BaseException) -> BaseException:
  """The UserError behind what Ray raises, or that."""
  seen: BaseException | None = error
  while seen is not None:
    if isinstance(seen, UserError):
      return UserError(str(seen).strip().splitlines()[-1].removeprefix("mmcontrast.errors.UserError: "))
    seen = getattr(seen, "cause", None) or seen.__cause__
  return error


class OnRay:
  """An actor: a worker on another machine of a cluster, in the folder of the command."""

  def __init__(self, start: Callable[[], Worker], folder: str):
    if os.path.isdir(folder):
      os.chdir(folder)  # paths may be relative to it
    self._worker = start().__enter__()

  def __call__(self, batch: dict[str, Any]) -> dict[str, list]:
    found = []
    for number in batch["shard"].tolist():
      with self._worker.shards.held(f"{number:05d}", wait=True):
        found.append(self._worker(number, lambda count: None))
    return {"shard": [one.shard for one in found], "changed": [one.changed for one in found]}
