"""SHARD.index: where the samples of a tar or TFRecord shard lie, which gives them random access.

It is a numpy archive (read without pickle) that also keeps the shard's size, so that a shard that
changed is noticed. `mmcontrast data index` makes it; sources read through `Shards`.
"""

from __future__ import annotations

import bisect
import dataclasses
import io
import itertools
import os
import struct
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from concurrent import futures
from typing import BinaryIO

import numpy as np

from mmcontrast.data import torn_samples
from mmcontrast.data.left_behind import is_of_a_system
from mmcontrast.data.record import BadRecord
from mmcontrast.data.sources import files
from mmcontrast.data.sources.keys import digest_of, key_of_file
from mmcontrast.errors import MissingData, UserError, note

SUFFIX = ".index"
_FORMAT = 2  # of the index; one of another format is made anew
_LENGTH = struct.Struct("<QI")  # of a TFRecord: length of the data, masked crc of these eight bytes
_CHECKSUM = struct.Struct("<I")  # after the data
_ENDINGS = (".tar", ".tfrecord", ".tfrecords")
# What writers of shards leave beside them, such as img2dataset's 00000_stats.json and 00000.parquet.
_BESIDE = (SUFFIX, ".json", ".jsonl", ".parquet", ".csv", ".tsv", ".txt", ".md", ".yaml", ".yml", ".log", ".idx",
           ".crc", ".md5", ".sha256", ".pickle", ".pkl")  # fmt: skip
_THREADS = 32  # that read indexes: most of the time is waiting for the store


@dataclasses.dataclass(frozen=True)
class ShardIndex:
  """The samples of one shard; a sample has members, each with an extension and a place.

  A TFRecord file has samples of one member with the extension "". The arrays are:
    keys: bytes [N], of the samples: what stands before the first dot of the file name; empty for TFRecord.
    starts: [N + 1]; the members of sample n are starts[n] to starts[n + 1].
    offsets, sizes, kinds: [M], of the members' contents, in bytes; and which of `extensions` they have.
  """

  size: int  # of the shard when it was indexed, in bytes
  whole: bool  # the shard ended as it should; else what comes after the last good sample is lost
  beyond: int  # bytes after the end marker of a tar, which are not read
  extensions: tuple[str, ...]
  keys: np.ndarray
  starts: np.ndarray
  offsets: np.ndarray
  sizes: np.ndarray
  kinds: np.ndarray

  def __len__(self) -> int:
    return len(self.keys)

  def members(self, sample: int) -> Iterator[tuple[str, int, int]]:
    """(extension, offset, size) of each member of a sample."""
    for member in range(self.starts[sample], self.starts[sample + 1]):
      yield self.extensions[self.kinds[member]], int(self.offsets[member]), int(self.sizes[member])


class Shards:
  """Samples of indexed shards in the order of the shards: n -> (name, extension -> content).

  Raises:
    UserError: no such file, one without an index, one that changed since, no sample at all, or samples whose members
      are in different shards.
  """

  def __init__(self, pattern: str | Sequence[str], scanned: bool = False):
    """`pattern`: of shards, or the paths of all. `scanned`: one without an index is read through, not refused."""
    self.paths = find(pattern) if isinstance(pattern, str) else list(pattern)
    with futures.ThreadPoolExecutor(_THREADS) as pool:
      indexes = list(pool.map(_current_or_scanned if scanned else current, self.paths))
    if missing := [path for path, index in zip(self.paths, indexes) if index is None]:
      more = f" (so are {len(missing) - 1} more of the {len(self.paths)})" if len(missing) > 1 else ""
      raise MissingData(f"{missing[0]}: no index next to it, or one of an earlier state of the shard{more}; "
                        f"run: mmcontrast data index '{pattern}'")  # fmt: skip
    self._indexes: list[ShardIndex] = indexes
    _check_together(self.paths, indexes)
    self._ends = list(itertools.accumulate(map(len, self._indexes)))
    if not self._ends[-1]:
      raise UserError(f"data.dataset: no sample in the {len(self.paths)} shards of {pattern!r}")

  def __len__(self) -> int:
    return self._ends[-1]

  @property
  def extensions(self) -> set[str]:
    """Those of all members."""
    return {extension for index in self._indexes for extension in index.extensions}

  @property
  def cut_off(self) -> list[str]:
    """The paths of shards that do not end as they should: what follows their last whole sample is lost."""
    return [path for path, index in zip(self.paths, self._indexes) if not index.whole]

  def key(self, sample: int) -> str:
    """Name, places and sizes of the members of a sample, size and time of its shard; see keys.key_of."""
    index, path, within = self._at(sample)
    return digest_of([index.keys[within], list(index.members(within)), key_of_file(path)])

  def _at(self, sample: int) -> tuple[ShardIndex, str, int]:
    """(index of a shard, its path, which of its samples) of `sample`."""
    shard = bisect.bisect_right(self._ends, sample)
    index = self._indexes[shard]
    return index, self.paths[shard], sample - self._ends[shard] + len(index)

  def __getitem__(self, sample: int) -> tuple[str, dict[str, bytes]]:
    index, path, within = self._at(sample)
    members = list(index.members(within))
    name = f"{os.path.basename(path)}:{index.keys[within].decode() or within}"
    header = tarfile.BLOCKSIZE if members[0][0] else 0  # of the first member of a tar
    start = members[0][1] - header
    end = max(offset + size for _, offset, size in members)
    data = files.read(path, start, end - start)  # one read, for a store far away
    if header and _size_in(data[:header]) != members[0][2]:
      raise BadRecord(f"{name}: another member is at that position, so the shard changed after it was indexed; remove "
                      f"{path}{SUFFIX}, then run: mmcontrast data index '{path}'")  # fmt: skip
    content = {kind: data[offset - start : offset - start + size] for kind, offset, size in members}
    if len(content) < len(members):
      raise BadRecord(f"{name}: two members with the same extension")
    return name, content


