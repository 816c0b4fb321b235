"""Debian packages that data sets are made of: taken where they lie, or downloaded; no root, nothing is installed."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import pathlib
import shutil
import subprocess
import tarfile

from mmcontrast.errors import UserError


@dataclasses.dataclass(frozen=True)
class DebianPackage:
  """A version of a package.

  Attributes:
    dataset: what is made of it, for messages.
    sha256: of its .deb file.
    installed: the folder by which it is known to be installed.
    variable: of the environment, that may name a .deb file.
  """

  dataset: str
  name: str
  version: str
  sha256: str
  installed: pathlib.Path
  variable: str

  def root(self, scratch: pathlib.Path) -> pathlib.Path:
    """The folder that stands for "/": the system's where the package is installed, else `scratch` with its files.

    Raises:
      UserError: it is nowhere, with what can be done.
    """
    given = os.environ.get(self.variable)
    if self.installed.is_dir() and not given:
      return pathlib.Path("/")
    return self.unpack(pathlib.Path(given).expanduser() if given else self.fetched(scratch), scratch)

  def unpack(self, archive: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Unpacks a .deb file, an `ar` archive of tar files, into `folder`. Raises UserError where it is another one."""
    try:
      data = archive.read_bytes()
    except OSError as error:
      raise UserError(
        f"{self.variable}={archive}: {error.strerror}; name the .deb file of {self.name} {self.version}"
      ) from None
    if (sha := hashlib.sha256(data).hexdigest()) != self.sha256:
      raise UserError(
        f"{archive}: not {self.name} {self.version} (sha256 {sha[:12]}..., expected {self.sha256[:12]}...)"
      )
    at = len(b"!<arch>\n")
    while at < len(data):
      name, size = data[at : at + 16].strip(), int(data[at + 48 : at + 58])
      if name.startswith(b"data.tar"):
        with tarfile.open(fileobj=io.BytesIO(data[at + 60 : at + 60 + size])) as tar:
          tar.extractall(folder, filter="data")
      at += 60 + size + size % 2
    return folder

  def fetched(self, folder: pathlib.Path) -> pathlib.Path:
    """The .deb file, downloaded into `folder`. Raises UserError with what else can be done."""
    why = "apt-get is not on the PATH"
    if shutil.which("apt-get"):
      command = ["apt-get", "download", f"{self.name}={self.version}"]
      done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
      if archives := list(folder.glob("*.deb")):
        return archives[0]
      why = f"apt-get did not download it ({(done.stderr.strip().splitlines() or ['no reason'])[-1]})"
    raise UserError(
      f"dataset {self.dataset} needs Debian's package {self.name} {self.version}, but {why}; run: apt-get update, or "
      f"set {self.variable}=FILE.deb, downloaded from https://packages.debian.org/{self.name}"
    )
