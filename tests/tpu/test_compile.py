"""Steps compiled for slices of TPUs that are not here. `make tpu`: libtpu is 690 MB, and each takes a minute."""

import importlib.util

import pytest

from mmcontrast.cli import main

TINY = ["--dry_run", "--topology", "v5e:2x4", "--data_dir", "/nowhere", "--config.batch.size=16"]


def run(capsys, *words):
  code = main(["train", *words])
  shown = capsys.readouterr()
  assert code == 0, shown.err
  return shown.out


def test_libtpu_is_here():
  assert importlib.util.find_spec("libtpu") is not None


def test_a_step_is_compiled_and_told(capsys):
  shown = run(capsys, "--config", "clip:smoke", *TINY)
  assert "8 TPU v5 lite devices" in shown and "it fits" in shown
  for part in ("towers.image", "towers.text", "optimizer", "augmentation"):
    assert part in shown
  assert "MFU" in shown and "not measurements" in shown
  assert "all-reduce" in shown


@pytest.mark.parametrize("topology", ["v4:2x2x1", "v5p:2x2x1", "v6e:2x4"])
def test_other_slices(capsys, topology):
  shown = run(
    capsys,
    "--config",
    "clip:smoke",
    "--dry_run",
    "--topology",
    topology,
    "--data_dir",
    "/nowhere",
    "--config.batch.size=16",
  )
  assert "it fits" in shown


def test_what_does_not_fit_says_what_would(capsys):
  shown = run(
    capsys,
    "--config",
    "clip",
    "--dry_run",
    "--topology",
    "v5e:2x4",
    "--data_dir",
    "/nowhere",
    "--config.data.image_size=256",
    "--config.batch.size=65536",
  )
  assert "IT DOES NOT FIT" in shown
  assert "it fits with --config." in shown or "tried without success" in shown


def test_a_slice_that_libtpu_does_not_know(capsys):
  assert main(["train", "--config", "clip:smoke", "--dry_run", "--topology", "v5e:3x5"]) == 2
  assert "v5e:2x4" in capsys.readouterr().err


def test_a_batch_that_the_slice_does_not_divide(capsys):
  words = ["train", "--config", "clip:smoke", "--dry_run", "--topology", "v5e:2x4", "--config.batch.size=12"]
  assert main(words) == 2
  error = capsys.readouterr().err
  assert error.startswith("error: ") and "12" in error and "8" in error and error.count("\n") == 1
