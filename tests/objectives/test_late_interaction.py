"""Scores that compare tokens: FILIP's numbers, absent tokens, and never all four axes in memory."""

import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import assert_close, compiled, equations, make_mesh
from token_arrays import encoded, unpack

from mmcontrast.encoders import Encoded
from mmcontrast.encoders.heads import build_head, gives_tokens
from mmcontrast.errors import UserError
from mmcontrast.objectives import terms as objective
from mmcontrast.objectives.global_matrix import choose_impl
from mmcontrast.objectives.scores import SCORES
from mmcontrast.objectives.tokens import make_tokens

GOLDEN = json.loads((pathlib.Path(__file__).parents[1] / "golden/image_text.json").read_text())
IMAGE, TEXT = "image[0]/tokens", "text[0]/words"
COMMON = dict(score="token_max", weight=0.5, temperature=dict(init=0.07, learned=True))
FILIP = {
  "image_to_text": dict(COMMON, query=IMAGE, key=TEXT),
  "text_to_image": dict(COMMON, query=TEXT, key=IMAGE, temperature="image_to_text"),
}
N, D = 10, 6


def value_and_gradients(embeddings, log_scale, info=None, kept=0, **options):
  terms = objective.parse_terms({n: t | {"score": {"name": "token_max", "kept": kept}} for n, t in FILIP.items()})
  weights = {name: term.weight for name, term in terms.items()}

  def loss(embeddings, log_scale):
    parameters = {"image_to_text": {"log_scale": log_scale}}
    return objective.evaluate(terms, encoded(embeddings), info or {}, parameters, {}, weights, **options)

  return compiled(jax.value_and_grad(loss, (0, 1), has_aux=True))(embeddings, log_scale)


def tokens(dtype=jnp.float32):
  """Five patches an image, four words a text, of which one to four are real."""
  rng = np.random.default_rng(0)
  text = rng.normal(size=(N, 4, D))
  text[np.arange(4) > np.arange(N)[:, None] % 4] = 0.0
  return {IMAGE: jnp.asarray(rng.normal(size=(N, 5, D)), dtype), TEXT: jnp.asarray(text, dtype)}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("case", "kept"), [("filip_no_topk", 0), ("filip_topk3", 3)])
def test_filip(case, kept):
  given, expected = GOLDEN[case]["inputs"], GOLDEN[case]["expected"]
  embeddings = {IMAGE: jnp.asarray(given["v"]), TEXT: jnp.asarray(given["t"])}
  (loss, _), (gradients, _) = value_and_gradients(embeddings, jnp.asarray(given["logit_scale"]), kept=kept)
  np.testing.assert_allclose(loss, expected["loss"], rtol=1e-9)
  np.testing.assert_allclose(gradients[IMAGE], expected["grad_v"], atol=1e-9)
  np.testing.assert_allclose(gradients[TEXT], expected["grad_t"], atol=1e-9)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("impl", "devices", "kept"), [("ring", 1, 0), ("ring", 4, 2), ("rows", 2, 0)])
def test_tiles_are_the_dense_score(impl, devices, kept):
  """Value, metrics and gradients, with padded words and a padded example; tiles of 2 pairs' rows."""
  info = {"valid": np.arange(N) != 3}
  wanted = value_and_gradients(tokens(jnp.float64), jnp.float64(1.0), info, kept, impl="dense")
  found = value_and_gradients(
    tokens(jnp.float64), jnp.float64(1.0), info, kept, impl=impl, mesh=make_mesh(devices), tile=4
  )
  assert_close(found, wanted, 1e-10)


