"""A head that says of two things whether they belong together: its scores, and retrieval put in order by them."""

import types

import jax
import numpy as np
import pytest
from image_text_set import image_text_set

from mmcontrast.config import base_config
from mmcontrast.errors import UserError
from mmcontrast.evaluation.embedded_set import EmbeddedSet
from mmcontrast.evaluation.metric_names import metric_names
from mmcontrast.evaluation.suite import check, check_space, run_suite
from mmcontrast.inference import Inference
from mmcontrast.modalities import MODALITIES
from mmcontrast.modalities.views import Inputs
from mmcontrast.models.model import build_model

CAPTIONS = [f"{'a' * n}" for n in range(1, 13)]
IMAGES = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def model():
  c = base_config()
  c.data.image_size, c.data.text_length = 16, 5
  small = dict(width=8, depth=1, heads=2)
  c.towers = dict(
    image=dict(name="vit", patch=8, **small),
    text=dict(name="text_transformer", **small),
    fusion=dict(name="fusion_transformer", reads=("text", "image"), **small),
  )
  c.heads = dict(
    pictures=dict(tower="image", name="linear", dim=4),
    words=dict(tower="text", name="linear", dim=4),
    match=dict(tower="fusion", name="match", dim=2),
  )
  c.evaluation.update(image="pictures", text="words", batch_size=16)
  config = c.to_dict()
  built = build_model(config, 30)
  views = {name: MODALITIES[name].zeros(2, config) for name in ("image", "text")}
  shapes = jax.eval_shape(built.init, jax.random.key(0), views)
  draw = np.random.default_rng(0)
  variables = jax.tree.map(lambda leaf: draw.normal(0, 0.5, leaf.shape).astype(np.float32), shapes)
  tokenizer = types.SimpleNamespace(
    tokens=lambda texts: [[1, 3 + len(text), 2] for text in texts],
    encode=lambda texts, length: np.array([[1, 3 + len(text), 2, 0, 0] for text in texts], np.int32),
  )
  return Inference(config, built, variables, tokenizer, 5)


def every_score(model):
  pairs = np.array([(text, image) for text in range(12) for image in range(12)])
  return model.match("match", {"text": CAPTIONS, "image": IMAGES}, pairs).reshape(12, 12)


def test_scores_are_those_of_the_graph(model):
  scores = every_score(model)
  ids = model.seen("text", CAPTIONS)
  pixels = model.embed("image/image.pooled", IMAGES)  # the towers run alone as well
  assert pixels.shape == (12, 8) and np.unique(scores.round(5)).size > 100 and (scores < 0).all()
  views = {
    "image": MODALITIES["image"].inputs(IMAGES, model.config),
    "text": MODALITIES["text"].inputs(ids, model.config),
  }
  views = {name: Inputs(*(None if x is None else x[:, None] for x in one)) for name, one in views.items()}
  path = "fusion(text[0], image[0])/match"
  logits = model.model.embed(model.variables, views, [path], train=False)[0][path].logits
  np.testing.assert_allclose(np.diag(scores), np.asarray(jax.nn.log_softmax(logits, -1))[:, 1], atol=1e-5)
  with pytest.raises(UserError, match="match: head: no such choice 'matsch'; did you mean 'match'"):
    model.match("matsch", {}, np.zeros((0, 2), int))


@pytest.mark.parametrize(("candidates", "order", "scale"), [(1, "head", None), (4, "head", 5.0), (12, "head", None),
                                                            (12, "head_and_cosine", 5.0)])  # fmt: skip
def test_the_nearest_are_put_in_order_by_it(model, candidates, order, scale):
  data = image_text_set(images=IMAGES, image_id=np.arange(12), captions=CAPTIONS, caption_id=np.arange(12),
                        name="s", seen=False)  # fmt: skip
  one = EmbeddedSet(data, model.embed, "s", seen=model.seen, space=model.space, match=model.match,
                    scale=lambda *_: scale)  # fmt: skip
  options = {"match": "match", "candidates": candidates, "match_order": order}
  config = {"sets": ("s",), "features": "image", "evaluators": {"retrieval": options}}
  check_space(config, model.space)
  found = run_suite(model.embed, config, None, sets={"s": one})
  ways = lambda name: model.space.ways()  # noqa: E731
  assert sorted(metric_names(config, lambda name: {}, (), ways, "image", model.space.matches)) == sorted(found)
  images, texts, scores = model.embed("image", IMAGES), model.embed("text", CAPTIONS), every_score(model)
  for way, cosines, matched in (
    ("image_to_text", images @ texts.T, scores.T),
    ("text_to_image", texts @ images.T, scores),
  ):
    if order == "head_and_cosine":
      matched = np.log(np.exp(matched) / (1 - np.exp(matched))) + scale * cosines
    ranks = []
    for query in range(12):
      nearest = np.argsort(-cosines[query], kind="stable")
      place = list(nearest).index(query)
      ahead = [n for n in nearest[:candidates] if n != query and matched[query, n] >= matched[query, query]]
      ranks.append(1 + len(ahead) if place < candidates else 1 + place)
    assert found[f"s/{way}_by_match/median_rank"] == np.median(ranks)
    assert found[f"s/{way}_by_match/recall@1"] == pytest.approx(np.mean(np.array(ranks) == 1))
    if candidates == 1:
      assert found[f"s/{way}_by_match/recall@5"] == found[f"s/{way}/recall@5"]


