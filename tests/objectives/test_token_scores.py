"""Scores of tokens against their references, against a double loop, in tiles and on eight devices."""

import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import assert_close, compiled, equations, make_mesh
from token_arrays import encoded, pack, unpack

from mmcontrast.encoders.heads import build_head, gives_tokens, gives_weights
from mmcontrast.errors import UserError
from mmcontrast.objectives import terms as objective
from mmcontrast.objectives.scores import SCORES, build_score
from mmcontrast.objectives.tokens import Tokens, make_tokens

CASES = json.loads((pathlib.Path(__file__).parents[1] / "golden/multimodal.json").read_text())
IMAGE, TEXT = "image[0]/tokens", "text[0]/words"
LATE = [name for name, score in SCORES.items() if score.tokens]
ALIKE = [name for name in LATE if name != "text_conditioned_frames"]
"""Scores to which tokens are alike; of the other's see test_within_an_example.py."""
N, L, M, D = 9, 3, 4, 5


def case(name):
  given = {key: jnp.asarray(value) for key, value in CASES[name]["inputs"].items()}
  return given, {key: np.asarray(value) for key, value in CASES[name]["expected"].items()}


# ---- As their references compute them -----------------------------------------------------------


@pytest.mark.usefixtures("float64")
def test_cico():
  given, expected = case("cico")
  score = build_score(dict(name="token_softmax", temperature=float(given["inner_temp"])), "score")
  video, text, augmented = (score.prepare(unpack(given[name])) for name in ("video", "text", "text_aug"))
  # The reference leaves padded words in the softmax over words: here they are given as words.
  np.testing.assert_allclose(score.tile(given["logit_scale"] * video, text), expected["v2t"], rtol=1e-12)
  augmented = augmented.replace(mask=given["text_mask"] > 0)
  found = score.tile(given["logit_scale"] * augmented, video).T
  np.testing.assert_allclose(found, expected["t2v"], rtol=1e-12)


@pytest.mark.usefixtures("float64")
def test_weighted_token_score():
  given, expected = case("weighted_token_score")
  score = build_score("token_weighted", "score")
  text, video = (
    score.prepare(make_tokens(given[side], given[f"{side}_mask"] > 0, given[f"{side}_w"])) for side in ("text", "video")
  )
  found = score.tile(text, video)
  # The reference sets products with padded words to zero before it takes a frame's best word. In
  # three pairs a frame likes no word, and the padding, at zero, wins; here it never does.
  padding_won = np.zeros((4, 4), bool)
  padding_won[[1, 1, 2], [0, 2, 0]] = True
  error = np.abs(found - expected["score"])
  assert np.all(error[~padding_won] < 1e-6) and np.all(found[padding_won] < expected["score"][padding_won] - 0.01)
  quirk = double_loop("token_weighted", text, video, padding=0.0)
  np.testing.assert_allclose(quirk, expected["score"], atol=1e-6)  # inputs are unit to six digits


@pytest.mark.usefixtures("float64")
def test_matchmap():
  given, expected = case("matchmap")
  images = given["image"].reshape(4, 8, -1).swapaxes(1, 2)
  words = make_tokens(given["text"], jnp.arange(3) < given["nwords"][:, None])
  found = build_score("matchmap", "score").tile(words, unpack(images))
  np.testing.assert_allclose(found.T, expected["sim"], rtol=1e-12)


# ---- As a double loop computes them -------------------------------------------------------------


def double_loop(name, rows, columns, padding=None):
  """A score of prepared tokens, one pair after another; absent products count as `padding` if given."""
  weighted = name == "token_weighted"

  def half(a, b):
    features, others = (a[:, :-1], b[:, :-1]) if weighted else (a, b)
    here, there = (jnp.any(x != 0, -1) for x in (features, others))
    found = jnp.where(here[:, None] & there[None], features @ others.T, 0.0)
    if name == "token_softmax":
      share = jax.nn.softmax(jnp.where(there, found / 0.07, -jnp.inf), -1)
      best = jnp.sum(share * found, -1)
    else:
      best = jnp.max(found if padding is not None else jnp.where(there, found, -jnp.inf), -1)
    weights = a[:, -1] if weighted else here / jnp.sum(here)
    return jnp.sum(jnp.where(here, weights * best, 0.0))

  def one(a, b):
    return (half(a, b) + half(b, a)) / 2 if weighted else half(a, b)

  return jnp.stack([jnp.stack([one(a, b) for b in pack(columns)]) for a in pack(rows)])