def _size_in(header: bytes) -> int | None:
  """The size of the member whose header this is; None where it is no header."""
  try:
    return tarfile.TarInfo.frombuf(header, tarfile.ENCODING, "surrogateescape").size
  except tarfile.HeaderError:
    return None


def _current_or_scanned(path: str) -> ShardIndex:
  return current(path) or scan(path)


def find(pattern: str) -> list[str]:
  """The shards that `pattern` names, without other files. UserError when there is none."""
  paths = files.find(pattern, _ENDINGS)
  shards = [path for path in paths if path == pattern or not path.lower().endswith(_BESIDE)]
  if not shards:
    raise UserError(f"{pattern}: no shard, only other files, such as {paths[0]}")
  return shards


def current(path: str) -> ShardIndex | None:
  """The index of a shard; None when there is none, it is damaged, or the shard's size has changed."""
  import fsspec

  system, place = fsspec.core.url_to_fs(path)
  try:
    size = system.size(place)
    with np.load(io.BytesIO(system.cat_file(place + SUFFIX)), allow_pickle=False) as table:
      if table["format"] != _FORMAT or table["size"] != size:
        return None
      arrays = {name: table[name] for name in ("keys", "starts", "offsets", "sizes", "kinds")}
      return ShardIndex(size, bool(table["whole"]), int(table["beyond"]), tuple(table["extensions"].tolist()), **arrays)
  except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
    return None


def write(path: str, index: ShardIndex) -> None:
  """Writes the index of the shard at `path` next to it. UserError where that cannot be."""
  import fsspec

  arrays = {field.name: np.asarray(getattr(index, field.name)) for field in dataclasses.fields(index)}
  buffer = io.BytesIO()
  np.savez_compressed(buffer, format=np.uint8(_FORMAT), **arrays | {"extensions": np.array(index.extensions, np.str_)})
  system, place = fsspec.core.url_to_fs(path)
  try:
    system.pipe_file(place + SUFFIX, buffer.getvalue())
  except (OSError, NotImplementedError) as error:  # of a web server, for one
    raise UserError(f"{path}{SUFFIX}: cannot be written ({type(error).__name__}: {error}); an index is written next "
                    "to its shard: copy the shards to a folder that you may write to") from None  # fmt: skip


def scan(path: str) -> ShardIndex:
  """Finds the samples of a tar or TFRecord shard, whichever it is.

  A shard that is cut off or damaged gives the samples before that place, without the last one of
  a tar, of which members may be missing.

  Raises:
    UserError: it is neither, or a tar in which the members of a sample stand apart.
  """
  with files.open_binary(path) as file:
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    try:
      return _scan_tar(file, size, path)
    except tarfile.ReadError:
      file.seek(0)
    index = _scan_tfrecord(file, size)
  if not len(index):
    what = "neither a tar (compressed ones cannot be indexed) nor a TFRecord file" if size else "an empty file"
    raise UserError(f"{path}: {what}")
  return index


def _scan_tar(file: BinaryIO, size: int, path: str) -> ShardIndex:
  keys: list[str] = []
  members: list[tuple[int, int, int, int]] = []  # sample, offset, size, kind
  kinds: dict[str, int] = {}
  beyond = 0
  with tarfile.open(fileobj=file, mode="r:") as tar:
    try:
      while member := tar.next():
        tar.members.clear()  # tarfile keeps them all, and a shard may have a million
        key, extension = sample_key(member.name)
        if not member.isreg() or member.issparse() or not extension:
          continue
        if not keys or keys[-1] != key:
          keys.append(key)
        members.append((len(keys) - 1, member.offset_data, member.size, kinds.setdefault(extension, len(kinds))))
    except tarfile.ReadError:
      whole = False
    else:
      # tarfile takes a damaged header for the end; the true end is a block of zeros.
      file.seek(tar.offset)
      whole = file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)
      beyond = _beyond(file, size) if whole else 0
  if not whole and keys:
    keys.pop()
    members = [member for member in members if member[0] < len(keys)]
  _check_whole_samples(path, keys, members, tuple(kinds))
  return _index(size, whole, kinds, keys, members, beyond)


def _beyond(file: BinaryIO, size: int) -> int:
  """How many bytes follow from here on, after zeros that fill up the tar."""
  while chunk := file.read(2**20):
    if filled := chunk.lstrip(b"\0"):
      return size - file.tell() + len(filled)
  return 0


