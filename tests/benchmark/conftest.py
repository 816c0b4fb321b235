"""What the tests of `mmcontrast benchmark` share: a suite in CLIP_benchmark's layout, and tiny runs that it loads."""

import copy

import pytest
from clip_benchmark_sets import write_suite
from tiny import tiny_inference

from mmcontrast import benchmark as room
from mmcontrast.errors import note


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
  return write_suite(tmp_path_factory.mktemp("data") / "sets")


@pytest.fixture(scope="module")
def models():
  """Runs by name, one of them without texts."""
  found = {name: tiny_inference(step=3, seed=seed) for name, seed in (("x", 0), ("y", 1))}
  return found | {"images": copy.copy(found["x"])}


@pytest.fixture
def runs(tmp_path, models, monkeypatch):
  asked = []

  def load(workdir, step, width=None):
    asked.append(workdir.name)
    return models[workdir.name]

  monkeypatch.setattr(room, "load", load)
  note.cache_clear()
  for name in models:
    (tmp_path / name).mkdir()
  return tmp_path, asked
