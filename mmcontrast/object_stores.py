"""Object stores as folders: `gs://BUCKET/RUN` and `s3://BUCKET/RUN`, by fsspec.

A store has objects under long names, and neither folders, renames nor appends: a folder is there as soon as something
is in it; an object appears whole, or not at all; and whatever takes several objects is complete only when one of them,
written last, says so. Within a process these paths replace those that etils has for the same addresses, which remember
old listings and let the errors of each package through. Credentials are those that the packages look for themselves:
Google's application default credentials, the AWS configuration.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import functools
import importlib.util
import logging
import os
from collections.abc import Iterator
from typing import Any

from etils import epath

from mmcontrast.errors import UserError, one_line

PACKAGES = {"gs": "gcsfs", "s3": "s3fs"}
"""Scheme, which is an extra of this package too -> what reads and writes it."""
_NO_ACCESS = ("PermissionError", "NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError",
              "RefreshError", "TokenRetrievalError", "UnauthorizedSSOTokenError")  # fmt: skip
_MOST = 300  # characters of what a store says


def check_package(scheme: str) -> None:
  """Raises UserError when the package that reads and writes `scheme` is not installed."""
  if importlib.util.find_spec(PACKAGES[scheme]) is None:
    raise UserError(f"{scheme}:// needs the package {PACKAGES[scheme]}; pip install 'mmcontrast[{scheme}]'")


@functools.cache
def file_system(scheme: str) -> Any:
  """The file system of fsspec, which looks for credentials first. Raises UserError where it cannot be begun."""
  import fsspec

  if scheme == "gs":
    _speak_to_an_emulator()
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # what it raises is said once
  try:
    return fsspec.filesystem(scheme, use_listings_cache=False)  # TensorStore writes there too, unseen by fsspec
  except Exception as error:  # such as credentials that cannot be read
    raise UserError(f"{scheme}:// cannot be used ({_reason(error)})") from error


def _speak_to_an_emulator() -> None:
  """Lets all that speaks to Google's store speak to its stand-in at $STORAGE_EMULATOR_HOST, as gcsfs does."""
  if not (address := os.environ.get("STORAGE_EMULATOR_HOST")):
    return
  os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # asks Google's own service about buckets
  os.environ.setdefault("TENSORSTORE_GCS_HTTP_URL", address if "://" in address else f"http://{address}")
  os.environ.setdefault("GOOGLE_AUTH_TOKEN_FOR_TESTING", "none")  # TensorStore would look for credentials


