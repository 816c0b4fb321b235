"""Every number that is written says by what it was measured: all evaluators, all commands that measure."""

import ast
import inspect
import json
import pathlib
import re

import pytest

import mmcontrast
import mmcontrast.evaluate as room
from mmcontrast.evaluation import tasks
from mmcontrast.evaluation.embedded_set import EmbeddedSet
from mmcontrast.evaluation.protocols import PROTOCOLS
from mmcontrast.evaluation.suite import EVALUATORS, options_of
from mmcontrast.evaluation.tasks import PROTOCOL_OF, Task, described

RUN = {
  "data": {"image_size": 8, "resize": {"mode": "shortest", "interpolation": "bicubic"}, "centre_crop": 0.875},
  "normalize": {"mean": (0.5, 0.5, 0.5)},
}
OF_IMAGES = {"image_size": 8, "resize": "shortest", "interpolation": "bicubic", "crop": 0.875}
PACKAGE = pathlib.Path(mmcontrast.__file__).parent


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_an_evaluator_says_by_what_it_measures(evaluator, world, tmp_path):
  (tmp_path / "file.tsv").write_text("1\ta\tb\n")
  options = {key: value for key, value in options_of(evaluator).items() if key not in ("sets", "baselines")}
  if "file" in options:
    options["file"] = str(tmp_path / "file.tsv")
  test = EmbeddedSet(world.set("s", True), world.embed)
  found = described({"s/task": Task(evaluator, options, test)}, RUN)["s/task"]
  assert found["protocol"] and found["version"] and found["ties"] and PROTOCOL_OF[evaluator] in PROTOCOLS
  assert {key: found[key] for key in OF_IMAGES} == OF_IMAGES and found["split"] == "test+train"
  assert json.loads(json.dumps(found)) == found
  if {"template", "templates"} & set(options):
    assert re.fullmatch("[0-9a-f]{16}", found["prompts"]) and found["templates"] >= 1
    key = "templates" if "templates" in options else "template"
    other = described(
      {"s/task": Task(evaluator, {**options, key: ("a {}",)[0] if key == "template" else ("a {}",)}, test)}, RUN
    )
    assert other["s/task"]["prompts"] != found["prompts"]
  if "file" in options:
    before = found["texts"]
    (tmp_path / "file.tsv").write_text("1\ta\tc\n")
    assert described({"s/task": Task(evaluator, options, test)}, RUN)["s/task"]["texts"] != before
  numbers = {key for key, value in options.items() if isinstance(value, int | float) and not isinstance(value, bool)}
  assert numbers <= set(found.get("options", ())), "what changes a number is said"


def test_every_evaluator_and_no_other_has_a_protocol():
  assert set(PROTOCOL_OF) == set(EVALUATORS)


def test_names_given_for_classes_are_in_the_digest(world):
  test = EmbeddedSet(world.set("s", True), world.embed)
  found = set()
  for names in (None, ["x", "y", "z"], {"group 0": "x"}):
    options = {"template": "{}", "names": names, "label": "group"}
    found.add(described({"s/base_to_new": Task("base_to_new", options, test)}, RUN)["s/base_to_new"]["prompts"])
  assert len(found) == 3
  assert tasks._plain({"a": (1, None), "b": (), "c": {"d": None, "e": 2}}) == {"a": [1, None], "c": {"e": 2}}


def test_numbers_of_training_have_theirs_beside_them(tmp_path, monkeypatch):
  records = {"s/x": {"protocol": "ours", "version": "v1"}}
  monkeypatch.setattr(room, "_evaluate", lambda *_: room._Evaluated({"s/x/a": 0.5}, records, {}))
  assert room.evaluate_in_training(None, {}, None, None) == {"s/x/a": 0.5} and not list(tmp_path.iterdir())
  for _ in range(2):
    room.evaluate_in_training(None, {}, None, tmp_path)
  assert json.loads((tmp_path / room.IN_TRAINING).read_text()) == records


def test_every_place_that_measures_describes():
  """What makes results of a model calls `described` with the run's config: sets of suites, and the commands."""
  makers = [path for path in sorted((PACKAGE / "inference").glob("*.py")) if "MeasuredSet(" in path.read_text()]
  makers = [path for path in makers if path.name != "suite_sets.py"]
  assert len(makers) >= 6
  for path in [*makers, PACKAGE / "segment.py", PACKAGE / "evaluate.py"]:
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    calls = [node for node in calls if getattr(node.func, "id", "") == "described"]
    assert calls, f"{path.name} writes numbers without their protocol"
    assert all(any("config" in ast.unparse(one) for one in node.args) for node in calls), path.name
  assert "described(" in inspect.getsource(mmcontrast.align)
