"""Builds emoji_views once for all sessions, under a name that changes with the builder."""

import hashlib
import pathlib

import pytest

import mmcontrast.data.datasets as datasets
from mmcontrast.data.build import build_dataset

_ROOT = pathlib.Path(__file__).parent.parent.parent


@pytest.fixture(scope="session")
def data_dir() -> pathlib.Path:
  sources = [*sorted(pathlib.Path(datasets.__file__).parent.glob("*.py")),
             _ROOT / "mmcontrast/data/tokenizers.py"]  # fmt: skip
  digest = hashlib.sha1(b"".join(path.read_bytes() for path in sources)).hexdigest()[:10]
  folder = _ROOT / ".cache" / f"data-{digest}"
  build_dataset("emoji_views", folder)
  return folder
