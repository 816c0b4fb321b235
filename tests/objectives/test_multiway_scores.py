"""Scores of more than two modalities: GRAM and Symile against references, determinants and loops."""

import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import assert_close, compiled, equations, make_mesh

from mmcontrast.errors import UserError
from mmcontrast.objectives import sides
from mmcontrast.objectives import terms as objective
from mmcontrast.objectives.scores import build_score

CASES = json.loads((pathlib.Path(__file__).parents[1] / "golden/multimodal.json").read_text())
NAMES = ("image[0]/joint", "text[0]/joint", "text[1]/joint")
N, D = 9, 6
LEARNED = dict(init=0.2, learned=True)


def case(name):
  given = {key: jnp.asarray(value) for key, value in CASES[name]["inputs"].items()}
  return given, {key: np.asarray(value) for key, value in CASES[name]["expected"].items()}


def embeddings(names=NAMES, n=N, dtype=jnp.float64):
  rng = np.random.default_rng(0)
  return {name: jnp.asarray(rng.normal(size=(n, D)), dtype) for name in names}


def anchored(**term):
  """A term to each anchor, all of one temperature: Symile."""
  return {
    f"of_{i}": dict(
      query=name,
      key=[other for other in NAMES if other != name],
      weight=1 / len(NAMES),
      temperature="of_0" if i else LEARNED,
      **term,
    )
    for i, name in enumerate(NAMES)
  }


def total(config, given, log_scale, info=None, **options):
  terms = objective.parse_terms(config)
  owner, weights = next(iter(terms)), {name: term.weight for name, term in terms.items()}
  return objective.evaluate(terms, given, info or {}, {owner: {"log_scale": log_scale}}, {}, weights, **options)


# ---- GRAM ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("modalities", [3, 4, 5])
def test_gram(modalities):
  given, expected = case("gram_volume")
  score = build_score(dict(name="gram_volume", floor=0.0), "score")
  members = [given[f"m{k}"] for k in range(1, modalities)]
  # The reference takes vectors as they are, unit to six digits.
  found = score.tile(given["anchor"], score.join(members))
  np.testing.assert_allclose(-found, expected[f"k{modalities}"], rtol=3e-6)


@pytest.mark.usefixtures("float64")
def test_volume_and_gradient_are_those_of_the_determinant():
  score = build_score("gram_volume", "score")
  anchors, *members = (score.prepare(x) for x in embeddings().values())

  def volumes(anchors, members):
    vectors = jnp.stack([*members], 1)
    tuples = jnp.concatenate(
      [jnp.broadcast_to(anchors[:, None, None], (N, N, 1, D)), jnp.broadcast_to(vectors, (N, *vectors.shape))], 2
    )
    return -jnp.sqrt(jnp.linalg.det(tuples @ tuples.swapaxes(2, 3)) + 1e-6)

  def loss(function):
    return lambda *vectors: jnp.sum(jnp.sin(3.0 * function(*vectors)))

  wanted = jax.value_and_grad(loss(volumes), (0, 1))(anchors, members)
  found = jax.value_and_grad(loss(lambda a, m: score.tile(a, score.join(m))), (0, 1))(anchors, members)
  np.testing.assert_allclose(found[0], wanted[0], rtol=1e-9)
  for a, b in zip((found[1][0], *found[1][1]), (wanted[1][0], *wanted[1][1])):
    # Along a vector itself the floor differs: it grows with the anchor. `prepare` takes that away.
    a, b = (g - jnp.sum(g * x, -1, keepdims=True) * x for g, x in ((a, anchors), (b, anchors)))
    assert_close(a, b, 1e-7)


@pytest.mark.parametrize("alike", ["all", "keys", "anchor and key"])
def test_perfect_alignment_has_a_finite_gradient(alike):
  given = embeddings(dtype=jnp.float32)
  names = {"all": NAMES, "keys": NAMES[1:], "anchor and key": NAMES[:2]}[alike]
  given |= {name: given[names[0]] * (1.0 + i) for i, name in enumerate(names)}  # of one direction
  term = dict(query=NAMES[0], key=NAMES[1:], score="gram_volume", direction="both", temperature=LEARNED)
  (loss, _), gradients = compiled(jax.value_and_grad(lambda x: total({"t": term}, x, 2.0), has_aux=True))(given)
  assert np.isfinite(loss) and all(np.all(np.isfinite(g)) for g in gradients.values())
  assert max(np.max(np.abs(g)) for g in gradients.values()) < 1e3


