"""Retrieval as the terms compare tokens, each way by its own score."""

import types

import jax
import numpy as np
import pytest

from mmcontrast.config import base_config
from mmcontrast.errors import UserError
from mmcontrast.evaluation import retrieval, zero_shot
from mmcontrast.evaluation.embedded_set import EmbeddedSet
from mmcontrast.evaluation.suite import run_suite
from mmcontrast.inference import Inference
from mmcontrast.interop.program import programs
from mmcontrast.modalities import MODALITIES
from mmcontrast.models.model import build_model
from mmcontrast.objectives.tokens import Tokens

IMAGE, TEXT = "image[0]/patches", "text[0]/words"
FILIP = dict(there=dict(query=IMAGE, key=TEXT, score="token_max"), back=dict(query=TEXT, key=IMAGE, score="token_max"))


def make_inference(objective, **evaluation):
  c = base_config()
  c.data.image_size, c.data.text_length = 16, 5
  c.towers = dict(
    image=dict(name="vit", patch=8, width=8, depth=1, heads=2),
    text=dict(name="text_transformer", width=8, depth=1, heads=2),
  )
  c.heads = dict(
    patches=dict(tower="image", name="token_linear", dim=4),
    words=dict(tower="text", name="token_linear", dim=4),
    joint=dict(tower="text", name="linear", dim=4),
  )
  c.objective = objective
  c.evaluation.update(dict(image="patches", text="words", batch_size=4) | evaluation)
  config = c.to_dict()
  model = build_model(config, 30)
  views = {name: MODALITIES[name].zeros(2, config) for name in ("image", "text")}
  variables = model.init(jax.random.key(0), views)
  ids = np.random.default_rng(0).integers(1, 30, (99, 5)).astype(np.int32)
  ids[:, 3:] *= np.arange(99)[:, None] % 2  # every other one has three words
  tokenizer = types.SimpleNamespace(encode=lambda texts, length: ids[[int(t.split()[-1]) for t in texts]])
  return Inference(config, model, variables, tokenizer)


@pytest.fixture(scope="module")
def inference():
  return make_inference(FILIP)


def test_each_way_has_its_own_score(inference):
  images = inference.embed("image", np.random.default_rng(0).integers(0, 255, (6, 16, 16, 3)).astype(np.uint8))
  texts = inference.embed("text", [f"concept {i}" for i in range(7)])
  assert images.shape == (6, 4, 4) and texts.shape == (7, 5, 4) and inference.compares_tokens
  products = np.einsum("ild,jmd->ijlm", images.vectors, texts.vectors)
  there = texts.mask
  assert not there.all() and images.mask.all() and images.weights is None
  best = np.where(there[None, :, None], products, -np.inf).max(3).mean(2)
  np.testing.assert_allclose(inference.compare("image", images, texts), best, atol=1e-6)
  best = (products.max(2) * there).sum(2) / there.sum(1)
  np.testing.assert_allclose(inference.compare("text", texts, images), best.T, atol=1e-6)
  one = make_inference(dict(both=dict(FILIP["back"], direction="both")))  # a term for both ways
  np.testing.assert_allclose(one.compare("image", images, texts), best, atol=1e-6)


def test_a_program_of_tokens_says_which_are_real(inference):
  program = programs(inference)["text"]
  outputs = jax.eval_shape(program.function, program.weights, jax.ShapeDtypeStruct((2, 5), program.dtype))
  assert {name: (one.shape, one.dtype) for name, one in outputs.items()} == {
    "vectors": ((2, 5, 4), np.float32),
    "mask": ((2, 5), bool),
  }
  with pytest.raises(UserError, match=r"encode_text: this model compares tokens and has no single vector; use embed"):
    inference.encode_text("concept 1")


def test_the_suite_ranks_by_it(world, monkeypatch):
  """Tokens whose maxima say what is right, though their means say nothing."""
  monkeypatch.setattr(retrieval, "row_chunks", lambda rows, numbers: [slice(i, i + 7) for i in range(0, rows, 7)])
  data = world.set("s", True)

  def embed(kind, values):
    if kind == "image_features":
      return world.embed(kind, values)
    one = np.eye(60, dtype=np.float32)[[int(i) for i in data.things["image"].concept] if kind == "image" else range(60)]
    return Tokens(np.stack([one, -one], 1), np.ones((60, 2), bool))

  def compare(kind, queries, gallery):
    return np.einsum("ild,jmd->ijlm", queries.vectors, gallery.vectors).max((2, 3))

  embedded = EmbeddedSet(data, embed, "s", compare)
  config = dict(sets=("s",), evaluators=dict(retrieval=dict()))
  found = run_suite(embed, config, None, sets={"s": embedded})
  assert found["s/image_to_text/recall@1"] == found["s/text_to_image/recall@1"] == 1.0
  with pytest.raises(UserError, match=r"zero_shot: .* single vectors"):
    zero_shot.evaluate([embedded], [])


@pytest.mark.parametrize("evaluation", [dict(text="joint"), dict(text="")])
def test_heads_that_no_term_compares(evaluation):
  with pytest.raises(UserError, match=r"config\.evaluation\.image: no term compares the tokens of 'patches'") as error:
    make_inference(FILIP, **evaluation)
  assert "\n" not in str(error.value)
