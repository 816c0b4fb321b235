"""Captions of a set beside their references: pycocoevalcap's numbers, and one line for what cannot be asked."""

import json
import pathlib

import numpy as np
import pytest
from image_text_set import image_text_set

from mmcontrast.errors import UserError
from mmcontrast.evaluation.captioning import bleu4, scores, words_of
from mmcontrast.evaluation.cider import cider_d
from mmcontrast.evaluation.embed import Space, Words
from mmcontrast.evaluation.metric_names import metric_names
from mmcontrast.evaluation.suite import check_space, embed_sets, run_suite

GOLDEN = json.loads((pathlib.Path(__file__).parents[1] / "golden" / "captions.json").read_text())


def test_scores_of_pycocoevalcap():
  captions = [text.split() for text in GOLDEN["captions"]]
  references = [[text.split() for text in texts] for texts in GOLDEN["references"]]
  np.testing.assert_allclose(cider_d(captions, references), GOLDEN["cider_d"], atol=1e-9)
  np.testing.assert_allclose(bleu4(captions, references), GOLDEN["bleu4"], atol=1e-6)


def test_words_and_what_says_nothing():
  assert words_of("A red-hot  HEART!") == ["a", "red", "hot", "heart"]
  found = scores(["A Cat!", "", "dog"], [["a cat", "cats"], ["x"], ["a dog"]])
  assert found["exact"] == pytest.approx(1 / 3) and found["described"] == 3 and found["bleu4"] == 0
  assert 0 < found["cider_d"] < 10


def evaluated(words, evaluators, space=None):
  data = image_text_set(
    np.zeros((3, 4, 4, 3), np.uint8), [0, 1, 9], ["cat", "a cat", "dog", "bee"], [0, 0, 1, 2], name="mine", seen=False
  )
  options = {"sets": ("mine",), "evaluators": evaluators, "train_sets": (), "features": ""}
  if space:
    check_space(options, space)
  embed = lambda kind, values: np.ones((len(values), 2), np.float32)  # noqa: E731
  sets = embed_sets(embed, options, {"mine": data}.get, words=words)
  found = run_suite(embed, options, {"mine": data}.get, sets=sets)
  assert set(metric_names(options, lambda name: {})) == set(found)
  return found


def test_a_set_is_described():
  """An image whose concept has no caption is left out; each caption is expected of its image."""
  asked = []

  def losses(values, texts, head):
    asked.extend(texts)
    return np.full(len(texts), 2.0), np.array([len(text.split()) for text in texts], float)

  words = Words(lambda head: "image", lambda values, head, **search: ["a cat", "cow"][: len(values)], losses)
  found = evaluated(words, {"captioning": {}, "perplexity": {}})
  assert found["mine/captioning/exact"] == 0.5 and found["mine/captioning/described"] == 2
  assert asked == ["cat", "a cat", "dog"]
  assert found["mine/perplexity/of_a_token"] == pytest.approx(np.exp(6 / 4)) and found["mine/perplexity/tokens"] == 4


@pytest.mark.parametrize(
  ("options", "space", "message"),
  [
    ({}, Space(describes=()), r"evaluators\.captioning: this run has no decoder of captions"),
    ({"head": "word"}, Space(describes=("words",)), r"captioning\.head: no such choice 'word'; did you mean 'words'"),
    ({}, Space(describes=("one", "two")), r"captioning\.head: the heads one, two write captions; name one"),
    ({}, None, r"captioning: there is no decoder to write captions"),
  ],
)
def test_one_line(options, space, message):
  with pytest.raises(UserError, match=message):
    evaluated(None, {"captioning": options}, space)