@pytest.mark.usefixtures("float64")
def test_a_volume_sees_no_sign_and_two_vectors_span_a_sine():
  score = build_score(dict(name="gram_volume", floor=0.0), "score")
  a, b, c = (score.prepare(x) for x in embeddings().values())
  one = score.tile(a, score.join([b, c]))
  np.testing.assert_allclose(score.tile(-a, score.join([b, c])), one, rtol=1e-12)
  np.testing.assert_allclose(score.tile(a, score.join([c, -b])), one, rtol=1e-9)
  np.testing.assert_allclose(score.tile(a, score.join([b])), -jnp.sqrt(1 - (a @ b.T) ** 2), rtol=1e-9)


# ---- Symile -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("float64")
def test_symile_with_all_negatives():
  given, expected = case("symile")
  config = anchored(score="multilinear", negatives="combined")
  x = dict(zip(NAMES, (given[name] for name in "abc")))
  loss, _ = total(config, x, jnp.log(given["logit_scale"]), impl="dense")
  np.testing.assert_allclose(loss, expected["n_squared"], rtol=1e-6)  # the reference's in single precision


@pytest.mark.usefixtures("float64")
def test_symile_with_permuted_negatives(monkeypatch):
  """The reference's permutations in the place of shifts: all the rest is ours."""
  given, expected = case("symile")
  orders = iter(np.asarray(given["perms"]).reshape(3, 2, -1))
  monkeypatch.setattr(sides, "permutations", lambda count, mask, keys: list(next(orders)))
  config = anchored(score="multilinear", negatives="permuted")
  x = dict(zip(NAMES, (given[name] for name in "abc")))
  loss, _ = total(config, x, jnp.log(given["logit_scale"]), impl="dense")
  np.testing.assert_allclose(loss, expected["n_with_perms"], rtol=1e-6)


def dense_symile(negatives, given, log_scale, there):
  """Symile's loss over the examples `there`, every logit at once."""
  vectors = [x[there] / jnp.linalg.norm(x[there], axis=1, keepdims=True) for x in given.values()]
  n, losses = len(there), []
  for i, anchor in enumerate(vectors):
    b, c = (x for j, x in enumerate(vectors) if j != i)
    own = jnp.sum(anchor * b * c, 1)
    if negatives == "combined":
      every = jnp.einsum("id,jd,kd->ijk", anchor, b, c).reshape(n, -1)
    else:
      slots = np.arange(n)
      every = anchor @ (b[(slots + 1) % n] * c[(slots + 2) % n]).T
      every = jnp.where(np.eye(n, dtype=bool), own[:, None], every)
    losses.append(jnp.mean(jax.nn.logsumexp(jnp.exp(log_scale) * every, 1) - jnp.exp(log_scale) * own))
  return sum(losses) / 3


def symile(negatives, given, log_scale, absent=(), **options):
  info = {"valid": ~np.isin(np.arange(N), absent)}
  config = anchored(score="multilinear", negatives=negatives)
  return total(config, given, log_scale, info, **options)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("negatives", ["permuted", "combined"])
def test_symile_on_devices_is_the_dense_loss(negatives):
  """Value and gradients on eight devices, two examples absent: as if they were never there."""
  absent = (3, 7)
  there = np.setdiff1d(np.arange(N), absent)
  options = dict(impl="ring", mesh=make_mesh(8), tile=2)
  given, log_scale = embeddings(), jnp.float64(1.7)
  found = compiled(jax.value_and_grad(lambda *x: symile(negatives, *x, absent, **options)[0], (0, 1)))
  wanted = jax.value_and_grad(lambda *x: dense_symile(negatives, *x, there), (0, 1))
  assert_close(found(given, log_scale), wanted(given, log_scale), 1e-10)


