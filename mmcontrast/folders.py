"""Folders that a command writes into: of this machine or an object store, writable, and never left half full."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pathlib
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeAlias

from mmcontrast.errors import UserError

if TYPE_CHECKING:
  from mmcontrast.object_stores import StorePath

Folder: TypeAlias = "pathlib.Path | StorePath"
"""A path on this machine or, with the same methods, in an object store."""

STORES = ("gs", "s3")
_SCRATCH = ".partial"
_LAST = "commit_success.txt"  # of a checkpoint: without it, it is not complete
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(/?)")  # pathlib makes one slash of two; C:/ is a drive
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# What a disk, a mount or its owner says, never a mistake in the program.
_OF_THE_SYSTEM = (
  errno.ENOSPC,
  errno.EDQUOT,
  errno.EFBIG,
  errno.EROFS,
  errno.EACCES,
  errno.EPERM,
  errno.ENOTDIR,
  errno.EISDIR,
  errno.ENAMETOOLONG,
  errno.EIO,
  errno.ESTALE,
  errno.ELOOP,
)


NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What a file system says that has none."""


def is_url(path: str | os.PathLike) -> bool:
  """Whether `path` is an address such as gs://bucket/run."""
  return _URL.match(os.fspath(path)) is not None


def of_store(path: object) -> bool:
  """Whether `path` is written as an address in a store, gs://... or s3://..."""
  return isinstance(path, str) and path.startswith(tuple(f"{scheme}://" for scheme in STORES))


def is_store(path: Folder) -> bool:
  """Whether a path that `at` gave is in an object store."""
  return not isinstance(path, pathlib.Path)


def at(path: str | os.PathLike, option: str) -> Folder:
  """`path`, the value of `option`: of this machine, or of an object store where it is gs://... or s3://...

  Raises UserError when it is empty, of another scheme, without a bucket or a folder in it, or its package is missing.
  """
  text = os.fspath(path)
  if not text.strip():
    raise UserError(f"{option} is empty; give a folder")
  if not (url := _URL.match(text)):
    return pathlib.Path(path).expanduser()
  scheme, rest = url[1].lower(), text[url.end() :].strip("/")
  if scheme == "file":
    raise UserError(f"{option} {text}: give the path alone, /{rest}")
  if scheme not in STORES:
    raise UserError(
      f"{option} {text}: {url[1]}:// is not known here; give gs://BUCKET/FOLDER, s3://BUCKET/FOLDER, or a local or "
      "mounted folder"
    )
  if not url[2] and isinstance(path, str):
    raise UserError(f"{option} {text}: an address has two slashes; give {scheme}://{rest}")
  bucket = rest.partition("/")[0]
  if bucket and not _BUCKET.fullmatch(bucket):
    raise UserError(f"{option} {text}: {bucket!r} is no name of a bucket, which has letters, digits, '-', '_' and '.'")
  if "/" not in rest:
    raise UserError(f"{option} {text}: give a bucket and a folder in it, {scheme}://{rest or 'BUCKET'}/FOLDER")
  from mmcontrast.object_stores import StorePath, check_package

  check_package(scheme)
  return StorePath(f"{scheme}://{rest}")


def local(
  path: str | os.PathLike, option: str, why: str = "only folders on this machine can be written"
) -> pathlib.Path:
  """`path`, the value of `option`, on this machine. Raises UserError when it is empty, or a URL: why it may not."""
  if is_url(path):
    raise UserError(
      f"{option} {os.fspath(path)}: is a URL, and {why}; give a local or mounted folder, and copy it from or to the "
      "bucket"
    )
  if not os.fspath(path).strip():
    raise UserError(f"{option} is empty; give a folder")
  return pathlib.Path(path).expanduser()


def make(folder: str | os.PathLike, option: str) -> Folder:
  """`folder`, the value of `option`, made with its parents where it is not there. Raises UserError when it is a file,
  as `at` does, or when it cannot be made or written into."""
  path = at(folder, option)
  try:
    if is_store(path):
      if path.is_file():
        raise UserError(f"{option} {folder}: is a file; give a folder")
      probe = path / f".{uuid.uuid4().hex}"
      probe.write_bytes(b"")
      probe.unlink()
    else:
      path.mkdir(parents=True, exist_ok=True)
      with tempfile.TemporaryFile(dir=path):
        pass
  except OSError as error:
    if not is_store(path) and os.path.exists(path) and not os.path.isdir(path):
      raise UserError(f"{option} {folder}: is a file; give a folder") from error
    raise UserError(
      f"{option} {folder}: cannot be written to ({error.strerror}: {error.filename or path}); give a folder that can"
    ) from error
  return path


def of_the_system(error: OSError) -> str | None:
  """One line about an `error` of a disk, a store or permissions, with the path; None when it is of another kind."""
  if error.errno not in _OF_THE_SYSTEM and not (error.filename and is_url(str(error.filename))):
    return None
  return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)