def test_a_scale_that_nobody_learned_is_one_line(model):
  data = image_text_set(images=IMAGES, image_id=np.arange(12), captions=CAPTIONS, caption_id=np.arange(12),
                        name="s", seen=False)  # fmt: skip
  one = EmbeddedSet(
    data, model.embed, "s", seen=model.seen, space=model.space, match=model.match, scale=lambda *_: None
  )
  config = {"sets": ("s",), "features": "image",
            "evaluators": {"retrieval": {"match": "match", "match_order": "head_and_cosine"}}}  # fmt: skip
  with pytest.raises(UserError, match="this run has learned no scale of the cosine of image and text; give 'head'"):
    run_suite(model.embed, config, None, sets={"s": one})
  config["evaluators"]["retrieval"]["match_order"] = "heads"
  with pytest.raises(UserError, match=r"retrieval.match_order: no such choice 'heads'; did you mean 'head'"):
    check_space(config, model.space)


def test_what_matches_nothing_is_one_line(model):
  for head, message in (
    ("words", r"retrieval\.match: heads that give logits.*no such choice 'words'"),
    ("matsch", "'match'"),
  ):
    with pytest.raises(UserError, match=message):
      check_space({"sets": ("s",), "features": "image", "evaluators": {"retrieval": {"match": head}}}, model.space)
  assert model.space.matches == {"match": ("text", "image")}


def example_set(count=12):
  """Each example shows an image and a caption; the caption of the last is missing."""
  captions = [*CAPTIONS[: count - 1], ""]
  return image_text_set(
    images=IMAGES[:count], image_id=np.arange(count), captions=CAPTIONS[:count], caption_id=np.arange(count),
    text_views=(captions,), example_id=np.arange(count), example_image=np.arange(count), name="s", seen=True,
    labels={"kind": np.arange(count) % 2}, label_names={"kind": ["a", "b"]},
    split=np.array(["train", "train", "test"] * (count // 3)), trains_probes=True,
  )  # fmt: skip


def test_evaluators_ask_for_nodes_of_a_fusion(model):
  """Its things are the examples that show both, whatever is asked of it."""
  one = EmbeddedSet(example_set(), model.embed, "s", seen=model.seen, space=model.space, match=model.match)
  assert model.space.nodes["fusion"] == model.space.nodes["match"] == ("text", "image")
  config = {"sets": ("s",), "features": "image",
            "evaluators": {"knn": {"label": "kind", "k": 3, "node": ("fusion.pooled", "match.logits", "image.map")},
                           "retrieval": {"nodes": (("fusion.pooled", "image"), ("pictures", "words"))}}}  # fmt: skip
  check(config)
  check_space(config, model.space)
  found = run_suite(model.embed, config, None, sets={"s": one})
  ways = lambda name: model.space.ways()  # noqa: E731
  classes = lambda name: {"kind": ["a", "b"]}  # noqa: E731
  assert sorted(metric_names(config, classes, (), ways, "image", model.space.matches)) == sorted(found)
  # The node's numbers are those of the graph, pair by pair; the example without a caption is none of its things.
  logits = one.features("match.logits")
  scores = model.match("match", {"text": CAPTIONS, "image": IMAGES}, np.stack([np.arange(11)] * 2, 1))
  np.testing.assert_allclose(jax.nn.log_softmax(logits, -1)[:, 1], scores, atol=1e-5)
  assert list(one.things_of("match.logits").concept) == list(range(11))
  assert found["s/fusion.pooled_to_image/queries"] == 11 and found["s/fusion.pooled_to_image/candidates"] == 12
  # Of two heads it is the retrieval that the evaluation's own are compared by.
  for metric in ("recall@1", "median_rank"):
    assert found[f"s/pictures_to_words/{metric}"] == found[f"s/image_to_text/{metric}"]
  both = model.embed("fusion/fusion.tokens", {"text": CAPTIONS[:3], "image": IMAGES[:3]})
  assert both.shape == (3, 8)


@pytest.mark.parametrize(
  ("evaluators", "message"),
  [
    (
      dict(knn=dict(node="fusion.map")),
      r"knn\.node: 'fusion' makes no map output; write fusion\.pooled or fusion\.tok",
    ),
    (dict(knn=dict(node="match.tokens")), r"knn\.node: 'match' makes no tokens output; write match\.logits"),
    (dict(tagging=dict(node="fuson")), r"tagging\.node: no such choice 'fuson'; did you mean 'fusion'"),
    (
      dict(retrieval=dict(nodes=(("image", "wards"),))),
      r"retrieval\.nodes: no such choice 'wards'; did you mean 'words'",
    ),
    (dict(retrieval=dict(nodes=(("image", "words"),))), r"of different lengths .*\('image' 8 and 'words' 4\)"),
    (dict(retrieval=dict(nodes="image")), r"retrieval\.nodes: 'image'; give pairs of nodes"),
    (dict(retrieval=dict(nodes=(("image",),))), r"retrieval\.nodes: \(\('image',\),\); give pairs of nodes"),
  ],
)
def test_a_node_that_cannot_be_asked_for_is_one_line(model, evaluators, message):
  config = {"sets": ("s",), "features": "image", "evaluators": evaluators}
  with pytest.raises(UserError, match=message) as error:
    check(config)
    check_space(config, model.space)
  assert "\n" not in str(error.value)


def test_a_set_without_one_of_a_fusions_modalities_is_one_line(model):
  data = image_text_set(images=IMAGES, image_id=np.arange(12), captions=CAPTIONS, caption_id=np.arange(12),
                        name="s", seen=False)  # fmt: skip
  one = EmbeddedSet(data, model.embed, "s", seen=model.seen, space=model.space)
  with pytest.raises(UserError, match=r"knn\.node: the examples of 's' show no text; leave the set out"):
    one.features("match.logits", "knn.node")
