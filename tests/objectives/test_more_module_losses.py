"""Losses of bags, of learned weights and of two spaces: their numbers and gradients against reference code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import compiled
from test_module_terms import case

from mmcontrast.config import load_config
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


def rows(shift):
  """[5, 7]: the inputs of the numbers below, which are of facebookresearch/clip-rocket@ebd9e586, losses.py."""
  return np.sin(0.7 * (np.arange(35.0).reshape(5, 7) + 1) + shift)


LOCAL_IMAGES, LOCAL_TEXTS = (rows(0.5), rows(0.9)), (rows(1.7), rows(2.9))
PLAIN = {"image[0]/image_joint": rows(0.1), "text[0]/text_joint": rows(1.3)}


def views_of(head, plain, images, texts):
  sides = {f"image[{v}]/image_{head}": x for v, x in enumerate((plain[0], *images))}
  return sides | {f"text[{v}]/text_{head}": x for v, x in enumerate((plain[1], *texts))}


@pytest.mark.parametrize(
  ("loss", "expected"),
  [("cl2l", 18.593927080078), ("barlip", 18.791630862250), ("siamlip", 20.693384248960), ("swalip", 19.742674077348)],
)
def test_improved_baselines_of_vision_language(loss, expected):
  """The released code adds both directions up, where its commands and the config take their mean: 1/2 each."""
  with jax.enable_x64(True):
    plain = tuple(PLAIN.values())
    embeddings = PLAIN | views_of("local", plain, LOCAL_IMAGES, LOCAL_TEXTS)
    embeddings |= views_of("redundancy", (rows(2.2), rows(3.9)), LOCAL_IMAGES, LOCAL_TEXTS)
    embeddings |= views_of("predictor", plain, LOCAL_IMAGES, LOCAL_TEXTS)
    moved = (tuple(x + 0.1 for x in LOCAL_IMAGES), tuple(x - 0.1 for x in LOCAL_TEXTS))
    embeddings |= views_of("target", (rows(2.2), rows(3.9)), *moved)
    terms = dict(load_config(f"improved_vlp:loss={loss}")["objective"])
    for name, term in terms.items():
      if "regularizer" in term and term["regularizer"] != "alignment":
        terms[name] = dict(term, regularizer=dict(term["regularizer"], standardize=False))
    parsed, embeddings = objective.parse_terms(terms), jax.tree.map(jnp.asarray, embeddings)
    learned = objective.init_parameters({name: term for name, term in parsed.items() if "query" in terms[name]})
    found = objective.evaluate_and_remember(parsed, embeddings, {}, learned, {}, {})
    total = sum(
      float(found[1][f"{name}/loss"]) * terms[name]["weight"] * (2 if "query" in terms[name] else 1) for name in terms
    )
  np.testing.assert_allclose(total, expected, rtol=1e-8)  # temperatures are float32


def test_codes_of_pairs_leave_absent_examples_out():
  views = ("image[1]/local", "image[2]/local", "text[1]/local", "text[2]/local")
  embeddings = jax.tree.map(jnp.asarray, dict(zip(views, (*LOCAL_IMAGES, *LOCAL_TEXTS))))
  absent_example_is_left_out(module("swalip", views), embeddings)


@pytest.mark.parametrize(
  ("term", "message"),
  [
    (module("mil_nce", NAMES[:1]), r"t\.embeddings: .* has no candidates; name the clip, then one text"),
    (module("adaptive_negatives", NAMES), r"t\.embeddings: .* are 3; name two views"),
    (module("swalip", NAMES), r"t\.embeddings: .* are 3; name two views of images, then two of texts"),
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
