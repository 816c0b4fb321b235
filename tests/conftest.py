"""Eight simulated devices and a shared compilation cache, set before JAX starts; shared data."""

import fcntl
import hashlib
import importlib.metadata
import os
import pathlib

_ROOT = pathlib.Path(__file__).parent.parent
_FLAGS = "--xla_force_host_platform_device_count=8"
# Tests compile far more than they compute.
if importlib.metadata.version("jaxlib").startswith("0.10."):  # later ones do not know the flag, and abort
  _FLAGS += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", _FLAGS)
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_ROOT / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import pytest

import mmcontrast.data.datasets as datasets
from mmcontrast.data.build import build_dataset


@pytest.fixture(scope="session")
def data_dir() -> pathlib.Path:
  """Where emoji_views is: built once for all sessions, under a name that changes with the builder."""
  code = [*sorted(pathlib.Path(datasets.__file__).parent.glob("*.py")),
          _ROOT / "mmcontrast/data/tokenizers/sentencepiece.py"]
  digest = hashlib.sha1(b"".join(path.read_bytes() for path in code)).hexdigest()[:10]
  folder = _ROOT / ".cache" / f"data-{digest}"
  folder.mkdir(parents=True, exist_ok=True)
  with (folder / "lock").open("w") as lock:  # of several pytest workers one builds, the others wait
    fcntl.flock(lock, fcntl.LOCK_EX)
    build_dataset("emoji_views", folder)
  return folder
