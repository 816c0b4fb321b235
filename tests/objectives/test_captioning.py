"""Captioning: open_clip's numbers and gradients, padding that is never counted, and one line for what does not fit."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import assert_close, compiled, make_mesh
from tiny import caption_config, tiny_spec

from mmcontrast.encoders import Encoded
from mmcontrast.errors import UserError
from mmcontrast.modalities.views import Inputs
from mmcontrast.models.model import build_model
from mmcontrast.objectives import terms as objective
from mmcontrast.training.program import build_program

CASE = json.loads((pathlib.Path(__file__).parents[1] / "golden" / "image_text.json").read_text())["coca_caption"]
PATH = "decoder(text[0], image[0])/words"
pytestmark = pytest.mark.usefixtures("float64")


def value_and_gradient(logits, ids, real, valid=None, mesh=None, **options):
  """((loss, metrics), the gradient of the logits) of one term."""
  terms = objective.parse_terms({"caption": dict(module=dict(name="caption", **options), embeddings=PATH)})
  info = {"views": {"text[0]": {"ids": jnp.where(real, ids, -1)}}} | ({} if valid is None else {"valid": valid})

  def loss(logits):
    nodes = {PATH: Encoded(logits=logits)}
    return objective.evaluate(terms, nodes, info, {}, {}, {}, mesh=mesh)

  return compiled(jax.value_and_grad(loss, has_aux=True))(logits)


def golden():
  """Logits with a last position that predicts nothing, ids with a start before the labels, and which are real."""
  logits, labels = (jnp.asarray(CASE["inputs"][name]) for name in ("logits", "labels"))
  ids = jnp.concatenate([jnp.ones((len(labels), 1), labels.dtype), labels], 1)
  return jnp.concatenate([logits, logits[:, :1]], 1), ids, ids > 0


def test_of_open_clip():
  (loss, metrics), gradient = value_and_gradient(*golden())
  np.testing.assert_allclose(loss, CASE["expected"]["loss"], atol=1e-9)
  np.testing.assert_allclose(gradient[:, :-1], CASE["expected"]["grad_logits"], atol=1e-9)
  np.testing.assert_array_equal(gradient[:, -1], 0)
  assert 0 <= metrics["caption/accuracy"] <= 1


@pytest.mark.parametrize("options", [{}, dict(mean="sentences", smoothing=0.1)])
def test_padding_absent_examples_order_and_devices(options):
  logits, ids, real = golden()
  (loss, metrics), gradient = value_and_gradient(logits, ids, real, **options)
  longer = jnp.pad(logits, ((0, 0), (0, 2), (0, 0)), constant_values=7.0)
  padded = value_and_gradient(longer, jnp.pad(ids, ((0, 0), (0, 2))), jnp.pad(real, ((0, 0), (0, 2))), **options)
  np.testing.assert_allclose(padded[0][0], loss, rtol=1e-9)
  (fewer, _), of_fewer = value_and_gradient(logits[:-1], ids[:-1], real[:-1], **options)
  broken = logits.at[-1].set(1e6)
  (without, _), of_without = value_and_gradient(broken, ids, real, jnp.arange(len(ids)) < len(ids) - 1, **options)
  np.testing.assert_allclose(without, fewer, rtol=1e-9)
  np.testing.assert_allclose(of_without[:-1], of_fewer, atol=1e-9)
  np.testing.assert_array_equal(of_without[-1], 0)
  (turned, _), of_turned = value_and_gradient(logits[::-1], ids[::-1], real[::-1], **options)
  np.testing.assert_allclose(turned, loss, rtol=1e-9)
  np.testing.assert_allclose(of_turned[::-1], gradient, atol=1e-12)
  mesh = make_mesh(4)
  cut = jax.device_put((logits, ids, real), jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data")))
  assert_close(value_and_gradient(*cut, mesh=mesh, **options), ((loss, metrics), gradient), 1e-9)


def test_means_and_smoothing():
  """Written out by hand."""
  logits, ids, real = golden()
  log_p = jax.nn.log_softmax(logits[:, :-1])
  each = np.array(-jnp.take_along_axis(log_p, ids[:, 1:, None], -1)[..., 0])
  uniform, weight = np.array(-log_p.mean(-1)), np.array(real[:, 1:], float)
  for smoothing in (0.0, 0.2):
    one = (1 - smoothing) * each + smoothing * uniform
    by_sentence = ((one * weight).sum(1) / weight.sum(1)).mean()
    for mean, wanted in (("tokens", (one * weight).sum() / weight.sum()), ("sentences", by_sentence)):
      found = value_and_gradient(logits, ids, real, mean=mean, smoothing=smoothing)[0][0]
      np.testing.assert_allclose(found, wanted, rtol=1e-9)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (
      dict(facts=()),
      r"objective\.caption\.module: asks for the 'ids' of 'decoder.*add it to config\.data\.facts, \('id",
    ),
    (dict(module=dict(name="caption", mean="words")), r"module\.mean: no such choice 'words'; .*sentences, tokens"),
    (dict(module=dict(name="caption", smoothing=1.0)), r"smoothing: 1\.0 is not in \[0, 1\)"),
    (dict(embeddings="image[0]/image_joint"), r"takes logits, which head 'image_joint' does not give; .*words"),
    (dict(token_ids=dict(pad=0, bos=-1, eos=2)), r"module: config\.data\.token_ids\.bos is -1: .*without start token"),
    (dict(words=dict(vocab_size=10)), r"config\.heads\.words\.vocab_size is 10, but tower 'text' has 40 words; leave"),
    (dict(words=dict(tied=True), width=12, heads=3), r"heads\.words\.tied: tokens of 12 .*'text', 40 words of 16"),
    (
      dict(reads=("image", "text")),
      r"config\.heads\.words: a 'words' head .*'image' has no words; .*\('text', 'image'\)",
    ),
  ],
)
def test_one_line(changes, message):
  with pytest.raises(UserError, match=message) as error:
    token_ids = changes.pop("token_ids", {"pad": 0, "bos": 1, "eos": 2})
    c = caption_config(**changes)
    c["data"]["token_ids"] = token_ids
    build_program(c, tiny_spec(), None)
  assert "\n" not in str(error.value)


def test_words_may_be_compared_with_the_embedding_of_their_tower():
  c = caption_config(words=dict(tied=True, bias=True, transform=True))
  model = build_model(c, 40)
  views = {"image": jnp.zeros((2, 16, 16, 3)), "text": jnp.ones((2, 6), int)}
  views = {name: Inputs(x) for name, x in views.items()}
  shapes = jax.eval_shape(model.init, jax.random.key(0), views)
  draw = np.random.default_rng(0)
  variables = jax.tree.map(lambda leaf: draw.normal(size=leaf.shape), shapes)
  assert set(variables["params"]["heads"]["words"]) == {"bias", "transform", "norm"}
  table = variables["params"]["towers"]["text"]["token_embedding"]["embedding"]
  variables["params"]["heads"]["words"]["bias"] *= 0
  tokens = Encoded(None, jax.random.normal(jax.random.key(1), (2, 6, 16)), jnp.ones((2, 6), bool))
  made = model.project(variables, "words", tokens)[0].logits
  variables["params"]["towers"]["text"]["token_embedding"]["embedding"] = 2 * table
  np.testing.assert_allclose(model.project(variables, "words", tokens)[0].logits, 2 * made, rtol=1e-5)
  assert made.shape == (2, 6, 40)
