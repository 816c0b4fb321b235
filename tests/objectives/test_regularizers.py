"""Regularizers: published values, plain formulas, every mesh, masks, memory, what is refused."""

import functools
import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import assert_close, compiled, equations, make_mesh
from tiny import tiny_config, tiny_spec

from mmcontrast.cost import dry_run
from mmcontrast.errors import UserError
from mmcontrast.objectives import terms as objective
from mmcontrast.objectives.global_matrix import reduce_tiles
from mmcontrast.objectives.regularizers import REGULARIZERS
from mmcontrast.parallel import sharding
from mmcontrast.training.program import build_program

CASES = json.loads((pathlib.Path(__file__).parents[1] / "golden" / "image_text.json").read_text())
IMAGE, TEXT, KEY = "image[0]/joint", "text[0]/joint", "text[0]/joint@momentum"
PAIR = (IMAGE, TEXT)
ALL = {name: dict(regularizer=name, embeddings=PAIR) for name in REGULARIZERS}
CLIP = dict(query=IMAGE, key=TEXT, direction="both")
N, D = 11, 5
VALID = (np.arange(N) != 2) & (np.arange(N) != 10)


def evaluate(config, embeddings, info=None, parameters=None, **options):
  terms = objective.parse_terms(config)
  weights = {name: term.weight for name, term in terms.items()}
  return objective.evaluate(terms, embeddings, info or {}, parameters or {}, {}, weights, **options)


def random(seed=0, n=N):
  rng = np.random.default_rng(seed)
  return {name: jnp.asarray(rng.normal(size=(n, D))) for name in PAIR}


def formulas(embeddings):
  """Each regularizer of whole matrices."""
  a, b = (x / jnp.linalg.norm(x, axis=1, keepdims=True) for x in embeddings.values())
  n = a.shape[0]
  apart = ~jnp.eye(n, dtype=bool)

  def potential(x, y):
    distances = jnp.sum((x[:, None] - y[None]) ** 2, -1)
    return jnp.log(jnp.sum(jnp.where(apart, jnp.exp(-2 * distances), 0)) / (n * (n - 1)))

  x, y = embeddings.values()
  off = ~jnp.eye(x.shape[1], dtype=bool)
  means = [x - jnp.mean(x, 0), y - jnp.mean(y, 0)]
  unbiased = [m.T @ m / (n - 1) for m in means]
  left, right = (m / jnp.sqrt(jnp.mean(m**2, 0) + 1e-5) for m in means)
  correlation = left.T @ right / n
  return {
    "vicreg": 25 * jnp.mean((x - y) ** 2)
    + sum(25 * jnp.mean(jax.nn.relu(1 - jnp.sqrt(jnp.diag(c) + 1e-4))) / 2 for c in unbiased)
    + sum(jnp.sum(jnp.where(off, c, 0) ** 2) / x.shape[1] for c in unbiased),
    "barlow_twins": jnp.sum((1 - jnp.diag(correlation)) ** 2) + 0.0051 * jnp.sum(jnp.where(off, correlation, 0) ** 2),
    "alignment": 2 - 2 * jnp.mean(jnp.sum(a * b, 1)),
    "uniformity": (potential(a, a) + potential(b, b)) / 2,
    "cross_uniformity": potential(a, b),
    "in_modal_consistency": n * jnp.mean((a @ a.T - b @ b.T) ** 2),
    "cross_modal_consistency": n * jnp.mean((a @ b.T - b @ a.T) ** 2),
  }


# ---- Values -------------------------------------------------------------------------------------


def assert_golden(case, function, names, tolerance=1e-9):
  """Asserts that `function` of the case's inputs `names` has its value and their gradients."""
  expected = CASES[case]["expected"]
  inputs = {name: jnp.asarray(CASES[case]["inputs"][name]) for name in names}
  value, gradients = compiled(jax.value_and_grad(function))(inputs)
  np.testing.assert_allclose(value, expected["loss"], rtol=tolerance)
  for name in names:
    np.testing.assert_allclose(gradients[name], expected[f"grad_{name}"], rtol=tolerance, atol=tolerance)


GAP = {
  "alignment_loss": ALL["alignment"],
  "uniformity_loss": ALL["uniformity"],
  "cross_uniformity_loss": ALL["cross_uniformity"],
}


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("case", ["gap_all", "gap_align_only", "gap_unif_only", "gap_xunif_only"])
def test_contrastive_gap(case):
  inputs = CASES[case]["inputs"]
  config = {name: GAP[name] for name in inputs["on"] if name != "no_clip"}
  if "no_clip" not in inputs["on"]:
    config["clip"] = dict(CLIP, temperature=math.exp(-inputs["log_scale"]))
  assert_golden(case, lambda x: evaluate(config, {IMAGE: x["a"], TEXT: x["b"]})[0], ("a", "b"))


