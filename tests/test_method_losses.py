"""The objectives of the methods, as they are shipped, give the numbers of their reference implementations.

Waves and their values are of public code run in float64 (sources: docs/methods); the cases of
tests/golden name theirs. tests/objectives holds the same losses to their gradients.
"""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcontrast.config import load_config
from mmcontrast.objectives import terms as objective

ROOT = pathlib.Path(__file__).parent.parent
IMAGE, TEXT = "image[0]/image_joint", "text[0]/text_joint"


@pytest.fixture(autouse=True)
def float64():
  with jax.enable_x64(True):
    yield


def config_of(method):
  return load_config(method)["objective"]


def function_of(config, info=None):
  """(embeddings, parameters) -> the weighted sum of a config's terms, compiled; and the parameters' start."""
  terms = objective.parse_terms(config)
  weights = {name: term.weight for name, term in terms.items()}

  def loss(embeddings, parameters):
    return objective.evaluate(terms, embeddings, info or {}, parameters, {}, weights)[0]

  return jax.jit(loss), objective.init_parameters(terms)


def wave(shift):
  """[5, 7]: sin(0.7 k + shift), k = 1, 2, ..."""
  return np.sin(0.7 * np.arange(1, 36) + shift).reshape(5, 7)


WAVES = tuple(map(wave, (0.1, 1.3, 2.2, 3.9)))
VIEWS = tuple(f"image[{view}]/image_ssl" for view in range(4))
PREDICTED = tuple(f"image[{view}]/predictor" for view in range(2))
BRANCHES = (PREDICTED[0], f"{VIEWS[1]}@momentum", PREDICTED[1], f"{VIEWS[0]}@momentum")


@pytest.mark.parametrize(
  ("method", "names", "expected"),
  [
    ("clip", (IMAGE, TEXT), 8.588983590695),
    ("slip", (IMAGE, TEXT, VIEWS[1], VIEWS[2]), 19.195143399000),
    ("vse_hinge", (IMAGE, TEXT), 9.701907986065 / 10),  # a mean over 5 anchors and 2 directions, not a sum
    ("simclr", VIEWS[:2], 6.087830552271),
    ("moco_v3", BRANCHES, 3.434411956749),
    ("supcon", VIEWS[:2], 14.254251639054),
    ("dhel", VIEWS[:2], 2.556462784114),
    ("mv_infonce", VIEWS, 2.391016584495),
    ("mv_dhel", VIEWS, 3.975151606790),
  ],
)
def test_waves(method, names, expected):
  info = {"labels": {"group": np.array([0, 1, 2, 0, 1])}}
  loss, parameters = function_of(config_of(method), info)
  # Learned temperatures start in single precision.
  np.testing.assert_allclose(loss(dict(zip(names, WAVES)), parameters), expected, rtol=1e-7 if parameters else 1e-11)


@pytest.mark.parametrize(
  ("method", "ends", "scale", "offset"), [("byol", "@momentum", 2.0, 4.0), ("simsiam", "", 0.5, 1.0)]
)
def test_predictors(method, ends, scale, offset):
  """Minus the cosines of both ways, times `scale`; what a predictor looks for gets no gradient."""
  loss, _ = function_of(config_of(method))
  names = (PREDICTED[0], f"{VIEWS[1]}{ends}", PREDICTED[1], f"{VIEWS[0]}{ends}")

  def plain(embeddings):
    p0, z1, p1, z0 = (x / jnp.linalg.norm(x, axis=1, keepdims=True) for x in map(embeddings.get, names))
    z0, z1 = jax.lax.stop_gradient((z0, z1))
    return offset - scale * (jnp.mean(jnp.sum(p0 * z1, 1)) + jnp.mean(jnp.sum(p1 * z0, 1)))

  embeddings = dict(zip(names, map(jnp.asarray, WAVES)))
  found, wanted = (jax.value_and_grad(function)(embeddings) for function in (lambda x: loss(x, {}), plain))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12), found, wanted)


@pytest.mark.parametrize(("method", "weight"), [("vicreg", 1.0), ("barlow_twins", 1 / 512)])
def test_redundancy(method, weight):
  x, expected = case("addition", method)
  loss, _ = function_of(config_of(method))
  embeddings = dict(zip(VIEWS, (x["a"], x["b"])))
  value, gradients = jax.value_and_grad(lambda embeddings: loss(embeddings, {}))(embeddings)
  np.testing.assert_allclose(value, weight * expected["loss"], rtol=1e-10)
  for name, side in zip(VIEWS, "ab"):
    np.testing.assert_allclose(gradients[name], weight * np.asarray(expected[f"grad_{side}"]), atol=1e-10)


def case(file, name):
  found = json.loads((ROOT / "tests" / "golden" / f"{file}.json").read_text())[name]
  return {key: np.asarray(x) for key, x in found["inputs"].items()}, found["expected"]