def check_empty(folder: str | os.PathLike, option: str) -> None:
  """Raises UserError when `folder`, the value of `option`, holds something or is a file, and as `at` does."""
  path = at(folder, option)
  there, is_folder = (path.exists(), path.is_dir()) if is_store(path) else (os.path.exists(path), os.path.isdir(path))
  if there and not is_folder:
    raise UserError(f"{option} {folder}: is a file; give an empty folder, or a new one")
  if is_folder and any(one.name != _SCRATCH for one in path.iterdir()):
    raise UserError(f"{option} {folder}: is not empty; give an empty folder, or a new one")


@contextlib.contextmanager
def whole(folder: str | os.PathLike, option: str) -> Iterator[pathlib.Path]:
  """A local folder to write into: what is in it at the end of the block becomes what `folder` holds.

  When the block raises, nothing is left, nor any folder that was made on the way. The scratch folder is inside
  `folder`, which may be a mount of its own; for a store it is a temporary one.
  Raises UserError at once when `folder`, the value of `option`, holds something, is a file, or cannot be made, and as
  `at` does.
  """
  path = at(folder, option)
  check_empty(path, option)
  with _sent(path, option) if is_store(path) else _moved(path, option) as scratch:
    try:
      yield scratch
    except UserError as error:
      raise type(error)(str(error).replace(str(scratch), str(path))) from error.__cause__


def locked(path: pathlib.Path, wait: bool = False) -> int | None:
  """The file `path`, open and locked (flock): `unlock` ends it, and the process's end, however that comes.

  None when another process holds it, and not `wait`. Raises OSError, such as where a file system has no locks.
  """
  while True:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
      fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
      os.close(file)
      return None
    except OSError:
      os.close(file)
      raise
    with contextlib.suppress(FileNotFoundError):
      if os.path.samestat(os.fstat(file), os.stat(path)):
        return file
    os.close(file)  # its holder removed it in the meantime: another file is the lock now


def unlock(path: pathlib.Path, file: int) -> None:
  """Ends what `locked` began, and removes the file."""
  path.unlink(missing_ok=True)  # before the lock ends: whoever opened it meanwhile looks again
  os.close(file)


@contextlib.contextmanager
def written(path: Folder) -> Iterator[pathlib.Path]:
  """A local file to write: at the end of the block it is what `path` holds. When the block raises, nothing is left."""
  if is_store(path):
    with tempfile.TemporaryDirectory(prefix="mmcontrast-") as scratch:
      yield (file := pathlib.Path(scratch) / path.name)
      path.upload(file)
    return
  scratch = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.partial")
  try:
    yield scratch
    scratch.replace(path)
  finally:
    scratch.unlink(missing_ok=True)


@contextlib.contextmanager
def fetched(path: Folder) -> Iterator[pathlib.Path]:
  """A local file with what `path` holds: `path` itself, or a copy of the object, for as long as the block lasts."""
  if not is_store(path):
    yield path
    return
  with tempfile.TemporaryDirectory(prefix="mmcontrast-") as scratch:
    path.download(file := pathlib.Path(scratch) / path.name)
    yield file


def append(path: Folder, text: str) -> None:
  """Writes `text` at the end of the file `path`, which need not be there; an object is written anew."""
  if is_store(path):
    with contextlib.suppress(FileNotFoundError):
      text = path.read_text() + text
    path.write_text(text)
    return
  with path.open("a") as file:
    file.write(text)


def remove(folder: Folder) -> None:
  """Removes a folder with all that is in it. Raises OSError where it cannot."""
  if is_store(folder):
    folder.rmtree(missing_ok=True)
  else:
    shutil.rmtree(folder)


@contextlib.contextmanager
def _moved(folder: pathlib.Path, option: str) -> Iterator[pathlib.Path]:
  new, scratch = [path for path in (folder, *folder.parents) if not os.path.exists(path)], folder / _SCRATCH
  make(folder, option)
  shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed
  scratch.mkdir()
  try:
    yield scratch
    for path in sorted(scratch.iterdir()):
      path.replace(folder / path.name)
  finally:
    shutil.rmtree(scratch, ignore_errors=True)
    for path in new:  # from the inside out, as far as they are empty
      if any(path.iterdir()):
        break
      path.rmdir()


@contextlib.contextmanager
def _sent(folder: StorePath, option: str) -> Iterator[pathlib.Path]:
  make(folder, option)
  with tempfile.TemporaryDirectory(prefix="mmcontrast-") as scratch:
    yield pathlib.Path(scratch)
    files = [path for path in pathlib.Path(scratch).rglob("*") if path.is_file()]
    try:
      # What says that a checkpoint is complete goes last, the whole checkpoint's after those of its parts.
      for file in sorted(files, key=lambda file: (file.name == _LAST, -len(file.parts), file)):
        (folder / file.relative_to(scratch).as_posix()).upload(file)
    except BaseException:
      with contextlib.suppress(OSError):
        remove(folder)
      raise
