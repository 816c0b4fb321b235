"""Words taken from captions: what a run guesses of them, with the things that they describe and without."""

import jax
import numpy as np
import pytest
from image_text_set import image_text_set
from tiny import tiny_inference

from mmcontrast.config import base_config
from mmcontrast.errors import UserError
from mmcontrast.evaluation.embedded_set import EmbeddedSet
from mmcontrast.evaluation.metric_names import metric_names
from mmcontrast.evaluation.suite import check_space, run_suite
from mmcontrast.inference import Inference
from mmcontrast.modalities import MODALITIES
from mmcontrast.modalities.views import Inputs
from mmcontrast.models.model import build_model

PLAIN = tiny_inference(step=5)
CAPTIONS = ["a" * n for n in range(1, 7)]
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def model():
  c = base_config().to_dict() | {key: PLAIN.config[key] for key in ("data", "towers")}
  small = dict(width=8, depth=1, heads=2)
  c["towers"] = c["towers"] | dict(fusion=dict(name="fusion_transformer", reads=("text", "image"), **small))
  c["heads"] = PLAIN.config["heads"] | dict(
    words_seen=dict(tower="fusion", name="words"), words_alone=dict(tower="text", name="words")
  )
  c["evaluation"] = {**PLAIN.config["evaluation"], "batch_size": 4}
  built = build_model(c, 30)
  zeros = {name: MODALITIES[name].zeros(2, c) for name in ("image", "text")}
  shapes, draw = jax.eval_shape(built.init, jax.random.key(0), zeros), np.random.default_rng(0)
  variables = jax.tree.map(lambda leaf: draw.normal(0, 0.5, leaf.shape).astype(np.float32), shapes)
  tokenizer = PLAIN.tokenizer
  for name, value in dict(pad_id=0, bos_id=1, eos_id=2, mask_id=29, vocab_size=30, name="tiny").items():
    setattr(tokenizer, name, value)
  return Inference(c, built, variables, tokenizer, 5)


def evaluated(model, head):
  data = image_text_set(images=IMAGES, image_id=np.array([0, 1, 1, 9]), captions=CAPTIONS,
                        caption_id=np.array([0, 0, 1, 2, 1, 3]), name="s", seen=False)  # fmt: skip
  one = EmbeddedSet(data, model.embed, "s", seen=model.seen, space=model.space, guess=model.guess)
  config = {"sets": ("s",), "features": "image", "evaluators": {"masked_words": {"head": head}}}
  check_space(config, model.space)
  found = run_suite(model.embed, config, None, sets={"s": one})
  assert sorted(metric_names(config, lambda name: {})) == sorted(found)
  return {name.removeprefix("s/masked_words/"): value for name, value in found.items()}


@pytest.mark.parametrize("head", ["words_seen", "words_alone"])
def test_of_each_caption_its_word_with_each_thing_of_its_concept(model, head):
  """The tokens of a text are start, one word, end: the word is what is taken."""
  assert model.space.guesses == {"words_seen": ("text", "image"), "words_alone": ("text",)}
  found = evaluated(model, head)
  pairs = [(0, 0), (1, 0), (2, 1), (2, 2), (4, 1), (4, 2)] if head == "words_seen" else [(k, None) for k in range(6)]
  losses, hits = [], []
  for text, image in pairs:
    ids = model.seen("text", CAPTIONS[text : text + 1])
    masked = np.where(np.arange(5) == 1, 29, ids)
    views = {"text": MODALITIES["text"].inputs(masked, model.config)}
    path = "text[0]/words_alone"
    if image is not None:
      path = "fusion(text[0], image[0])/words_seen"
      views["image"] = MODALITIES["image"].inputs(IMAGES[image : image + 1], model.config)
    views = {name: Inputs(*(None if x is None else x[:, None] for x in one)) for name, one in views.items()}
    logits = model.model.embed(model.variables, views, [path], train=False)[0][path].logits[0, 1]
    losses.append(-jax.nn.log_softmax(logits)[ids[0, 1]])
    hits.append(int(np.argmax(logits) == ids[0, 1]))
  assert found["texts"] == found["words"] == len(pairs)
  assert found["perplexity"] == pytest.approx(np.exp(np.mean(losses)), rel=1e-4)
  assert found["accuracy"] == pytest.approx(np.mean(hits))


def test_what_cannot_guess_is_one_line(model):
  config = {"sets": ("s",), "features": "image", "evaluators": {"masked_words": {"head": "words_sen"}}}
  with pytest.raises(UserError, match=r"masked_words\.head: no such choice 'words_sen'; did you mean 'words_seen'"):
    check_space(config, model.space)
  with pytest.raises(UserError, match=r"masked_words: the run has no head that guesses words of a text") as error:
    check_space(config, PLAIN.space)
  assert "\n" not in str(error.value)
  plain = Inference(model.config, model.model, model.variables, type(model.tokenizer)(mask_id=-1, name="tiny"), 5)
  with pytest.raises(UserError, match=r"masked_words: tokenizer tiny has no mask token; leave this evaluator out"):
    plain.guess("words_alone", {"text": CAPTIONS}, {"text": np.arange(2)})
