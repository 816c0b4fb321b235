"""What probes are tested on: no image that they train on, classes by name, ids of one thing only where they say so."""

import numpy as np
import pytest

from mmcontrast.errors import UserError, note
from mmcontrast.evaluation import knn, labelled, linear_probe, tagging
from mmcontrast.evaluation.embedded_set import EmbeddedSet
from mmcontrast.evaluation.suite import run_suite

EVALUATORS = {"knn": {"label": "group", "k": 1}, "linear_probe": {"label": "group"}}


@pytest.fixture(autouse=True)
def _say_again():
  note.cache_clear()


def _random_labels(world, name, concepts, split, **changes):
  labels = {"group": np.random.default_rng(0).integers(0, 3, 60)[list(concepts)]}
  world.groups, world.concepts = 0 * world.groups, np.random.default_rng(1).normal(size=world.concepts.shape)
  return world.set(name, split == "train", concepts, labels=labels, split=np.full(len(concepts), split), **changes)


def test_random_labels_are_not_known_from_the_image_itself(world, capsys):
  """Trained on the first half, tested on all of the same data: only the second half is looked at."""
  sets = {"half": _random_labels(world, "half", range(30), "train"),
          "all": _random_labels(world, "all", range(60), "validation"),
          "rest": _random_labels(world, "rest", range(30, 60), "validation")}  # fmt: skip
  config = {"sets": ("all", "rest"), "train_sets": ("half",), "evaluators": EVALUATORS}
  found = run_suite(world.embed, config, sets.__getitem__)
  for metric in ("knn/group_accuracy", "linear_probe/group_accuracy"):
    assert found[f"all/{metric}"] == found[f"rest/{metric}"] < 0.7
  said = capsys.readouterr().err.splitlines()
  assert said == ["all: 30 of 60 images to be tested are also among those that probes train on; they are left out of "
                  "the test"]  # fmt: skip
  sets["all"] = _random_labels(world, "all", range(30), "validation")
  with pytest.raises(UserError, match="every image of 'all' to be tested is also one that the probe trains on"):
    run_suite(world.embed, config, sets.__getitem__)


def test_tags_and_concepts_are_not_known_from_the_image_itself(world):
  half = EmbeddedSet(world.set("half", True, range(30), split=np.full(30, "train")), world.embed)
  whole = EmbeddedSet(world.set("all", True, range(60), split=np.full(60, "test")), world.embed)
  rest = EmbeddedSet(world.set("rest", True, range(30, 60), split=np.full(30, "test")), world.embed)
  assert tagging.evaluate([whole], [half])["all"] == tagging.evaluate([rest], [half])["rest"]
  with pytest.raises(UserError, match="every image of 'half'"):  # the same drawings under another name
    knn.evaluate([half], [whole], label="concept")


def test_a_class_that_the_test_part_lacks_has_no_share_in_the_mean(world, capsys):
  """Folders of three classes to train on, of two to test on, as they number their classes themselves."""
  train = world.set("train", True, range(30), split=np.full(30, "train"))
  concepts = [i for i in range(30, 60) if world.group[i] != 1]
  two = world.set("val", False, concepts, split=np.full(len(concepts), "test"),
                  labels={"group": np.array([{0: 0, 2: 1}[world.group[i]] for i in concepts])},
                  label_names={"group": ["group 0", "group 2"]})  # fmt: skip
  for evaluator in (knn, linear_probe):
    found = evaluator.evaluate([EmbeddedSet(two, world.embed)], [EmbeddedSet(train, world.embed)], label="group")["val"]
    task = evaluator.__name__.rpartition(".")[2]
    assert found[f"{task}/group_accuracy"] > 0.8 and found[f"{task}/group_classes"] == 2
    assert found[f"{task}/group_mean_per_class"] > 0.8
  assert "'val' has no 'group 1' among its 'group'; the mean per class is over the others" in capsys.readouterr().err
  with pytest.raises(UserError, match=r"'train' and 'val' do not name the classes .* alike: 'group 1' of 'train'"):
    knn.evaluate([EmbeddedSet(world.set("train", True, range(30)), world.embed)],
                 [EmbeddedSet(two.__class__(**{**vars(two), "split": np.full(len(concepts), "train")}), world.embed)],
                 label="group")  # fmt: skip


def test_tags_are_the_same_by_name(world, capsys):
  train = EmbeddedSet(world.set("train", True, range(30), split=np.full(30, "train")), world.embed)
  whole = world.set("val", False, range(30, 60), split=np.full(30, "test"))
  order = ["tag 2", "new", "tag 0", "tag 1"]
  columns = np.stack([np.ones(30, np.uint8) if name == "new" else whole.tags[:, int(name[-1])] for name in order], 1)
  other = world.set("val", False, range(30, 60), split=np.full(30, "test"), tags=columns, tag_names=order)
  found, same = (tagging.evaluate([EmbeddedSet(data, world.embed)], [train])["val"] for data in (other, whole))
  assert found == same
  assert "tags of 'val' that the probe does not train on are left out: 'new'" in capsys.readouterr().err


def test_mean_per_class_by_hand():
  found = labelled.accuracies(np.array([0, 0, 0, 1]), np.array([0, 0, 2, 1]))
  assert found == {"accuracy": 0.75, "mean_per_class": pytest.approx(2 / 3), "classes": 3.0}


def test_rows_of_different_data_are_not_one_concept(world):
  """Row 7 of one table and row 7 of another: by their numbers alone one thing, which they are not."""
  one, two = (EmbeddedSet(world.set(name, True, style=n, id_space=np.full(60, n)), world.embed)
              for n, name in enumerate("ab"))  # fmt: skip
  with pytest.raises(UserError, match="'a' shares no concept with the other training sets; ids of different data"):
    knn.evaluate([one], [one, two], label="concept")
  gathered = labelled.gather([one, two], "group", None, "here")
  assert len(np.unique(gathered.concept)) == 120


def test_hashed_ids_below_zero_are_ids(world):
  data = world.set("a", True, image_id=-2 - np.arange(60))
  assert len(labelled.gather([EmbeddedSet(data, world.embed)], "concept", None, "here").target) == 60


@pytest.mark.parametrize("splits", [("validation", "validation"), ("train", "train"), ("test", "train")])
def test_sets_named_to_train_on_and_to_test_are_so_whatever_their_splits_are_called(world, splits):
  """Folders "trn" and "val", of no split that is called train; another data set's train split as the test."""
  sets = {name: world.set(name, False, concepts, split=np.full(30, split))
          for name, concepts, split in zip(("trn", "val"), (range(30), range(30, 60)), splits)}  # fmt: skip
  config = {"sets": ("val",), "train_sets": ("trn",), "evaluators": EVALUATORS}
  assert run_suite(world.embed, config, sets.__getitem__)["val/linear_probe/group_accuracy"] > 0.8