def random_tokens(n, length, width, seed):
  """One to `length` tokens an example."""
  rng = np.random.default_rng(seed)
  tokens = rng.normal(size=(n, length, width))
  tokens[np.arange(length) > np.arange(n)[:, None] % length] = 0.0
  return jnp.asarray(tokens)


def embeddings(name, n=N):
  width = D + SCORES[name].weighted
  return {IMAGE: random_tokens(n, L, width, 0), TEXT: random_tokens(n, M, width, 1)}


def built(name):
  return build_score(name if name in ALIKE or name not in LATE else dict(name=name, queries=1), "score")


def read(score, x):
  """Tokens of an array, in which zeros are none; vectors as they are."""
  return unpack(x, score.weighted) if score.tokens else x


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ALIKE)
def test_value_and_gradient_are_those_of_a_double_loop(name):
  score, given = build_score(name, "score"), embeddings(name, 4)

  def loss(compare, given):
    rows, columns = score.prepare(read(score, given[IMAGE][:3])), score.prepare(read(score, given[TEXT]))
    found = compare(rows, columns)
    return jnp.sum(jnp.sin(3.0 * found)), found

  found, wanted = (
    compiled(jax.value_and_grad(lambda x, f=compare: loss(f, x), has_aux=True))(given)
    for compare in (score.tile, lambda a, b: double_loop(name, a, b))
  )
  assert_close(found, wanted, 1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", list(SCORES))
def test_a_score_is_homogeneous_in_its_rows(name):
  """What lets a temperature scale rows; with its gradient, which is the temperature's."""
  score, rng = built(name), np.random.default_rng(2)
  shape = (N, L, D) if name in LATE else (N, D)
  x = embeddings(name) if name in ALIKE else {k: jnp.asarray(rng.normal(size=shape)) for k in (IMAGE, TEXT)}
  rows, columns = score.prepare(read(score, x[IMAGE])), score.prepare(read(score, x[TEXT]))
  if score.joins:
    columns = score.join([columns, columns[::-1]])

  @compiled
  def found(rows, columns, scale):
    scaled, slope = jax.jvp(lambda s: score.tile(s * rows, columns), (scale,), (1.0,))
    return score.tile(rows, columns), scaled, slope, score.pair(rows, columns)

  one, scaled, slope, pairs = found(rows, columns, 3.0)
  np.testing.assert_allclose(scaled, 3.0 * one, rtol=1e-12, atol=1e-14)
  np.testing.assert_allclose(slope, one, rtol=1e-9, atol=1e-12)
  np.testing.assert_allclose(pairs, jnp.diagonal(one), rtol=1e-9, atol=1e-12)


# ---- In tiles, on devices -----------------------------------------------------------------------


def value_and_gradients(name, impl, devices):
  term = dict(query=IMAGE, key=TEXT, score=name, direction="both", temperature=dict(init=0.2, learned=True))
  terms, info = objective.parse_terms({"t": term}), {"valid": np.arange(N) != 3}

  def loss(given, parameters):
    given = encoded(given, terms["t"].score.weighted)
    return objective.evaluate(terms, given, info, {"t": parameters}, {}, {}, impl=impl, mesh=make_mesh(devices), tile=4)

  return compiled(jax.value_and_grad(loss, (0, 1), has_aux=True))(embeddings(name), {"log_scale": jnp.float64(1.5)})


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["token_softmax", "token_weighted", "matchmap"])
def test_devices_and_tiles_change_nothing(name):
  wanted = value_and_gradients(name, "dense", 1)
  impl = {"token_softmax": "ring", "token_weighted": "ring", "matchmap": "rows"}[name]
  assert_close(value_and_gradients(name, impl, 8), wanted, 1e-10)
  (_, metrics), (gradients, parameters) = wanted
  assert all(np.any(g) for g in (*gradients.values(), *parameters.values())), metrics