@pytest.mark.usefixtures("float64")
def test_metrics_of_all_negatives():
  given = embeddings()
  a, b, c = (x / jnp.linalg.norm(x, axis=1, keepdims=True) for x in given.values())
  every, own = jnp.einsum("id,jd,kd->ijk", a, b, c), jnp.sum(a * b * c, 1)

  def run(negatives):
    term = anchored(score="multilinear", negatives=negatives)["of_0"]
    return compiled(lambda x: total({"of_0": term}, x, 0.0, impl="dense")[1])(given)

  metrics = run("combined")
  np.testing.assert_allclose(metrics["of_0/positive"], jnp.mean(own), rtol=1e-9)
  np.testing.assert_allclose(metrics["of_0/negative"], (jnp.sum(every) - jnp.sum(own)) / (N**3 - N), rtol=1e-9)
  best = jnp.max(every.reshape(N, -1), 1)
  np.testing.assert_allclose(metrics["of_0/top1"], jnp.mean(best == own))
  metrics = run("permuted")
  slots = np.arange(N)
  others = (a @ (b[(slots + 1) % N] * c[(slots + 2) % N]).T)[~np.eye(N, dtype=bool)]
  np.testing.assert_allclose(metrics["of_0/negative"], jnp.mean(others), rtol=1e-9)


def test_memory_of_all_negatives_is_that_of_one_part():
  """Neither the N^3 logits, nor N numbers for each of the parts, nor a part's N^2, forward or backward."""
  n, given = 24, embeddings(n=24, dtype=jnp.float32)
  term = dict(anchored(score="multilinear", negatives="combined")["of_0"], temperature=0.1)
  terms = objective.parse_terms({"t": term})
  gradient = jax.grad(lambda x: objective.evaluate(terms, x, {}, {}, {}, {}, impl="ring", tile=4)[0])
  every = [v.aval for e in equations(jax.make_jaxpr(gradient)(given).jaxpr) for v in e.outvars]
  largest = max(math.prod(aval.shape) for aval in every)
  assert largest <= 2 * n * D < n * (n - 1), largest  # keys beside themselves, to be rolled


# ---- GRAM as a term -----------------------------------------------------------------------------


@pytest.mark.usefixtures("float64")
def test_gram_on_devices_and_in_tiles():
  term = dict(
    query=NAMES[0],
    key=NAMES[1:],
    score="gram_volume",
    direction="both",
    temperature=LEARNED,
    criterion=dict(name="softmax", smoothing=0.1),
  )
  info = {"valid": np.arange(N) != 3}

  def run(impl, devices):
    def loss(x, log_scale):
      return total({"t": term}, x, log_scale, info, impl=impl, mesh=make_mesh(devices), tile=2)

    return compiled(jax.value_and_grad(loss, (0, 1), has_aux=True))(embeddings(), jnp.float64(1.7))

  wanted = run("dense", 1)
  assert_close(run("ring", 8), wanted, 1e-9)
  volumes = CASES["gram_volume"]  # and the loss in words, on the reference's own volumes
  logits = -np.asarray(volumes["expected"]["k3"]) / 0.07
  given = dict(zip(NAMES, (jnp.asarray(volumes["inputs"][name]) for name in ("anchor", "m1", "m2"))))

  def smoothed(logits):
    log_p = jax.nn.log_softmax(logits, 1)
    return -0.9 * np.mean(np.diagonal(log_p)) - 0.1 * np.mean(log_p)

  exact = dict(term, score=dict(name="gram_volume", floor=0.0))
  found = total({"t": exact}, given, -np.log(0.07), impl="dense")[0]
  np.testing.assert_allclose(found, (smoothed(logits) + smoothed(logits.T)) / 2, rtol=1e-5)


# ---- The mean of keys ---------------------------------------------------------------------------


