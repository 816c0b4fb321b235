"""Builds a dataset once, whole or not at all: `mmcontrast data build NAME`."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import os
import pathlib
import shutil
import tempfile

from mmcontrast import folders
from mmcontrast.data.datasets import BUILDERS
from mmcontrast.errors import choose


def default_data_dir() -> pathlib.Path:
  """`$MMCONTRAST_DATA`, else ~/.cache/mmcontrast/data."""
  home = pathlib.Path.home() / ".cache" / "mmcontrast" / "data"
  return pathlib.Path(os.environ.get("MMCONTRAST_DATA") or home)


def data_folder(data_dir: str | os.PathLike | None = None) -> pathlib.Path:
  """`data_dir`, or where datasets live without it. Raises UserError when it is a URL."""
  return folders.local(data_dir or default_data_dir(), "data_dir", "TFDS and ArrayRecord read from a disk").absolute()


def is_built(name: str, data_dir: str | os.PathLike | None = None) -> bool:
  """Whether `name` lies complete under `data_dir`; metadata.json is there only then."""
  return (data_folder(data_dir) / name / "metadata.json").is_file()


def build_dataset(name: str, data_dir: str | os.PathLike | None = None, force: bool = False) -> pathlib.Path:
  """Builds `name` under `data_dir` and returns its folder; returns at once when it is there.

  The work goes on in a scratch folder next to the result and is renamed at the end, so a
  build that dies leaves no dataset, and an old one stays until the new one is whole.

  Raises:
    UserError: unknown name, or a package or tool that the dataset needs is missing.
  """
  choose(name, BUILDERS, "dataset")
  data_dir = data_folder(data_dir)
  target = data_dir / name
  if is_built(name, data_dir) and not force:
    return target
  module, _, attribute = BUILDERS[name].partition(":")
  folders.make(data_dir, "--data_dir")
  with tempfile.TemporaryDirectory(prefix=f".building-{name}-", dir=data_dir) as scratch:
    with _quiet():
      builder = getattr(importlib.import_module(module), attribute)(data_dir=scratch, file_format="array_record")
      builder.download_and_prepare()
      made = pathlib.Path(scratch) / name
      for file, content in builder.side_files().items():
        data = content if isinstance(content, bytes) else json.dumps(content, indent=1).encode()
        (made / file).write_bytes(data)
    if target.exists():
      target.rename(pathlib.Path(scratch) / "replaced")
    made.rename(target)
    shutil.rmtree(pathlib.Path(scratch) / "replaced", ignore_errors=True)
  return target


@contextlib.contextmanager
def _quiet():
  """Silences tfds's bars and chatter while it builds."""
  import tensorflow_datasets as tfds

  logger = logging.getLogger("absl")
  level = logger.level
  logger.setLevel(logging.ERROR)
  tfds.disable_progress_bar()
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    logger.setLevel(level)
    tfds.enable_progress_bar()