@pytest.mark.parametrize("name", LATE)
def test_never_all_four_axes(name):
  """The gradient of a tile of r rows and c columns holds r * c tokens of one side at most."""
  r, c, length, words, score = 7, 11, 13, 5, built(name)
  a, b = jnp.ones((r, length, D)), jnp.ones((c, words, D))

  def loss(a, b):
    rows, columns = (Tokens(x, jnp.ones(x.shape[:2], bool), jnp.ones(x.shape[:2])) for x in (a, b))
    return jnp.sum(jnp.sin(score.tile(rows, columns)))

  gradient = jax.value_and_grad(loss, (0, 1))
  every = [v.aval for e in equations(jax.make_jaxpr(gradient)(a, b).jaxpr) for v in e.outvars]
  largest = max(math.prod(aval.shape) for aval in every)
  cells = score.cells(*(Tokens(x[0], jnp.ones(x.shape[1], bool)) for x in (a, b)))
  assert cells == (length if score.weighted else words)
  assert largest <= max(r * c * cells, r * length * D)


# ---- Absent tokens ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALIKE)
def test_absent_tokens_get_no_gradient_and_matter_to_no_one(name):
  score, given = build_score(name, "score"), {k: jnp.float32(x) for k, x in embeddings(name).items()}
  given[TEXT] = given[TEXT].at[2].set(0.0)  # an example without any

  def loss(given):
    rows, columns = (score.prepare(read(score, given[name])) for name in (IMAGE, TEXT))
    return jnp.sum(jnp.sin(3.0 * score.tile(rows, columns)))

  value, gradients = compiled(jax.value_and_grad(loss))(given)
  for side, gradient in gradients.items():
    absent = ~np.any(np.asarray(given[side]) != 0, -1)
    assert absent.any() and np.all(np.isfinite(gradient)) and not np.any(np.asarray(gradient)[absent]), side
  longer = {side: jnp.pad(x, ((0, 0), (0, 2), (0, 0))) for side, x in given.items()}
  np.testing.assert_allclose(compiled(loss)(longer), value, rtol=1e-5)


def test_a_head_with_weights():
  head = build_head(dict(name="token_weighted", dim=3))
  mask = jnp.arange(5) < jnp.array([[5], [2]])
  found, variables = head.init_with_output(jax.random.key(0), jnp.ones((2, 5, 4)), mask, train=False)
  assert gives_tokens(head) and gives_weights(head) and found.tokens.shape == (2, 5, 3)
  assert set(variables["params"]) == {"fc1", "weight1", "weight2"}
  np.testing.assert_array_equal(found.mask, mask)
  score = build_score("token_weighted", "score")
  weights = score.prepare(score.read(found)).weights
  np.testing.assert_allclose(jnp.sum(weights, -1), 1.0, rtol=1e-6)
  np.testing.assert_array_equal(weights > 0, mask)


# ---- What is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
  ("score", "message"),
  [
    ("token_sofmax", r"objective\.t\.score: .*token_softmax"),
    (dict(name="token_softmax", temprature=1.0), r"t\.score: no option 'temprature'; .*temperature"),
    (dict(name="token_softmax", temperature=0.0), r"t\.score\.temperature: 0\.0 is not above 0"),
    (dict(name="gram_volume", floor=-1.0), r"t\.score\.floor: -1\.0 is below 0"),
  ],
)
def test_options_are_checked(score, message):
  with pytest.raises(UserError, match=message) as error:
    objective.parse_terms({"t": dict(query=IMAGE, key=TEXT, score=score)})
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  ("score", "token_heads", "weighted_heads", "message"),
  [
    ("token_weighted", ["tokens", "words"], [], r"compares tokens with weights, .* head .tokens. .*.token_weighted."),
    ("token_max", ["tokens", "words"], ["words"], r"compares tokens, which head 'words' .*tokens"),
    ("cosine", ["tokens", "words"], ["tokens", "words"], r"compares one vector an example.*dict\(name='linear'"),
  ],
)
def test_weights_and_scores_must_fit(score, token_heads, weighted_heads, message):
  terms = objective.parse_terms({"t": dict(query=IMAGE, key=TEXT, score=score)})
  with pytest.raises(UserError, match=message) as error:
    objective.check_terms(
      terms,
      views={"image": 1, "text": 1},
      heads={"tokens": "image", "words": "text"},
      batch_size=8,
      token_heads=token_heads,
      weighted_heads=weighted_heads,
    )
  assert "\n" not in str(error.value)
