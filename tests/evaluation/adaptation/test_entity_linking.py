"""Entity linking: the score of what parts there are, entities of several examples, ties, what is said."""

import numpy as np
import pytest

from mmcontrast.data.evaluation_set import ExampleViews
from mmcontrast.errors import UserError
from mmcontrast.evaluation.adaptation.entity_linking import Parts, grouped, ranks, scores
from mmcontrast.evaluation.embed import unit
from mmcontrast.evaluation.metric_names import metric_names
from mmcontrast.evaluation.suite import run_suite

ALL = {f"{one}_{other}": 1.0 for one in ("text", "image") for other in ("text", "image")}


def drawn(count, seed):
  draw = np.random.default_rng(seed)
  return Parts({part: unit(draw.normal(size=(count, 5))) for part in ("text", "image")}, np.arange(count))


def test_a_score_is_the_mean_over_the_pairs_that_there_are():
  mentions, entities = drawn(2, 0), drawn(3, 1)
  mentions.rows["image"][1] = 0
  entities.rows["text"][2] = 0
  weights = ALL | {"text_image": 0.5}
  found = scores(mentions, entities, weights)
  cosine = lambda one, other, at, to: float(mentions.rows[one][at] @ entities.rows[other][to])  # noqa: E731
  pairs = [("text", "text"), ("text", "image"), ("image", "text"), ("image", "image")]
  by_hand = np.dot([1, 0.5, 1, 1], [cosine(*pair, 0, 0) for pair in pairs]) / 3.5
  assert found[0, 0] == pytest.approx(by_hand)
  assert found[1, 2] == pytest.approx(cosine("text", "image", 1, 2))
  assert scores(mentions, entities, {"image_text": 1.0})[1, 2] == -1  # nothing in common


def test_an_entity_is_the_mean_of_its_examples():
  parts = drawn(3, 0)._replace(ids=np.array([7, 4, 7]))
  found = grouped(parts)
  assert found.ids.tolist() == [4, 7]
  np.testing.assert_allclose(
    found.rows["text"][1], unit(parts.rows["text"][[0, 2]].sum(0, keepdims=True))[0], atol=1e-6
  )


def test_a_tie_counts_against_the_entity_and_others_ids_are_left_out():
  entities = drawn(4, 0)
  entities.rows["text"][1] = entities.rows["text"][0]
  entities.rows["image"][1] = entities.rows["image"][0]
  mentions = Parts(entities.rows, np.array([0, 1, 2, 99]))
  assert ranks(mentions, entities, ALL).tolist() == [2, 2, 1]


def of_views(data):
  """A set whose examples show their image, and the name of their concept."""
  count = len(data.example_id)
  views = {
    "image": ExampleViews(data.things["image"].values, np.arange(count)[None]),
    "text": ExampleViews([f"concept {one}" for one in data.example_id], np.arange(count)[None]),
  }
  data.views.update(views)
  return data


def config(**options):
  return {"sets": ("s",), "train_sets": ("known",), "features": "image", "evaluators": {"entity_linking": options}}


def test_mentions_of_one_set_are_linked_to_entities_of_others(world):
  data = {"s": of_views(world.set("s", False, range(20), style=1)), "known": of_views(world.set("known", True))}
  found = run_suite(world.embed, config(mention="image", weights=dict(image_image=1.0)), data.__getitem__)
  rows = [unit(world.embed("image", data[name].things["image"].values)) for name in ("s", "known")]
  expected = np.mean((rows[0] @ rows[1].T).argmax(1) == np.arange(20))
  assert found["s/entity_linking/hits@1"] == pytest.approx(expected)
  assert found["s/entity_linking/candidates"] == 60 and found["s/entity_linking/queries"] == 20
  assert run_suite(world.embed, config(), data.__getitem__)["s/entity_linking/mrr"] > 0.9
  assert sorted(metric_names(config(), lambda name: {})) == sorted(found)


@pytest.mark.parametrize(
  "options, message",
  [
    (dict(mention="sound"), "entity_linking.mention: no such choice 'sound'"),
    (dict(mention="text", weights=dict(image_text=1.0)), "entity_linking.weights: no such choice 'image_text'"),
    (dict(weights=dict(text_text=-1)), r"entity_linking.weights.text_text: -1; give 0 or more"),
    (dict(weights=dict(text_text=0)), "entity_linking.weights: all are 0; give one above"),
    ({}, "no id of 's' is one of known, the entities"),
  ],
)
def test_what_cannot_be_linked_is_one_line(world, options, message):
  data = {
    "s": of_views(world.set("s", False, range(20, 40), style=1)),
    "known": of_views(world.set("known", True, range(20))),
  }
  with pytest.raises(UserError, match=message):
    run_suite(world.embed, config(**options), data.__getitem__)
