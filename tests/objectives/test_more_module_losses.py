"""Losses of bags, of learned weights and of two spaces: their numbers and gradients against reference code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import compiled
from test_module_terms import case

from mmcontrast.errors import UserError
from mmcontrast.objectives import terms as objective
from mmcontrast.objectives.term import Run

pytestmark = pytest.mark.usefixtures("float64")
NAMES = ("image[0]/joint", "text[0]/joint", "text[1]/joint")
SPACES = ("image[0]/common", "image[1]/common", "image[0]/salient", "image[1]/salient")


def module(name, embeddings, **options):
  return dict(module=dict(name=name, **options), embeddings=embeddings)


def value_and_gradients(term, embeddings, parameters=None, info=None):
  """(loss, metrics), gradients: of one term "t"."""
  terms, learned = objective.parse_terms({"t": term}), {"t": parameters or {}}

  def loss(embeddings):
    found, metrics, _, _ = objective.evaluate_and_remember(terms, embeddings, info or {}, learned, {}, {})
    return found, metrics

  return compiled(jax.value_and_grad(loss, has_aux=True))(embeddings)


def absent_example_is_left_out(term, embeddings, parameters=None, labels=None):
  """A loss over N - 1 examples, and over N of which one does not take part."""
  fewer = {name: x[:-1] for name, x in embeddings.items()}
  broken = {name: x.at[-1].set(1e6) for name, x in embeddings.items()}
  info = {} if labels is None else {"labels": labels}
  some = {"labels": {key: x[:-1] for key, x in labels.items()}} if labels else {}
  valid = jnp.arange(len(next(iter(embeddings.values())))) < len(next(iter(fewer.values())))
  (expected, _), gradients = value_and_gradients(term, fewer, parameters, some)
  (found, _), with_one = value_and_gradients(term, broken, parameters, {**info, "valid": valid})
  np.testing.assert_allclose(found, expected, rtol=1e-9)
  for name, gradient in gradients.items():
    np.testing.assert_allclose(with_one[name][:-1], gradient, atol=1e-9)
    np.testing.assert_array_equal(with_one[name][-1], 0.0)


def clip_and_texts(x):
  texts = x["text"].reshape(len(x["video"]), -1, x["text"].shape[-1])
  return dict(zip(NAMES, [x["video"], *jnp.moveaxis(texts, 1, 0)]))


def test_mil_nce():
  x, expected = case("mil_nce")
  term = module("mil_nce", NAMES, temperature=1.0, unit=False)
  (loss, _), gradients = value_and_gradients(term, clip_and_texts(x))
  np.testing.assert_allclose(loss, expected["loss"], rtol=1e-9)
  np.testing.assert_allclose(gradients[NAMES[0]], expected["grad_video"], atol=1e-9)
  texts = jnp.stack([gradients[name] for name in NAMES[1:]], 1).reshape(x["text"].shape)
  np.testing.assert_allclose(texts, expected["grad_text"], atol=1e-9)
  absent_example_is_left_out(module("mil_nce", NAMES), clip_and_texts(x))


def test_adaptive_negatives():
  x, expected = case("adameow_infonce")
  term = module("adaptive_negatives", NAMES[:2], temperature=float(x["tau"]), hidden=len(x["b1"]), unit=False)
  parameters = {"hidden": {"kernel": x["w1"].T, "bias": x["b1"]}, "weight": {"kernel": x["w2"].T, "bias": x["b2"]}}
  embeddings = dict(zip(NAMES, (x["za"], x["zb"])))
  (loss, metrics), gradients = value_and_gradients(term, embeddings, parameters)
  np.testing.assert_allclose(loss, expected["loss"], rtol=1e-9)
  for name, side in zip(NAMES, ("za", "zb")):
    np.testing.assert_allclose(gradients[name], expected[f"grad_{side}"], atol=1e-9)
  assert 0 < float(metrics["t/negative_weight"]) < 1
  absent_example_is_left_out(term, embeddings, parameters)


def test_sepclr():
  x, expected = case("sepclr_total")
  term = module("sepclr", SPACES, label="kind")
  sides = ("common1", "common2", "salient1", "salient2")
  embeddings, labels = dict(zip(SPACES, (x[side] for side in sides))), {"kind": x["label"].astype(int)}
  (loss, metrics), gradients = value_and_gradients(term, embeddings, info={"labels": labels})
  np.testing.assert_allclose(loss, expected["loss"], rtol=1e-9)
  for part in ("common", "salient", "background", "joint_entropy"):
    np.testing.assert_allclose(metrics[f"t/{part}"], expected[part], rtol=1e-9)
  for name, side in zip(SPACES, sides):
    np.testing.assert_allclose(gradients[name], expected[f"grad_{side}"], rtol=1e-8, atol=1e-8)
  absent_example_is_left_out(term, embeddings, labels=labels)


def test_sepclr_without_targets_is_finite():
  x, _ = case("sepclr_total")
  embeddings = dict(zip(SPACES, (x[side] for side in ("common1", "common2", "salient1", "salient2"))))
  for kind in (0, 1):
    labels = {"kind": jnp.full(len(x["label"]), kind)}
    (loss, _), gradients = value_and_gradients(module("sepclr", SPACES), embeddings, info={"labels": labels})
    assert np.isfinite(loss) and all(np.isfinite(g).all() for g in gradients.values())


@pytest.mark.parametrize(
  ("term", "message"),
  [
    (module("mil_nce", NAMES[:1]), r"t\.embeddings: .* has no candidates; name the clip, then one text"),
    (module("adaptive_negatives", NAMES), r"t\.embeddings: .* are 3; name two views"),
    (module("sepclr", SPACES[:2]), r"t\.embeddings: .* are 2; name four"),
    (
      module("sepclr", SPACES, label="kinds"),
      r"t\.module\.label: the dataset has no label 'kinds'; did you mean 'kind'",
    ),
  ],
)
def test_wrong_embeddings(term, message):
  heads = {"joint": "image", "common": "image", "salient": "image"}
  with pytest.raises(UserError, match=message):
    objective.parse_terms({"t": term})["t"].check(Run(heads, 8, labels=("kind", "group")))