@epath.register_path_cls([f"{scheme}://" for scheme in PACKAGES])
class StorePath(type(epath.Path("gs://bucket"))):
  """A path in an object store, with the methods of pathlib.Path that make sense there.

  Raises OSError as a disk does: FileNotFoundError, PermissionError where the store does not let one in, and else one
  of EIO, each with the path and one line of what the store said.
  """

  @property
  def scheme(self) -> str:
    """ "gs" or "s3"."""
    return self.parts[1]

  @property
  def bucket(self) -> str:
    """The name of the bucket."""
    return self.parts[2] if len(self.parts) > 2 else ""

  def exists(self) -> bool:
    return self._kind() is not None

  def is_dir(self) -> bool:
    return self._kind() == "directory"

  def is_file(self) -> bool:
    return self._kind() == "file"

  def check_bucket(self) -> None:
    """Raises FileNotFoundError when the bucket is not there, PermissionError when it may not be looked into."""
    with said(self, writes=True):
      file_system(self.scheme).info(f"{self.scheme}://{self.bucket}")

  def is_symlink(self) -> bool:
    return False

  def resolve(self, strict: bool = False) -> StorePath:
    return self

  def expanduser(self) -> StorePath:
    return self

  def iterdir(self) -> Iterator[StorePath]:
    found = self._ask("ls", detail=False)
    names = dict.fromkeys(path.rstrip("/").rpartition("/")[2] for path in found if path.strip("/") != self._inner)
    return (self / name for name in names if name)

  def glob(self, pattern: str) -> Iterator[StorePath]:
    """What lies in the folder under a name that fits `pattern`, which has no "/" in it; the folder's path is none."""
    try:
      found = sorted(self.iterdir())
    except FileNotFoundError:
      return iter(())
    return (path for path in found if fnmatch.fnmatchcase(path.name, pattern))

  def files(self) -> list[StorePath]:
    """Every object below the folder; none where there is no such folder."""
    return [type(self)(f"{self.scheme}://{path}") for path in self._ask("find")]

  def mkdir(self, mode: int | None = None, parents: bool = False, exist_ok: bool = False) -> None:
    """Nothing: a folder is there with what is in it. (fsspec would make the bucket.)"""

  def rmdir(self) -> None:
    """Nothing: an empty folder is none."""

  def rmtree(self, missing_ok: bool = False) -> None:
    try:
      self._ask("rm", recursive=True)
    except FileNotFoundError:
      if not missing_ok:
        raise

  def unlink(self, missing_ok: bool = False) -> None:
    try:
      self._ask("rm_file")
    except FileNotFoundError:
      if not missing_ok:
        raise

  def open(self, mode: str = "r", **options: Any) -> Any:
    """A file to read, or one whose object appears when it is closed; there is no "a" and no "+"."""
    if mode.replace("b", "").replace("t", "") not in ("r", "w"):
      raise ValueError(f"{self}: {mode!r}: an object is read, or written whole")
    return self._ask("open", mode=mode)

  def read_bytes(self) -> bytes:
    return self._ask("cat_file")

  def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
    return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

  def write_bytes(self, data: bytes) -> int:
    self._ask("pipe_file", bytes(data))
    return len(data)

  def write_text(self, data: str, encoding: str | None = None, errors: str | None = None) -> int:
    self.write_bytes(data.encode(encoding or "utf-8", errors or "strict"))
    return len(data)

  def create(self, data: bytes) -> None:
    """Writes an object that is not there; FileExistsError where it is. Of several at once the store lets one."""
    self._ask("pipe_file", data, mode="create")

  def download(self, target: str | os.PathLike) -> None:
    """Copies the object to a local file."""
    self._ask("get_file", os.fspath(target))

  def upload(self, source: str | os.PathLike) -> None:
    """Makes the object of a local file."""
    with said(self, writes=True):
      file_system(self.scheme).put_file(os.fspath(source), str(self))

  def rename(self, target: str | os.PathLike) -> StorePath:
    """Copies an object, then removes it: a store cannot rename."""
    self._ask("cp_file", os.fspath(target))
    self.unlink()
    return type(self)(target)

  replace = rename

  def stat(self) -> Any:
    """`st_size` and `length` in bytes, `mtime` 0: no more is promised by all stores."""
    found = self._ask("info")
    return epath.stat_utils.StatResult(is_directory=found["type"] == "directory", length=found["size"] or 0, mtime=0)

  def _kind(self) -> str | None:
    """ "file", "directory" or None: fsspec's own questions answer no where the store cannot be asked."""
    try:
      return self._ask("info")["type"]
    except FileNotFoundError:
      return None

  @property
  def _inner(self) -> str:
    return "/".join(self.parts[2:])

  def _ask(self, method: str, *arguments: Any, **options: Any) -> Any:
    with said(self, writes=method == "pipe_file"):
      return getattr(file_system(self.scheme), method)(str(self), *arguments, **options)


@contextlib.contextmanager
def said(path: StorePath, writes: bool = False) -> Iterator[None]:
  """Within it, what a store's package raises about `path` is an OSError as of a disk. An object can be written
  wherever its bucket is."""
  try:
    yield
  except (UserError, FileExistsError, MemoryError, TypeError, AttributeError):
    raise
  except FileNotFoundError as error:
    raise FileNotFoundError(errno.ENOENT, f"no bucket {path.bucket!r}" if writes else "not there", str(path)) from error
  except Exception as error:  # each package has errors of its own
    refused = str(getattr(error, "code", "")) in ("401", "403") or str(error).startswith("Forbidden")
    if refused or type(error).__name__ in _NO_ACCESS:
      raise PermissionError(errno.EACCES, f"not allowed: {_reason(error)}", str(path)) from error
    raise OSError(errno.EIO, _reason(error), str(path)) from error


def _reason(error: Exception) -> str:
  return one_line(f"{type(error).__name__}: {error}", _MOST)