@pytest.mark.usefixtures("float64")
def test_the_mean_of_keys_in_numpy_on_devices_and_without_an_example():
  """Cross entropy of the cosines with the mean of vectors of unequal lengths, both ways; in tiles on four devices."""
  term = dict(query=NAMES[0], key=NAMES[1:], score="mean_of_keys", direction="both", temperature=0.05)
  given = embeddings()
  given[NAMES[1]] = given[NAMES[1]] * 3.0
  valid = np.arange(N) != 3

  def run(given, valid, impl="dense", devices=1):
    terms = objective.parse_terms({"t": term})

    def loss(x):
      facts = {"valid": valid}
      return objective.evaluate(terms, x, facts, {}, {}, {}, impl=impl, mesh=make_mesh(devices), tile=2)[0]

    return compiled(jax.value_and_grad(loss))(given)

  def by_hand(given):
    anchor, first, second = (given[name][valid] for name in NAMES)
    mean = (first + second) / 2
    unit = lambda x: x / jnp.linalg.norm(x, axis=1, keepdims=True)  # noqa: E731
    logits = unit(anchor) @ unit(mean).T / 0.05
    return -sum(jnp.mean(jnp.diagonal(jax.nn.log_softmax(logits, axis))) for axis in (0, 1)) / 2

  wanted = compiled(jax.value_and_grad(by_hand))(given)
  assert_close(run(given, valid), wanted, 1e-9)
  broken = {name: jnp.where(valid[:, None], x, 7.0) for name, x in given.items()}
  assert_close(run(broken, valid, "ring", 4), wanted, 1e-9)


# ---- What is refused ----------------------------------------------------------------------------

GRAM = dict(query=NAMES[0], key=NAMES[1:], score="gram_volume")
SYMILE = dict(GRAM, score="multilinear", negatives="permuted")


@pytest.mark.parametrize(
  ("term", "message"),
  [
    (dict(GRAM, key=NAMES[1]), r"t\.key: score 'gram_volume' compares an anchor with two or more keys"),
    (dict(GRAM, query=NAMES[:2], key=[*NAMES[2:], "text[2]/joint"]), r"t\.query: .* has one anchor"),
    (dict(GRAM, score="cosine", negatives="combined"), r"t\.negatives: 'combined' mixes keys .*'multilinear'"),
    (dict(GRAM, negative_keys="text[2]/joint"), r"t\.negative_keys: .* made of 2 keys of the batch"),
    (dict(GRAM, negatives="batch+queue:16"), r"t\.negatives: .* made of 2 keys of the batch"),
    (dict(SYMILE, direction="both"), r"t\.direction: 'permuted' tuples .*use direction='rows'"),
    (dict(SYMILE, target="same_id"), r"t\.target: .*use target='identity'"),
    (dict(SYMILE, negatives="combined", criterion=dict(name="hinge", reduce="hardest")), r"t\.criterion: .*'permuted'"),
    (dict(SYMILE, negatives="permuted:16"), r"t\.negatives: .* write 'permuted'"),
  ],
)
def test_one_line_says_what_to_change(term, message):
  with pytest.raises(UserError, match=message) as error:
    objective.parse_terms({"t": term})
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  ("dims", "message"),
  [
    ({"joint": 64, "words": 32}, r"different lengths \('joint' 64, 'words' 32\)"),
    ({"joint": 2, "words": 2}, r"t\.key: 3 vectors of length 2 span no volume; name 1 keys at most, .*dim 3"),
  ],
)
def test_vectors_must_be_long_enough(dims, message):
  terms = objective.parse_terms({"t": dict(GRAM, key=["text[0]/words", "text[1]/words"])})
  run = dict(views={"image": 1, "text": 2}, heads={"joint": "image", "words": "text"}, batch_size=8)
  with pytest.raises(UserError, match=message) as error:
    objective.check_terms(terms, **run, head_dims=dims)
  assert "\n" not in str(error.value)
  objective.check_terms(terms, **run, head_dims={"joint": 3, "words": 3})


def test_no_two_of_the_shipped_triple_are_said_to_one_tower():
  """Two names through one tower find each other, and solve the volume without the drawing."""
  from mmcontrast.config import load_config
  from mmcontrast.evaluation.joined import joined_terms

  config = load_config("methods/gram")
  (term,) = joined_terms(config["objective"])
  towers = [config["heads"][path.head]["tower"] for path in (term.query, *term.keys)]
  assert towers == ["image", "text", "german"] and config["data"]["languages"] == ("en", "de")