@pytest.mark.usefixtures("float64")
def test_cyclip():
  """CLIP and a quarter of both consistencies; the reference takes its rows, of six decimals, as they are."""
  clip = {"clip": dict(CLIP, score="dot", temperature=dict(init=0.07))}

  def loss(x):
    rows = x["zi"], x["zt"]
    found = evaluate(clip, dict(zip(PAIR, rows)), parameters={"clip": {"log_scale": x["log_scale"]}})[0]
    both = [REGULARIZERS[name]() for name in ("in_modal_consistency", "cross_modal_consistency")]
    return found + 0.25 * sum(regularizer.loss(rows, None, reduce_tiles) for regularizer in both)

  assert_golden("cyclip", loss, ("zi", "zt", "log_scale"))


@functools.cache
def plain():
  """The formulas' values and gradients, of the examples that are there."""

  def gradients(embeddings):
    return {name: jax.value_and_grad(lambda x, n=name: formulas(x)[n])(embeddings) for name in ALL}

  return compiled(gradients)({name: x[VALID] for name, x in random().items()})


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("impl", "devices"), [("dense", 1), ("rows", 8), ("ring", 8)])
def test_value_and_gradients(impl, devices):
  """Two examples absent, whatever stands in their place: the plain formula of those there."""

  def loss(embeddings, name):
    info = {"valid": VALID}
    return evaluate({name: ALL[name]}, embeddings, info, mesh=make_mesh(devices), impl=impl, tile=2)[0]

  found = compiled(lambda x: {name: jax.value_and_grad(loss)(x, name) for name in ALL})(random())
  for name, (value, gradients) in found.items():
    there = {embedding: x[VALID] for embedding, x in gradients.items()}
    assert_close((value, there), plain()[name], 1e-10)
    assert not any(np.any(x[~VALID]) for x in gradients.values())


def test_alone_there_is_nothing_to_keep_away_from():
  config = {name: ALL[name] for name in ("uniformity", "cross_uniformity")}
  step = compiled(jax.value_and_grad(lambda x, info: evaluate(config, x, info)[0]))
  for left in (1, 0):
    loss, gradients = step(random(), {"valid": np.arange(N) < left})
    assert loss == 0.0 and not any(np.any(x) for x in gradients.values())


@pytest.mark.usefixtures("float64")
def test_order_does_not_matter():
  embeddings, order = random(), np.random.default_rng(1).permutation(N)
  loss = compiled(lambda x: evaluate(ALL, x)[0])
  np.testing.assert_allclose(loss({name: x[order] for name, x in embeddings.items()}), loss(embeddings), rtol=1e-12)


def test_uniformity_of_one_embedding_and_its_sharpness():
  """Orthogonal rows are at distance two, so the potential is minus twice t."""
  for t in (2.0, 0.5):
    config = {"u": dict(regularizer=dict(name="uniformity", t=t), embeddings=IMAGE, weight=3.0)}
    loss, metrics = compiled(lambda x, c=config: evaluate(c, x))({IMAGE: jnp.eye(4)})
    np.testing.assert_allclose(loss, -6 * t, rtol=1e-5)
    np.testing.assert_allclose(metrics["u/loss"], -2 * t, rtol=1e-5)
    assert set(metrics) == {"u/loss", "u/weight"} and metrics["u/weight"] == 3.0


def test_momentum_embeddings_have_no_gradient():
  config = {name: dict(entry, embeddings=(IMAGE, KEY)) for name, entry in ALL.items()}
  embeddings = dict(zip((IMAGE, KEY), random().values()))
  gradients = compiled(jax.grad(lambda x: evaluate(config, x)[0]))(embeddings)
  assert np.any(gradients[IMAGE]) and not np.any(gradients[KEY])


def test_memory_is_linear():
  """Nothing of N^2 numbers is made, forward or backward, but by the dense form."""
  embeddings = random(n=64)

  def largest(impl):
    function = jax.value_and_grad(lambda x: evaluate(ALL, x, impl=impl, tile=4)[0])
    shapes = [v.aval.shape for e in equations(jax.make_jaxpr(function)(embeddings).jaxpr) for v in e.outvars]
    return max(map(math.prod, shapes))

  assert largest("dense") >= 64 * 64 > 2 * largest("ring")


# ---- In the objective, and what is refused ------------------------------------------------------


def test_a_mixture_needs_what_both_need():
  uniformity = dict(ALL["uniformity"], embeddings="image[1]/ssl")
  terms = objective.parse_terms({"clip": dict(CLIP, temperature=dict(init=0.1)), "u": uniformity})
  assert objective.required_embeddings(terms) == (IMAGE, TEXT, "image[1]/ssl")
  assert list(objective.init_parameters(terms)) == ["clip"] and objective.queues(terms) == {}


