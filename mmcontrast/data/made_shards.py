"""A folder of shards that any number of processes make, on any number of machines.

    manifest.json    what is made, of what, and in how many shards
    00003.*          what shard 3 holds
    00003.json       written last, the done-marker: shard 3 is whole

A process holds the lock of the shard that it makes (flock), which ends with it, however that ends: so nothing is made
twice at a time, and what a killed one was at is made by another. An object store has no such locks: two that make one
shard write the same bytes, each file as a whole.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from mmcontrast import folders
from mmcontrast.errors import UserError, one_line
from mmcontrast.folders import Folder, written

MANIFEST = "manifest.json"
_OF_OTHERS = re.compile(r"\..*\.(lock|partial)|\.[0-9a-f]{32}")  # what another process that begins writes


class Part(NamedTuple):
  """The part `number` (from 0) of `of`: of N shards the numbers that leave `number` when divided by `of`."""

  number: int = 0
  of: int = 1

  def of_all(self, count: int) -> range:
    """Its shares of `count` things."""
    return range(self.number, count, self.of)

  def __str__(self) -> str:
    return f"{self.number}/{self.of}"


ALL = Part()


def read_part(text: str | None) -> Part:
  """The part that "2/8" names, the third of eight; None: all. Raises UserError."""
  if text is None:
    return ALL
  found = re.fullmatch(r"(\d+)/(\d+)", text)
  number, of = (int(found[1]), int(found[2])) if found else (0, 0)
  if not found or not of:
    raise UserError(f"--part {text!r}: give NUMBER/PARTS, counted from 0, such as 0/8 for the first of eight")
  if number >= of:
    raise UserError(f"--part {text}: parts are counted from 0; the last of {of} is {of - 1}/{of}")
  return Part(number, of)


class Made(NamedTuple):
  """What was done about a shard."""

  shard: int
  changed: bool = False  # it was there, of records that have changed since


class MadeShards:
  """The shards in a folder, as far as they are done.

  Attributes:
    manifest: what is in manifest.json, `shards` and `records_a_shard` among it.
  """

  def __init__(self, folder: Folder, manifest: Mapping[str, Any]):
    self.folder, self.manifest = folder, dict(manifest)
    self._known: dict[int, dict[str, Any]] = {}  # of shards, without their columns

  @property
  def done(self) -> list[int]:
    """The shards that are complete."""
    names = {path.name for path in self.folder.iterdir()}
    return [shard for shard in range(self.manifest["shards"]) if self.marker(shard).name in names]

  def is_done(self, shard: int) -> bool:
    """Whether a shard is complete."""
    return self.marker(shard).is_file()

  def records(self, shard: int) -> range:
    """The records of a shard."""
    size = self.manifest["records_a_shard"]
    return range(shard * size, min((shard + 1) * size, self.manifest["records"]))

  def note(self, shard: int) -> dict[str, Any]:
    """What the marker of a shard that is done says, without what it says of every row."""
    if shard not in self._known:
      try:
        self._known[shard] = self.short(json.loads(self.marker(shard).read_text()))
      except (ValueError, KeyError, TypeError) as error:
        raise UserError(
          f"{self.marker(shard)}: does not say what its shard holds ({one_line(error)}); remove it and run the command "
          "again that made it, which makes that shard anew"
        ) from error
    return self._known[shard]

  def short(self, note: dict[str, Any]) -> dict[str, Any]:
    """What is kept in memory of a marker."""
    return note

  def digest(self, shard: int) -> str:
    """The digest of what a shard that is done was made of; "" of one that keeps none."""
    return self.note(shard).get("digest", "")

  def bad(self) -> dict[int, str]:
    """Index of a bad record -> why, in the shards that are done."""
    return {index: why for shard in self.done for index, why in self.bad_of(shard).items()}

  def bad_of(self, shard: int) -> dict[int, str]:
    """As `bad`, of one shard."""
    return {int(index): why for index, why in self.note(shard).get("bad", {}).items()}

  def finish(self, shard: int, note: Mapping[str, Any]) -> None:
    """Writes the marker of a shard, all of whose files are there."""
    with written(self.marker(shard)) as scratch:
      scratch.write_text(json.dumps(note))

  def forget(self, shard: int) -> None:
    """Takes back a shard: it will be made again."""
    self._known.pop(shard, None)
    self.marker(shard).unlink(missing_ok=True)

  def marker(self, shard: int) -> Folder:
    """The file that says that a shard is done."""
    return self.folder / f"{shard:05d}.json"

  @contextlib.contextmanager
  def held(self, name: str, wait: bool) -> Iterator[bool]:
    """Within it, no other process does what is called `name`, such as a shard; False: another does, and not `wait`.

    What one that died left half-written of it is removed.
    """
    if folders.is_store(self.folder):
      yield True
      return
    path = self.folder / f".{name}.lock"
    try:
      lock = folders.locked(path, wait)
    except OSError as error:
      if error.errno not in folders.NO_LOCKS:
        raise
      yield True
      return
    if lock is None:
      yield False
      return
    try:
      for scratch in self.folder.glob(f".{name}.*.partial"):
        scratch.unlink(missing_ok=True)
      yield True
    finally:
      folders.unlock(path, lock)


def begin(folder: Folder, manifest: Mapping[str, Any], option: str, name: str = MANIFEST) -> dict[str, Any]:
  """Makes `folder`, the value of `option`, with `manifest` as the file `name`, where it has none; gives what is there.

  Raises UserError when it holds something else.
  """
  path = folder / name
  if not path.is_file():
    folders.make(folder, option)
    with MadeShards(folder, {}).held(name, wait=True):
      if not path.is_file():
        if any(not _OF_OTHERS.fullmatch(one.name) for one in folder.glob("*")):  # a new one of a store is not there
          folders.check_empty(folder, option)
        with written(path) as scratch:
          scratch.write_text(json.dumps(manifest, indent=1) + "\n")
  return json.loads(path.read_text())