def _check_whole_samples(path: str, keys: list[str], members: list[tuple[int, int, int, int]],
                         extensions: tuple[str, ...]) -> None:  # fmt: skip
  """UserError where members that make one sample stand apart."""
  has = [0] * len(keys)
  for sample, _, _, kind in members:
    has[sample] |= 1 << kind
  new = f"mkdir anew && tar -xf '{path}' -C anew && tar --sort=name -cf NEW.tar -C anew ."
  if apart := torn_samples.apart(keys, has):
    raise UserError(f"{path}: members of {len(apart)} samples do not follow each other, such as those of "
                    f"{apart[0]!r}, and would be "
                    f"two samples each; write the tar anew, sorted by name: {new}")  # fmt: skip
  if halves := torn_samples.in_folders(keys, has, extensions):
    raise UserError(f"{path}: {halves[0]} and {halves[1]} would be two samples; members of one have one path up to the "
                    "first dot of the file name: put them into one folder, and write the tar anew, sorted by name: "
                    "tar --sort=name -cf NEW.tar -C FOLDER .")  # fmt: skip


def _check_together(paths: list[str], indexes: list[ShardIndex]) -> None:
  """UserError where the images of samples are in one shard and their captions in another; says which sample is torn by
  the end of a shard."""
  single = [(path, index) for path, index in zip(paths, indexes)
            if len(index) and len(index.sizes) == len(index) and index.extensions != ("",)]  # fmt: skip
  if len({index.extensions for _, index in single}) > 1:
    halves = torn_samples.in_shards(
      ([key.decode() for key in index.keys.tolist()], [1 << kind for kind in index.kinds.tolist()], index.extensions)
      for _, index in single)  # fmt: skip
    if halves:
      raise UserError(f"data.dataset: {halves[0]} and {halves[1]} are in different shards of {single[0][0]}, ..., and "
                      "would be two samples; put the members of a sample next to each other in one tar: "
                      "tar --sort=name -cf NEW.tar -C FOLDER .")  # fmt: skip
  for path, following, index, next_index in zip(paths, paths[1:], indexes, indexes[1:]):
    if len(index) and len(next_index) and index.keys[-1] == next_index.keys[0] != b"":
      before = {extension for extension, _, _ in index.members(len(index) - 1)}
      after = {extension for extension, _, _ in next_index.members(0)}
      if not before & after:
        note(f"{path}: the last sample {index.keys[-1].decode(errors='replace')!r} goes on in {following}, and is two "
             "samples here; write shards that end where a sample does")  # fmt: skip


def sample_key(name: str) -> tuple[str, str]:
  """WebDataset's rule, of a member's name: (sample, extension), which the first dot of the last part parts.

  The extension is in lower case; it is empty for a member that belongs to no sample.
  """
  folder, slash, base = name.rpartition("/")
  stem, _, extension = base.partition(".")
  is_data = stem and not any(map(is_of_a_system, name.split("/")))
  return folder + slash + stem, extension.lower() if is_data else ""


def _scan_tfrecord(file: BinaryIO, size: int) -> ShardIndex:
  members = []
  place = 0
  while (length := _record_length(file)) is not None and place + length + 16 <= size:
    # The checksum of the data belongs to the member: it is checked when the record is read.
    members.append((len(members), place + _LENGTH.size, length + _CHECKSUM.size, 0))
    place = file.seek(place + _LENGTH.size + length + _CHECKSUM.size)
  return _index(size, place == size, {"": 0}, [""] * len(members), members)


def _record_length(file: BinaryIO) -> int | None:
  """The length of the record whose frame begins here; None where none does."""
  header = file.read(_LENGTH.size)
  if len(header) < _LENGTH.size:
    return None
  length, checksum = _LENGTH.unpack(header)
  return length if masked_crc(header[:8]) == checksum else None


def checked(data: bytes) -> bytes:
  """The data of a TFRecord without the checksum that follows it. Raises BadRecord when it differs."""
  content, checksum = data[: -_CHECKSUM.size], data[-_CHECKSUM.size :]
  if _CHECKSUM.pack(masked_crc(content)) != checksum:
    raise BadRecord("the checksum of the record does not match")
  return content


def masked_crc(data: bytes) -> int:
  """CRC-32C as TFRecord files hold it: turned right by 15 bits, plus a constant."""
  import google_crc32c

  value = google_crc32c.value(data)
  return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _index(size, whole, kinds, keys, members, beyond=0) -> ShardIndex:
  table = np.array(members, np.int64).reshape(-1, 4).T
  small = np.min_scalar_type(size)  # uint32 below 4 GiB
  return ShardIndex(
    size=size,
    whole=whole,
    beyond=beyond,
    extensions=tuple(kinds),
    keys=np.array([key.encode(errors="surrogateescape") for key in keys], np.bytes_),
    starts=np.searchsorted(table[0], np.arange(len(keys) + 1)).astype(small),
    offsets=table[1].astype(small),
    sizes=table[2].astype(small),
    kinds=table[3].astype(np.min_scalar_type(max(len(kinds), 1))),
  )  # fmt: skip