def test_a_step_with_regularizers():
  """With weights on a schedule, alone of heads that nothing else names; the dry run says what their matrix is."""
  pair = ("image[0]/image_joint", "text[1]/text_joint@momentum")
  config = tiny_config(objective=dict(
    align=dict(regularizer="alignment", embeddings=pair, weight=dict(name="linear", init=0.0, end=1.0)),
    consistent=dict(regularizer="in_modal_consistency", embeddings=pair)))  # fmt: skip
  mesh = sharding.make_mesh({"data": -1})
  built = build_program(config, tiny_spec(), mesh)
  assert dry_run.loss_lines(config, built, mesh) == ["  consistent: 16 x 16 (regularizer), dim 8: dense (auto)"]
  state, metrics = jax.eval_shape(built.step, built.state, built.batch)
  assert {"align/loss", "align/weight", "consistent/loss"} <= set(metrics) and not state.queues
  assert set(state.momentum["params"]["heads"]) == {"text_joint"} and state.params["terms"] == {}


@pytest.mark.parametrize(
  ("entry", "message"),
  [
    (dict(regularizer="aligment", embeddings=PAIR), r"a\.regularizer: .* did you mean 'alignment'"),
    (dict(regulariser="alignment", embeddings=PAIR), r"a: no option 'regulariser'; did you mean 'regularizer'"),
    (dict(ALL["alignment"], wieght=1.0), r"a: no option 'wieght'; did you mean 'weight'"),
    (dict(ALL["alignment"], temperature=0.1), r"a: no option 'temperature'"),
    (dict(ALL["alignment"], embeddings=IMAGE), r"a\.embeddings: alignment takes 2 different embeddings, not \['image"),
    (dict(ALL["cross_uniformity"], embeddings=(IMAGE, IMAGE)), r"a\.embeddings: .* takes 2 different embeddings"),
    (dict(regularizer="uniformity"), r"a\.embeddings: uniformity takes one or more different embeddings, not \[\]"),
    (dict(ALL["uniformity"], embeddings="image/joint"), r"a\.embeddings: 'image/joint' is not the path"),
    (dict(ALL["uniformity"], regularizer=dict(name="uniformity", s=2)), r"a\.regularizer: no option 's'; .*\bt\b"),
    (dict(ALL["uniformity"], regularizer=dict(name="uniformity", t=0)), r"a\.regularizer\.t: 0 is not above 0"),
  ],
)
def test_one_line_says_what_to_change(entry, message):
  with pytest.raises(UserError, match=rf"objective\.{message}") as error:
    objective.parse_terms({"a": entry})
  assert "\n" not in str(error.value)


def test_no_temperature_to_share():
  with pytest.raises(UserError, match=r"objective\.t\.temperature: no such choice 'a'"):
    objective.parse_terms({"a": ALL["alignment"], "t": dict(CLIP, temperature="a")})


@pytest.mark.parametrize(
  ("embeddings", "message"),
  [
    ((IMAGE, "text[0]/word"), r"embedding 'text\[0\]/word': head: .* did you mean 'words'"),
    ((IMAGE, "text[1]/words"), r"data\.views\.text is 1"),
    ((IMAGE, "text[0]/words@momentum"), r"there is no momentum branch"),
    ((IMAGE, "text[0]/pieces"), r"a\.embeddings: head 'pieces' gives a vector for each token"),
  ],
)
def test_regularizers_must_fit_the_run(embeddings, message):
  terms = objective.parse_terms({"a": dict(regularizer="alignment", embeddings=embeddings)})
  heads = {"joint": "image", "words": "text", "pieces": "text"}
  run = dict(views={"image": 1, "text": 1}, heads=heads, batch_size=16, momentum=False, token_heads={"pieces"})
  with pytest.raises(UserError, match=rf"objective\.a.*{message}|objective\.{message}"):
    objective.check_terms(terms, **run)


def test_vectors_that_meet_are_of_one_length():
  run = dict(views={"image": 1, "text": 1}, heads={"joint": "image", "words": "text"}, batch_size=16)
  for name, entry in ALL.items():
    terms = objective.parse_terms({"a": dict(entry, embeddings=(IMAGE, "text[0]/words"))})
    if name in ("uniformity", "in_modal_consistency"):
      objective.check_terms(terms, **run, head_dims={"joint": 8, "words": 6})
    else:
      with pytest.raises(UserError, match=r"objective\.a: heads give vectors of different lengths"):
        objective.check_terms(terms, **run, head_dims={"joint": 8, "words": 6})


def test_an_example_without_a_modality_is_left_out():
  """Of regularizers that read it, and of no other."""
  config = {"both": ALL["cross_uniformity"], "image": dict(ALL["uniformity"], embeddings=IMAGE)}
  losses = compiled(lambda x, info: evaluate(config, x, info)[1])
  whole = losses(random(), {"valid": np.ones(N, bool)})
  without = losses(random(), {"valid": np.ones(N, bool), "present": {"text": VALID}})
  left = losses(random(), {"valid": VALID})
  assert without["image/loss"] == whole["image/loss"] and without["both/loss"] == left["both/loss"]
  assert whole["both/loss"] != left["both/loss"]
