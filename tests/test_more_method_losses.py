"""The objectives of further methods, as shipped: numbers of the reference implementations, gradients of the formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_method_losses import case, config_of

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.objectives import terms as objective

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def float64():
  with jax.enable_x64(True):
    yield


def check(config, plain, given, nodes, expected=None, info=None, tolerance=1e-10):
  """Value and gradients of a config's objective on `nodes(given)` are those of `plain(given)`, and the value is
  `expected`."""
  terms = objective.parse_terms(config)
  learned = objective.init_parameters(terms)

  def ours(given):
    return objective.evaluate(terms, nodes(given), info or {}, learned, {}, {})[0]

  (found, gradients), (value, wanted) = (
    jax.jit(jax.value_and_grad(one), compiler_options={"xla_backend_optimization_level": 0})(given)
    for one in (ours, plain)
  )
  np.testing.assert_allclose(found, value, rtol=tolerance)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=tolerance * 10), gradients, wanted)
  if expected is not None:
    np.testing.assert_allclose(found, expected, rtol=tolerance)


def cross_entropy(logits):
  return -jnp.mean(jnp.diagonal(jax.nn.log_softmax(logits, -1)))


def test_vg_bert():
  """The reference's matrix of scores, and the sum of both cross entropies at its temperature."""
  x, expected = case("multimodal", "matchmap")
  real = jnp.arange(3) < x["nwords"][:, None]
  wanted = sum(cross_entropy(jnp.asarray(scores) / 0.1) for scores in (expected["sim"], np.transpose(expected["sim"])))

  def plain(given):
    pixels = given["image"].reshape(4, 8, -1)
    best = jnp.max(jnp.einsum("adp,bwd->abwp", pixels, given["text"]), -1)
    scores = jnp.sum(jnp.where(real, best, 0), -1) / jnp.sum(real, -1)
    return cross_entropy(scores / 0.1) + cross_entropy(scores.T / 0.1)

  def nodes(given):
    pixels = given["image"].reshape(4, 8, -1).swapaxes(1, 2)
    return {
      "text[0]/text_tokens": Encoded(None, given["text"], real),
      "image[0]/image_tokens": Encoded(None, pixels, jnp.ones(pixels.shape[:2], bool)),
    }

  given = {name: jnp.asarray(x[name]) for name in ("image", "text")}
  check(config_of("vg_bert"), plain, given, nodes, wanted)


def test_vgs_sentence():
  """The reference divides the sum of both directions by N^2: 2 / N of ours."""
  x, expected = case("multimodal", "hinge")
  config = config_of("vgs_sentence")
  config["image_text"]["score"] = "dot"  # rows as they are, of seven decimals
  config["image_text"]["weight"] = 2 / len(x["a"])

  def plain(given):
    scores = given["a"] @ given["b"].T
    own = jnp.diagonal(scores)
    costs = jax.nn.relu(0.2 + scores - own[:, None]) + jax.nn.relu(0.2 + scores - own[None])
    return jnp.sum(jnp.where(jnp.eye(len(own), dtype=bool), 0, costs)) / len(own) ** 2

  def nodes(given):
    return {"image[0]/image_joint": given["a"], "text[0]/text_joint": given["b"]}

  check(config, plain, {name: jnp.asarray(x[name]) for name in "ab"}, nodes, expected["loss"])


def test_space2():
  """The reference's weights of four pairs of classes as six labels; and the shipped tree."""
  x, expected = case("multimodal", "soft_supcon")
  config, views = config_of("space2"), ("text[0]/text_ssl", "text[1]/text_ssl")
  config["tree"]["score"] = "dot"
  features, n = jnp.asarray(x["features"]), len(x["weights"])
  own = jnp.eye(2 * n, dtype=bool)

  def plain(weights):
    def loss(features):
      rows = features.swapaxes(0, 1).reshape(2 * n, -1)
      logs = jax.nn.log_softmax(jnp.where(own, -jnp.inf, rows @ rows.T / 0.07), -1)
      wide = jnp.where(own, 0, jnp.tile(weights, (2, 2)))
      return -jnp.mean(jnp.sum(jnp.where(own, 0, wide * jnp.where(own, 0, logs)), 1) / jnp.sum(wide, 1))

    return loss

  def nodes(features):
    return dict(zip(views, features.swapaxes(0, 1)))

  group, subgroup = np.array([0, 0, 1, 1]), np.array([0, 1, 2, 2])
  tree = np.where(np.equal.outer(subgroup, subgroup), 1.0, 0.5 * np.equal.outer(group, group))
  check(config, plain(tree), features, nodes, info={"labels": {"group": group, "subgroup": subgroup}})
  pairs = [(i, j) for i in range(n) for j in range(i)]
  labels = {f"pair_{i}{j}": np.where(np.isin(np.arange(n), (i, j)), 0, -1) for i, j in pairs}
  weights = {f"pair_{i}{j}": float(x["weights"][i, j]) for i, j in pairs}
  config["tree"] |= {"target": dict(name="shared_labels", labels=weights), "temperature": float(x["temp"])}
  terms = objective.parse_terms(config)
  found = objective.evaluate(terms, nodes(features), {"labels": labels}, {}, {}, {})[0]
  np.testing.assert_allclose(found, expected["loss"], rtol=5e-8)  # the reference rounds weights to single precision