def test_a_score_by_hand():
  rows = jnp.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 2.0], [0.0, 0.0]]])  # the second has one token
  columns = jnp.array([[[0.5, 0.0], [0.0, 0.0]], [[-1.0, -1.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
  score = SCORES["token_max"]()
  # Absent tokens, of zeros, are no best match: -1 stays -1. A column of none scores 0.
  np.testing.assert_allclose(score.tile(unpack(rows), unpack(columns)), [[0.25, -1.0, 0.0], [0.0, -2.0, 0.0]])
  np.testing.assert_allclose(score.pair(unpack(rows), unpack(columns[:2])), [0.25, -2.0])


def test_a_mask_says_what_is_a_token_not_a_zero():
  """A word whose vector is zero is a word: it takes its share of the mean, and its product, 0, may be the best."""
  rows = make_tokens(jnp.array([[[1.0, 0.0], [0.0, 0.0]]]), jnp.array([[True, True]]))
  score = SCORES["token_max"]()
  np.testing.assert_allclose(score.tile(rows, unpack(jnp.array([[[0.5, 0.0]]]))), [[0.25]])
  np.testing.assert_allclose(score.tile(unpack(jnp.array([[[-1.0, 0.0]]])), rows), [[0.0]])
  broken = make_tokens(jnp.array([[[1.0, 0.0], [jnp.nan, 7.0]]]), jnp.array([[True, False]]))  # what pads is not read
  np.testing.assert_allclose(score.tile(broken, broken), [[1.0]])


def test_kept_tokens_are_the_most_like_the_own_query():
  queries = jnp.array([[[1.0, 0.0], [0.0, 1.0]]])
  keys = jnp.array([[[-1.0, -1.0], [0.0, 0.0], [3.0, 0.0], [0.0, 1.0], [-0.25, 0.0]]])  # the second is no token
  score = SCORES["token_max"](kept=3)
  queries, keys = unpack(queries), unpack(keys)
  np.testing.assert_array_equal(score.columns(queries, keys).vectors, [[[3.0, 0.0], [0.0, 1.0], [-0.25, 0.0]]])
  assert SCORES["token_max"](kept=9).columns(queries, keys) is keys
  with pytest.raises(UserError, match="kept: -1"):
    SCORES["token_max"](kept=-1)
  two_keys = {"t": dict(query=IMAGE, key=(TEXT, "text[1]/words"), score=dict(name="token_max", kept=2))}
  with pytest.raises(UserError, match=r"score\.kept"):
    known = RUN | {"views": {"image": 1, "text": 2}}
    objective.check_terms(objective.parse_terms(two_keys), **known, token_heads=("tokens", "words"))


def test_absent_tokens_get_no_gradient_and_matter_to_no_one():
  embeddings = tokens()
  absent = ~np.any(np.asarray(embeddings[TEXT]) != 0, -1)
  (loss, _), (gradients, _) = value_and_gradients(embeddings, 1.0, impl="dense")
  assert not np.any(np.asarray(gradients[TEXT])[absent]) and np.all(np.isfinite(gradients[TEXT]))
  longer = embeddings | {TEXT: jnp.pad(embeddings[TEXT], ((0, 0), (0, 2), (0, 0)))}
  np.testing.assert_allclose(value_and_gradients(longer, 1.0, impl="dense")[0][0], loss, rtol=1e-6)


def largest(function, *arguments) -> int:
  """Numbers in the largest array that the function makes."""
  every = [v.aval for e in equations(jax.make_jaxpr(function)(*arguments).jaxpr) for v in e.outvars]
  return max(math.prod(aval.shape) for aval in every)


def test_never_all_four_axes():
  """The gradient of a tile of r rows and c columns holds r * c * M numbers at most, not L times that."""
  r, c, length, words = 7, 11, 13, 5
  a, b = jnp.ones((r, length, D)), jnp.ones((c, words, D))
  score = SCORES["token_max"]()
  gradient = jax.value_and_grad(lambda a, b: jnp.sum(jnp.sin(score.tile(unpack(a), unpack(b)))), (0, 1))
  assert largest(gradient, a, b) <= max(r * c * words, r * length * D)


def test_memory_of_the_ring_is_that_of_its_tiles():
  """Twice the batch: twice the temporaries, though a pair of examples has 20 pairs of tokens."""

  def temporaries(n):
    x = {IMAGE: jax.ShapeDtypeStruct((n, 5, D), jnp.float32), TEXT: jax.ShapeDtypeStruct((n, 4, D), jnp.float32)}
    terms = objective.parse_terms({"t": FILIP["image_to_text"] | {"temperature": 0.1}})

    def loss(x):
      return objective.evaluate(terms, encoded(x), {}, {}, {}, {}, impl="ring", tile=64)[0]

    return jax.jit(jax.grad(loss)).lower(x).compile().memory_analysis().temp_size_in_bytes

  small, large = temporaries(512), temporaries(1024)
  assert large < 2.2 * small and large < 1024 * 1024 * 4, (small, large)


def test_the_rule_of_auto_counts_tokens():
  assert choose_impl(2048, 2048, 512, 1) == "dense"
  assert choose_impl(2048, 2048, 77 * 512, 1, cells=77) == "ring"


def test_a_head_for_tokens():
  head = build_head(dict(name="token_linear", dim=3))
  encoded = Encoded(jnp.ones((2, 4)), jnp.ones((2, 5, 4)), jnp.arange(5) < jnp.array([[5], [2]]))
  found, variables = head.init_with_output(jax.random.key(0), encoded.tokens, encoded.mask, train=False)
  assert gives_tokens(head) and found.pooled is None and found.tokens.shape == (2, 5, 3)
  assert variables["params"]["fc1"]["kernel"].shape == (4, 3)
  np.testing.assert_array_equal(found.mask, encoded.mask)


RUN = dict(views={"image": 1, "text": 1}, heads={"tokens": "image", "words": "text", "joint": "image"}, batch_size=8)


@pytest.mark.parametrize(
  ("changes", "token_heads", "message"),
  [
    ({}, ["tokens"], r"score 'token_max' compares tokens, which head 'words' does not give"),
    (dict(query="image[0]/joint"), ["tokens", "words"], r"compares tokens, which head 'joint' .*one of: tokens, words"),
    (dict(score="cosine"), ["tokens", "words"], r"'cosine' compares one vector an example, which head 'tokens'"),
    ({}, [], r"add a head such as dict\(name='token_linear'"),
  ],
)
def test_a_score_and_its_heads_must_fit(changes, token_heads, message):
  terms = objective.parse_terms({"t": dict(query=IMAGE, key=TEXT, score="token_max") | changes})
  with pytest.raises(UserError, match=message) as error:
    objective.check_terms(terms, **RUN, token_heads=token_heads)
  assert "\n" not in str(error.value)


def test_tokens_are_not_queued():
  term = dict(query=IMAGE, key=f"{TEXT}@momentum", score="token_max", negatives="batch+queue:16")
  with pytest.raises(UserError, match=r"t\.negatives: a queue holds one vector for each example"):
    objective.parse_terms({"t": term})
