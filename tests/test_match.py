"""`mmcontrast match` and `search --rerank`: by the head of a run that says whether two things belong together."""

import jax
import numpy as np
import pytest
from PIL import Image
from tiny import tiny_inference
from toy_source import Toy

from mmcontrast import embed as program
from mmcontrast import search as room
from mmcontrast.cli import main
from mmcontrast.config import base_config
from mmcontrast.errors import UserError
from mmcontrast.inference import Inference
from mmcontrast.match import match
from mmcontrast.modalities import MODALITIES
from mmcontrast.models.model import build_model
from mmcontrast.search import search

PLAIN = tiny_inference(step=5)


def matching_model():
  c = base_config().to_dict() | {key: PLAIN.config[key] for key in ("data", "evaluation")}
  c["towers"] = PLAIN.config["towers"] | dict(
    fusion=dict(name="fusion_transformer", reads=("text", "image"), width=8, depth=1, heads=2)
  )
  c["heads"] = PLAIN.config["heads"] | dict(match=dict(tower="fusion", name="match"))
  model = build_model(c, 30)
  zeros = {name: MODALITIES[name].zeros(2, c) for name in ("image", "text")}
  shapes, draw = jax.eval_shape(model.init, jax.random.key(0), zeros), np.random.default_rng(0)
  variables = jax.tree.map(lambda leaf: draw.normal(0, 0.5, leaf.shape).astype(np.float32), shapes)
  return Inference(c, model, variables, PLAIN.tokenizer, 5)


MODEL = matching_model()


@pytest.fixture(autouse=True)
def toy(monkeypatch):
  models = {"run": MODEL, "plain": PLAIN}
  for module in (program, room):
    monkeypatch.setattr(module, "open_source", lambda config, split, data_dir: Toy(20, {}))
    monkeypatch.setattr(module, "load", lambda workdir, step, data_dir: models[str(workdir)])
  monkeypatch.setattr("mmcontrast.match.load", lambda workdir, step, data_dir: models[str(workdir)])


@pytest.fixture
def picture(tmp_path):
  Image.fromarray(np.full((12, 12, 3), (17, 90, 0), np.uint8)).save(tmp_path / "query.png")
  return str(tmp_path / "query.png")


def probability(path, text):
  pixels = MODEL.view(path, "image")[None]
  return np.exp(MODEL.match("match", {"image": pixels, "text": [text]}, np.zeros((1, 2), int)))[0]


def test_words_that_say_nothing(picture):
  for first, others in ((picture, ["a cat", " "]), ("", [picture])):
    with pytest.raises(UserError, match=r"^match: words that say nothing; give some, such as"):
      match("run", first, others)


def test_an_image_with_texts_and_a_text_with_images(picture, capsys):
  texts = ["a cat", "two dogs"]
  found = match("run", picture, texts)
  assert [one.name for one in found] == texts and found[0].probability != found[1].probability
  np.testing.assert_allclose(
    [one.probability for one in found], [probability(picture, text) for text in texts], atol=1e-6
  )
  assert match("run", "a cat", picture)[0].probability == pytest.approx(found[0].probability, abs=1e-6)
  assert main(["match", picture, *texts, "--workdir", "run"]) == 0
  assert capsys.readouterr().out.splitlines() == [one.line for one in found]
  assert found[1].line == f"{found[1].probability:.3f}  two dogs"


@pytest.mark.parametrize(("query", "kind"), [("a cat", "image"), ("picture", "text")])
def test_the_first_are_put_in_order_and_no_others(query, kind, picture, tmp_path):
  query = picture if query == "picture" else query
  nearest = search("run", query, "toy", kind=kind, count=12)
  found = search("run", query, "toy", kind=kind, count=4, rerank=12)
  if kind == "text":
    scores = [probability(picture, one.text) for one in nearest]
  else:
    raw = [dict(MODALITIES["image"].values(Toy(20, {})[one.index]))[one.style] for one in nearest]
    scores = [probability(data, query) for data in raw]
  order = np.argsort(-np.array(scores), kind="stable")[:4]
  np.testing.assert_allclose([one.score for one in found], np.array(scores)[order], atol=1e-6)
  assert {one[1:] for one in found} <= {one[1:] for one in nearest} and (kind == "text" or len(set(scores)) > 4)
  program.embed("run", "toy", tmp_path / "rows")
  again = search("run", query, embeddings=tmp_path / "rows", kind=kind, count=4, rerank=12)
  assert [one[1:] for one in again] == [one[1:] for one in found]


@pytest.mark.filterwarnings("error")
def test_what_surely_does_not_match_is_last_and_no_logarithm_of_zero(monkeypatch):
  """With the cosine beside the head; exp(-800) is 0."""
  monkeypatch.setattr(Inference, "match", lambda *call: np.where(np.arange(len(call[-1])) % 2, -0.1, -800.0))
  monkeypatch.setattr(Inference, "cosine_scale", lambda *_: 10.0)
  monkeypatch.setitem(MODEL.config["evaluation"], "evaluators", {"retrieval": dict(match_order="head_and_cosine")})
  nearest = search("run", "a cat", "toy", kind="image", count=12)
  found = search("run", "a cat", "toy", kind="image", count=12, rerank=12)
  assert {one.index for one in found[:6]} == {one.index for one in nearest[1::2]}
  assert sum(one.score for one in found) == pytest.approx(1) and found[-1].score == 0


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda path: match("plain", path, "x"), r"plain: this run has no head that says whether two things belong"),
    (lambda path: match("run", path, path), r"run: this run matches captions with images, not images with images"),
    (lambda path: match("run", path, ["a", path]), r"query\.png is compared with captions and images; give things of"),
    (lambda path: match("run", path, "a", head="mach"), r"run: head: no such choice 'mach'; did you mean 'match'"),
    (lambda path: match("run", path, []), r"match: nothing to compare with"),
    (lambda path: match("run", "nowhere.png", "a"), r"nowhere\.png: no such image file"),
    (lambda path: search("plain", "a", "toy", rerank=64), r"--rerank: this run has no head that says whether"),
    (lambda path: search("run", path, "toy", kind="image", rerank=64), r"--rerank: .* not images with images"),
    (lambda path: search("run", "a", "toy", rerank=5), r"--rerank 5: fewer than are shown; give 10 or more"),
  ],
)
def test_what_cannot_be_matched(call, message, picture):
  with pytest.raises(UserError, match=message) as error:
    call(picture)
  assert "\n" not in str(error.value)