def test_cico():
  """The reference's two matrices, of which the mean of four cross entropies is taken; padded words as there."""
  x, expected = case("multimodal", "cico")
  config = config_of("cico")
  scale, inner = float(x["logit_scale"]), float(x["inner_temp"])
  config["image_among_words"]["temperature"] = 1 / scale
  real = jnp.asarray(x["text_mask"]) > 0
  scores = [jnp.asarray(expected[way]) for way in ("v2t", "t2v")]
  wanted = sum(cross_entropy(one) + cross_entropy(one.T) for one in scores) / 4

  def soft(queries, keys, query_real, key_real):
    """[query, key]: the mean over a query's tokens of the products with the key's, weighted by their softmax."""
    alike = jnp.einsum("aid,bjd->abij", queries, keys)
    share = jax.nn.softmax(jnp.where(key_real[None, :, None], alike / inner, -jnp.inf), -1)
    each = jnp.sum(share * alike, -1) * query_real[:, None]
    return scale * jnp.sum(each, -1) / jnp.sum(query_real, -1)[:, None]

  def plain(given):
    video, text, copy = (z / jnp.linalg.norm(z, axis=-1, keepdims=True) for z in given)
    everything = jnp.ones(video.shape[:2], bool)
    forth = soft(video, text, everything, jnp.ones(text.shape[:2], bool))
    back = soft(copy, video, real, everything).T
    return sum(map(cross_entropy, (forth, forth.T, back, back.T))) / 4

  def nodes(given):
    video, text, copy = given
    return {
      "image[0]/image_tokens": Encoded(None, video),
      "text[0]/text_tokens": Encoded(None, text),  # the reference leaves padded words in the softmax over words
      "text[1]/text_tokens": Encoded(None, copy, real),
    }

  check(config, plain, tuple(jnp.asarray(x[name]) for name in ("video", "text", "text_aug")), nodes, wanted)


def test_xbt():
  """There is no published number: both contrasts with the old model, of one temperature."""
  draw = np.random.default_rng(0)
  config = next(stage for stage in load_stages("xbt") if stage["name"] == "tune")["objective"]
  names = ("image[0]/image_old", "text[0]/old_text_joint", "image[0]/old_image_joint", "text[0]/text_old")

  def plain(given):
    rows = {name: x / jnp.linalg.norm(x, axis=1, keepdims=True) for name, x in given.items()}
    return sum(
      (cross_entropy(logits) + cross_entropy(logits.T)) / 2
      for one, other in (names[:2], names[2:])
      for logits in [rows[one] @ rows[other].T / 0.07]
    )

  given = {name: jnp.asarray(draw.normal(size=(5, 7))) for name in names}
  check(config, plain, given, lambda given: given, tolerance=1e-7)  # a learned temperature is float32


@pytest.mark.parametrize("side", ["image", "audio"])
def test_tact(side):
  """The reference's sum of both directions; TeminAL's second stage is the same with cosines and other weights."""
  x, expected = case("multimodal", "tact")
  config = config_of("tact") if side == "image" else load_stages("teminal")[-1].get("objective", config_of("teminal"))
  weights = [float(x["alpha_same"]), float(x["alpha_cross"])]
  for term in config.values():
    term |= {"negative_weights": weights, "score": "dot"}
  first = f"text_{side}_forward"
  config[first]["temperature"] = 1.0
  own = jnp.tile(jnp.eye(4, dtype=bool), (2, 2))
  other_order = jnp.kron(jnp.array([[0, 1], [1, 0]]), jnp.ones((4, 4))) > 0
  counted = jnp.where(other_order, jnp.where(own, jnp.log(weights[0]), jnp.log(weights[1])), 0.0)

  def plain(given):
    logits = given["text"] @ given["video"].T
    return cross_entropy(logits + counted) + cross_entropy(logits.T + counted)

  def nodes(given):
    return {f"{kind}[{order}]/{kind}_joint": given[name][4 * order : 4 * order + 4]
            for kind, name in (("text", "text"), (side, "video")) for order in range(2)}  # fmt: skip

  given = {name: jnp.asarray(x[name]) for name in ("text", "video")}
  check(config, plain, given, nodes)
  terms = objective.parse_terms(config)
  found = objective.evaluate(terms, nodes(given), {}, {}, {}, {})[0]
  # The reference takes the weights' logarithms in single precision.
  np.testing.assert_allclose(found, expected["t2v"] + expected["v2t"], rtol=1e-8)


def load_stages(method):
  from mmcontrast.config import load_config

  return load_config(method)["stages"]
