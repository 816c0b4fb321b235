"""What zero-shot calls the classes: lists, tables and files of names; names that two classes share."""

import json

import numpy as np
import pytest

from mmcontrast.data.sources.fields import Fields
from mmcontrast.errors import UserError, note
from mmcontrast.evaluation import class_names, zero_shot
from mmcontrast.evaluation.embedded_set import EmbeddedSet
from mmcontrast.evaluation.suite import check

WORDNET = ["n01440764", "n02012849", "n03126707"]
CALLED = [("tench", "Tinca tinca"), ("crane",), ("crane",)]


@pytest.mark.parametrize("given", [
  (("tench", "Tinca tinca"), "crane", "crane"),
  {"n03126707": "crane", "n01440764": ["tench", "Tinca tinca"], "n02012849": "crane", "n09999999": "another"},
])  # fmt: skip
def test_lists_and_tables(given):
  assert class_names.choose(given, WORDNET, "class") == CALLED


@pytest.mark.parametrize("name, text", [
  ("c.json", json.dumps({"0": ["n01440764", "tench", "Tinca tinca"], "10": ["n03126707", "crane"],
                         "9": ["n02012849", "crane"]})),
  ("c.json", json.dumps([["tench", "Tinca tinca"], "crane", "crane"])),
  ("c.json", json.dumps({"0": ["tench", "Tinca tinca"], "1": ["crane"], "2": "crane"})),
  ("LOC_synset_mapping.txt", "n02012849 crane\nn01440764 tench, Tinca tinca\n\nn03126707 crane\n"),
  ("c.tsv", "n01440764\ttench, Tinca tinca\nn03126707\tcrane\nn02012849\tcrane\n"),
])  # fmt: skip
def test_files(tmp_path, name, text):
  (tmp_path / name).write_text("\ufeff" + text, encoding="utf-8")
  assert class_names.choose(str(tmp_path / name), WORDNET, "class") == CALLED


def test_a_line_a_class_in_order(tmp_path):
  (tmp_path / "c.txt").write_text("great white shark, the fish\n crane \ncrane\n")
  assert class_names.choose(str(tmp_path / "c.txt"), WORDNET, "class")[0] == ("great white shark, the fish",)


@pytest.mark.parametrize("given, message", [
  (("a", "b"), r"2 names for the 3 classes of 'class', which are in this order: n01440764"),
  ({"n01440764": "a", "n02012849": "b"}, r"nothing for 1 of 3 classes of 'class', such as 'n03126707'"),
  (("a", "", "b"), r"'' for 1 is not a name"),
  (("a", 3, "b"), r"3 for 1 is not a name"),
  ("/nowhere/c.txt", r"/nowhere/c\.txt: cannot be read \(No such file"),
  (5, r"5 is neither a file, nor a list, nor a table"),
])  # fmt: skip
def test_mistakes(given, message):
  with pytest.raises(UserError, match=message) as error:
    class_names.choose(given, WORDNET, "class")
  assert "\n" not in str(error.value)
  if "classes" not in message:  # what needs no data is found before training
    with pytest.raises(UserError, match=message):
      check({"sets": ("s",), "evaluators": {"zero_shot": {"names": given}}})


def test_several_names_are_one_class_and_equal_names_are_ties(capsys):
  """Vectors by hand: "b c" lies between its two names; classes 2 and 3 share one, and both are wrong at top-1."""
  note.cache_clear()
  rows = {"a": [1.0, 0, 0], "b": [0, 2.0, 0], "c": [0, 0, 1.0], "d": [-1.0, 0, 0]}
  names = [("a",), ("b", "c"), ("d",), ("d",)]
  found = zero_shot.class_embeddings(lambda kind, texts: np.array([rows[text] for text in texts]), names, ("{}",))
  np.testing.assert_allclose(found, [[1, 0, 0], [0, 0.5**0.5, 0.5**0.5], [-1, 0, 0], [-1, 0, 0]], atol=1e-6)
  images = np.array([[1.0, 0, 0], [0, 1, 1], [-1, 0, 0], [-1, 0, 0]])
  assert zero_shot.zero_shot(images, found, np.arange(4)) == {"top1": 0.5}


def test_the_evaluator_takes_names_and_says_which_are_equal(world, capsys):
  note.cache_clear()
  data = world.set("s", True, label_names={"group": [f"n0000000{n}" for n in range(3)]})
  one = EmbeddedSet(data, world.embed)
  given = {f"n0000000{n}": [f"group {n}", f"a group {n}"] for n in range(3)}
  assert zero_shot.evaluate([one], [], label="group", names=given)["s"]["zero_shot/group_top1"] > 0.8
  assert not capsys.readouterr().err
  equal = zero_shot.evaluate([one], [], names=("group 0", "group 1", "group 1"))["s"]["zero_shot/group_top1"]
  assert equal < 0.4
  said = capsys.readouterr().err
  assert "1 of 3 classes of 'group' have the names of another one, such as 'n00000001' and 'n00000002'" in said
  assert class_names.choose(None, WORDNET, "class") == [(name,) for name in WORDNET]
  assert "which says nothing to a model" in capsys.readouterr().err


def test_names_that_tell_classes_apart_point_to_those_that_need_not():
  with pytest.raises(UserError, match=r"label_names\.k: 'crane' is given twice; .*evaluators\.zero_shot\.names"):
    Fields({"labels": "k", "label_names": {"k": ["crane", "tench", "crane"]}}, "csv:x")
