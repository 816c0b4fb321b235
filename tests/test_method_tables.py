"""The tables of the methods' benchmark: which of them a method is in follows from its config."""

import importlib.util
import pathlib
import sys

import pytest

BENCHMARKS = pathlib.Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def methods():
  sys.path.insert(0, str(BENCHMARKS))
  try:
    spec = importlib.util.spec_from_file_location("methods_benchmark", BENCHMARKS / "methods.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
  finally:
    sys.path.remove(str(BENCHMARKS))


def test_a_method_is_in_the_table_that_its_config_says(methods):
  found = {method: methods.table_of(method) for method in ("clip", "filip", "xbt", "lit", "simclr", "space2")}
  assert found == {"clip": "joint", "filip": "joint", "xbt": "joint", "lit": "joint", "simclr": "images", "space2": ""}
  assert {"clip", "simclr", "matryoshka"} <= set(methods.METHODS)


def test_stages_are_shortened_in_proportion(methods):
  assert methods.examples_seen("clip", 300) == methods.examples_seen("lit", 300) == 300 * 128


def test_the_first_by_rank_are_run_with_all_seeds(methods, monkeypatch, capsys):
  made = {"clip": 7.0, "siglip": 6.5, "vse_hinge": 2.0, "simclr": None}

  def run_apart(method, options, seed, cores):
    return {} if made[method] is None else dict.fromkeys(methods.METRICS, made[method] + seed)

  shown = []
  monkeypatch.setattr(methods, "run_apart", run_apart)
  monkeypatch.setattr(methods, "record", lambda rows, out: shown.extend(rows))
  monkeypatch.setattr(sys, "argv", ["methods.py", "--methods", *made, "--seeds", "3", "--first", "2"])
  methods.main()
  assert [(row["method"], row["seeds"], row["i2t R@1"]) for row in shown] == [
    ("clip", 3, 8.0), ("siglip", 3, 7.5), ("vse_hinge", 1, 2.0), ("simclr", 1, None)]  # fmt: skip
  said = capsys.readouterr().out
  assert "far below clip: vse_hinge, i2t R@1 2.0 and clip's 8.0" in said and "not measured: simclr" in said
