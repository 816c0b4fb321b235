"""Similarity of texts: correlations by hand, files of pairs, captions by their tags, and what cannot be read."""

import numpy as np
import pytest

from mmcontrast.errors import UserError
from mmcontrast.evaluation import similarity
from mmcontrast.evaluation.embed import Space
from mmcontrast.evaluation.embedded_set import EmbeddedSet
from mmcontrast.evaluation.metric_names import metric_names


def test_correlations_by_hand():
  found = similarity.correlations(np.array([0.1, 0.2, 0.9, 0.3]), np.array([1.0, 2.0, 5.0, 2.0]))
  # Ranks 1, 2, 4, 3 and 1, 2.5, 4, 2.5.
  assert found["spearman"] == pytest.approx(4.5 / np.sqrt(5 * 4.5)) and found["pairs"] == 4
  assert found["pearson"] == pytest.approx(np.corrcoef([0.1, 0.2, 0.9, 0.3], [1, 2, 5, 2])[0, 1])
  assert similarity.correlations(np.ones(3), np.arange(3.0)) == {"spearman": 0.0, "pearson": 0.0, "pairs": 3.0}


def test_pairs_by_tags():
  tags = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [0, 0, 1]], np.uint8)
  found = similarity.pairs_by_tags(["a", "b", "c", "d"], tags, 10)
  assert found.texts == ["a", "b", "d"] and found.places.tolist() == [[0, 1], [0, 2], [1, 2]]
  np.testing.assert_allclose(found.alike, [1 / 2, 0, 0])
  assert similarity.pairs_by_tags(["a", "b", "c", "d"], tags, 2).texts == ["a", "d"]


FILES = {
  "plain.tsv": '5.0\tconcept 1\tconcept "2\n0\tconcept 3\tconcept 1\n',
  "header.tsv": 'genre\tscore\tsentence1\tsentence2\nnews\t5.0\tconcept 1\tconcept "2\nnews\t0\tconcept 3\tconcept 1\n',
  "header.csv": 'sentence1,sentence2,score\nconcept 1,"concept ""2",5.0\nconcept 3,concept 1,0\n',
}


@pytest.mark.parametrize("name", FILES)
def test_files(tmp_path, name):
  (tmp_path / name).write_text(FILES[name])
  found = similarity.read_pairs(str(tmp_path / name), "file")
  assert found.texts == ["concept 1", 'concept "2', "concept 3"] and found.places.tolist() == [[0, 1], [2, 0]]
  assert found.alike.tolist() == [5.0, 0.0]


def test_a_model(world, tmp_path):
  """By tags, which are the concepts' groups, concepts of one group are alike; a file is of the first set."""
  tests = [EmbeddedSet(world.set(name, seen=False), world.embed) for name in ("one", "two")]
  found = similarity.evaluate(tests, [])
  config = {"sets": ("one", "two"), "evaluators": {"similarity": {}}}
  named = [f"{name}/{metric}" for name, metrics in found.items() for metric in metrics]
  assert metric_names(config, lambda name: {}) == named
  config["evaluators"]["similarity"] = {"file": "pairs.tsv"}
  assert metric_names(config, lambda name: {}) == named[:3]
  assert set(found) == {"one", "two"} and found["one"]["text_similarity/pairs"] == 60 * 59 / 2
  assert found["one"]["text_similarity/spearman"] > 0.6
  (tmp_path / "pairs.tsv").write_text("".join(f"{i % 3 == 0}\tconcept 0\tconcept {i}\n" for i in range(1, 9)).replace(
    "True", "1").replace("False", "0"))  # fmt: skip
  found = similarity.evaluate(tests, [], file=str(tmp_path / "pairs.tsv"))
  rows = world.embed("text", [f"concept {i}" for i in range(9)])
  rows /= np.linalg.norm(rows, axis=1, keepdims=True)
  wanted = similarity.correlations(rows[1:] @ rows[0], np.array([0, 0, 1, 0, 0, 1, 0, 0.0]))
  assert list(found) == ["one"]
  assert found["one"] == {f"text_similarity/{name}": pytest.approx(value, abs=1e-6) for name, value in wanted.items()}


def test_wrong_input(world, tmp_path):
  (tmp_path / "bad.tsv").write_text("1.0\ta\tb\nhigh\ta\tb\n")
  (tmp_path / "empty.tsv").write_text("")
  (tmp_path / "nan.tsv").write_text("1.0\ta\tb\nnan\ta\tb\n")
  test = EmbeddedSet(world.set("one", seen=False), world.embed)
  images = EmbeddedSet(world.set("one", seen=False), world.embed, space=Space({}, "image", {"image": ("image",)}))
  for options, message in (
    (dict(file=str(tmp_path / "bad.tsv")), r"file: .*bad\.tsv, line 2: 'high \| a \| b' is no score and two texts"),
    (dict(file=str(tmp_path / "none.tsv")), r"none\.tsv cannot be read \(No such file"),
    (dict(file=str(tmp_path / "empty.tsv")), "is empty; each line is a score and two texts"),
    (dict(file=str(tmp_path / "nan.tsv")), r"file: .*nan\.tsv, line 2: 'nan \| a \| b' is no score and two texts"),
    (dict(most=1), "most: 1; give 2 or more"),
  ):
    with pytest.raises(UserError, match=message):
      similarity.evaluate([test], [], **options)
  with pytest.raises(UserError, match=r"config\.evaluation\.text names no head of this run"):
    similarity.evaluate([images], [])
  with pytest.raises(UserError, match=r"node: 'image' is of image; name a tower or head of texts"):
    similarity.evaluate([images], [], node="image")
  with pytest.raises(UserError, match="has no tags"):
    similarity.evaluate([EmbeddedSet(world.set("one", seen=False, tags=None), world.embed)], [])