def test_vse_with_the_hardest_negative():
  config = config_of("vse_hinge")
  config["image_text"]["criterion"]["reduce"] = "hardest"
  loss, _ = function_of(config)
  np.testing.assert_allclose(loss({IMAGE: WAVES[0], TEXT: WAVES[1]}, {}), 8.005800820898 / 10, rtol=1e-11)


def test_barlip_of_clip_rocket():
  """Its inputs are normalised already; the config is a mean over five pairs of views."""
  x, expected = case("image_text", "barlip")
  entry = config_of("improved_vlp:loss=barlip")["redundancy_00"]
  entry = entry | dict(regularizer=entry["regularizer"] | dict(standardize=False))
  loss, _ = function_of({"t": entry})
  image, text = entry["embeddings"]
  value, gradients = jax.value_and_grad(lambda embeddings: loss(embeddings, {}))({image: x["a"], text: x["b"]})
  np.testing.assert_allclose(value * 5, expected["loss"], rtol=1e-10)
  for name, side in ((image, "a"), (text, "b")):
    np.testing.assert_allclose(gradients[name] * 5, np.asarray(expected[f"grad_{side}"]), atol=1e-10)


def test_hinge_of_caption2image():
  """The same sum divided by N^2 (DannyMerkx/caption2image): 2 / N of ours."""
  x, expected = case("multimodal", "hinge")
  config = config_of("vse_hinge")
  config["image_text"]["score"] = "dot"  # rows as they are, of seven decimals
  loss, _ = function_of(config)
  np.testing.assert_allclose(loss({IMAGE: x["a"], TEXT: x["b"]}, {}) * 2 / len(x["a"]), expected["loss"], rtol=1e-11)


@pytest.mark.parametrize(
  ("file", "names", "tolerance"),
  [("image_text", ("a", "b"), 1e-11), ("multimodal", ("image", "text"), 1e-6)],  # the second's labels are float32
)
def test_sdm(file, names, tolerance):
  x, expected = case(file, "sdm")
  loss, _ = function_of(config_of("sdm"), {"id": x["pid"]})
  np.testing.assert_allclose(loss({IMAGE: x[names[0]], TEXT: x[names[1]]}, {}), expected["loss"], rtol=tolerance)


def test_siglip():
  """Rows as they are (of six decimals), scale and bias the case's."""
  x, expected = case("image_text", "siglip")
  config = config_of("siglip")
  config["image_text"]["score"] = "dot"
  loss, start = function_of(config)
  assert {name: value.shape for name, value in start["image_text"].items()} == {"log_scale": (), "bias": ()}
  np.testing.assert_allclose([jnp.exp(start["image_text"]["log_scale"]), start["image_text"]["bias"]],
                             [10.0, -np.log(127)], rtol=1e-6)  # fmt: skip
  parameters = {"image_text": {"log_scale": np.log(x["scale"]), "bias": x["bias"]}}
  np.testing.assert_allclose(loss({IMAGE: x["zi"], TEXT: x["zt"]}, parameters), expected["loss"], rtol=1e-11)


def test_cyclip():
  """Ours makes the case's rows, of six decimals, unit length."""
  x, expected = case("image_text", "cyclip")
  loss, _ = function_of(config_of("cyclip"))
  parameters = {"image_text": {"log_scale": x["log_scale"]}}
  np.testing.assert_allclose(loss({IMAGE: x["zi"], TEXT: x["zt"]}, parameters), expected["loss"], rtol=1e-6)


def test_contrastive_gap():
  x, expected = case("image_text", "gap_all")
  loss, _ = function_of(config_of("contrastive_gap"))
  np.testing.assert_allclose(loss({IMAGE: x["a"], TEXT: x["b"]}, {}), expected["loss"], rtol=1e-11)


def test_align():
  """There is no published number: the sum of both cross entropies with smoothed labels, and its gradients."""
  function, start = function_of(config_of("align"))
  np.testing.assert_allclose(start["image_text"]["tau"], 1.0)

  def plain(image, text, tau):
    image, text = (x / jnp.linalg.norm(x, axis=1, keepdims=True) for x in (image, text))
    logits, labels = image @ text.T / tau, 0.9 * jnp.eye(5) + 0.1 / 5
    return -sum(jnp.mean(jnp.sum(labels * jax.nn.log_softmax(x), 1)) for x in (logits, logits.T))

  def ours(image, text, tau):
    return function({IMAGE: image, TEXT: text}, {"image_text": {"tau": tau}})

  arguments = (*WAVES[:2], np.float64(0.3))
  found, expected = (jax.value_and_grad(f, (0, 1, 2))(*arguments) for f in (ours, plain))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12), found, expected)
