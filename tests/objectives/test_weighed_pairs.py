"""Terms in the style of papers whose formulas could not be read: what must hold of them, and plain formulas."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from term_rules import check_rules, module, random

from mmcontrast.encoders import Encoded
from mmcontrast.errors import UserError
from mmcontrast.objectives import terms as objective
from mmcontrast.objectives.score import normalize
from mmcontrast.objectives.term import Run
from mmcontrast.stores.epoch_hooks import HOOKS
from mmcontrast.stores.geodesics import geodesic_map
from mmcontrast.stores.hook import Examples

pytestmark = pytest.mark.usefixtures("float64")
PAIR = ("image[0]/joint", "text[0]/joint")
TAUGHT = (*PAIR, "image[0]/teacher", "text[0]/teacher")


def embeddings(names, count=8):
  return {name: random(count, 4, seed=n) for n, name in enumerate(names)}


def learned(term, found):
  shapes, terms = {name: Encoded(x) for name, x in found.items()}, objective.parse_terms({"t": term})
  return jax.tree.map(lambda x: x.astype(jnp.float64), objective.init_parameters(terms, jax.random.key(0), shapes))


def logits(found, temperature=0.07):
  image, text = (normalize(found[name]) for name in PAIR)
  return image @ text.T / temperature


def both(function, *matrices):
  """The mean of a function of rows and of the same of columns."""
  return (function(*matrices) + function(*(x.T for x in matrices))) / 2


def clip(x):
  return -jnp.mean(jnp.diagonal(jax.nn.log_softmax(x, 1)))


# ---- DCD-style ----------------------------------------------------------------------------------


def value(term, found, info=None):
  terms = objective.parse_terms({"t": term})
  parameters = learned(term, found)
  own = {"remembered": {"t": info}} if info else {}
  return objective.evaluate_and_remember(terms, found, {}, parameters, {}, {}, **own)[0]


def test_distillation_that_asks_nothing_is_clip():
  found = embeddings(TAUGHT)
  plain = module("dynamic_distillation", TAUGHT, mining=0.0, focus=0.0, soft=0.0)
  np.testing.assert_allclose(value(plain, found), both(clip, logits(found)), rtol=1e-6)


def test_distillation_is_the_formula():
  found, mining, focus = embeddings(TAUGHT), 0.3, 2.0
  taught = normalize(found[TAUGHT[2]]) @ normalize(found[TAUGHT[3]]).T / 0.2
  term = module("dynamic_distillation", TAUGHT, mining=mining, focus=focus, soft=0.7, teacher_temperature=0.2)

  def of_rows(s, t):
    itself = jnp.eye(len(s), dtype=bool)
    q = jax.nn.softmax(jnp.where(itself, -jnp.inf, t), 1)
    weight = jnp.where(itself, 1.0, 1 - mining + mining * (len(s) - 1) * q)
    hard = jnp.log(jnp.sum(weight * jnp.exp(s), 1)) - jnp.diagonal(s)
    soft = -jnp.sum(jax.nn.softmax(t, 1) * jax.nn.log_softmax(s, 1), 1)
    difficulty = (1 - jnp.diagonal(jax.nn.softmax(s, 1))) ** focus
    return jnp.mean(difficulty / jnp.mean(difficulty) * (0.7 * soft + hard))

  np.testing.assert_allclose(value(term, found), both(of_rows, logits(found), taught), rtol=1e-6)


def test_rules_of_distillation():
  term, found = module("dynamic_distillation", TAUGHT), embeddings(TAUGHT)
  plain = check_rules(term, found, {}, 1e-6, learned(term, found))  # the temperature starts in float32
  _, gradients = plain({name: x[:7] for name, x in found.items()}, {"valid": jnp.ones(7, bool)})
  assert gradients[PAIR[0]].any() and not any(gradients[name].any() for name in TAUGHT[2:])


# ---- G2L-style ----------------------------------------------------------------------------------


def rows(at, placed=1.0):
  return {"placed": jnp.full(len(at), placed)} | {f"x_{n}": jnp.asarray(at[:, n]) for n in range(at.shape[1])}


def test_without_coordinates_it_is_clip():
  found, term = embeddings(PAIR), module("geodesic_contrast", PAIR, dim=2)
  at = np.zeros((8, 2))
  np.testing.assert_allclose(value(term, found, rows(at, 0.0)), both(clip, logits(found)), rtol=1e-6)
  far = np.arange(16.0).reshape(8, 2) * 100
  np.testing.assert_allclose(value(term, found, rows(far)), both(clip, logits(found)), rtol=1e-6)


def test_near_texts_are_positives_and_no_negatives():
  found, term = embeddings(PAIR), module("geodesic_contrast", PAIR, dim=2, near=0.5)
  at = np.random.default_rng(0).normal(size=(8, 2))
  distance = np.linalg.norm(at[:, None] - at, axis=-1)
  near = np.exp(-((distance / 0.5) ** 2) / 2)

  def of_rows(s):
    far = np.where(np.eye(8, dtype=bool), 1.0, 1 - near)
    return jnp.mean(jnp.log(jnp.sum(far * jnp.exp(s), 1)) - jnp.sum(near * s, 1) / near.sum(1))

  np.testing.assert_allclose(value(term, found, rows(at)), both(of_rows, logits(found)), rtol=1e-6)


def test_rules_of_geodesics():
  term, found = module("geodesic_contrast", PAIR, dim=2, near=0.5), embeddings(PAIR)
  at = np.random.default_rng(0).normal(size=(8, 2))
  check_rules(term, found, {"rows": rows(at)}, 1e-6, learned(term, found))


def test_distances_go_along_the_graph():
  """Of points on three quarters of a circle the ends are near in space and far along it."""
  angles = np.linspace(0, 1.5 * np.pi, 60)
  at = geodesic_map(np.stack([np.cos(angles), np.sin(angles)], 1), 2, 12, 3)
  found = np.linalg.norm(at[:, None] - at, axis=-1)
  along = np.abs(angles[:, None] - angles)
  ratio = found[along > 0] / along[along > 0]
  np.testing.assert_allclose(ratio / np.median(ratio), 1, atol=0.05)
  assert found[0, -1] > 2 * found[0, 20]


def test_graphs_of_parts_and_of_few():
  """Two parts without a link are far apart; equal rows are one place; too few rows have no coordinates."""
  draw = np.random.default_rng(0)
  one, two = np.eye(4)[0] + 0.01 * draw.normal(size=(9, 4)), np.eye(4)[1] + 0.01 * draw.normal(size=(9, 4))
  at = geodesic_map(np.concatenate([one, two]), 3, 8, 2)
  apart = np.linalg.norm(at[:9].mean(0) - at[9:].mean(0))
  assert np.isfinite(at).all() and apart > 0.2
  same = geodesic_map(np.ones((9, 4)), 3, 8, 2)
  assert np.isfinite(same).all()
  assert (geodesic_map(np.ones((3, 4)), 3, 8, 2) == 0).all()


def test_the_hook_places_what_is_there():
  draw = np.random.default_rng(0)
  nodes = {PAIR[1]: Encoded(draw.normal(size=(30, 5)))}
  there = np.arange(30) != 4
  state = types.SimpleNamespace(tables={"t": {"placed": 0, "x_0": 0, "x_1": 0}})
  hook = HOOKS["geodesic_map"]("t", PAIR[1], neighbours=4, landmarks=6)
  hook.check(state, 30, True)
  made = [hook(lambda names: Examples(nodes, {PAIR[1]: there}, {}), state, jax.random.key(3)) for _ in range(2)]
  new = made[0].tables["t"]
  assert new["placed"].tolist() == there.tolist() and new["x_0"][4] == 0 and np.std(new["x_0"]) > 0
  for name, column in made[1].tables["t"].items():
    np.testing.assert_array_equal(column, new[name])
  for arguments, message in (
    ((state, 4, True), r"neighbours: 4 of 4 examples; give 3 or fewer"),
    ((state, 30, False), r"set: coordinates are those of the examples that are trained on"),
    ((types.SimpleNamespace(tables={}), 30, True), r"term: 't' is no entry .*; add one with module=dict"),
  ):
    with pytest.raises(UserError, match=message):
      hook.check(*arguments)
  with pytest.raises(UserError, match=r"landmarks: 2 is below 3"):
    HOOKS["geodesic_map"]("t", PAIR[1], landmarks=2)


@pytest.mark.parametrize(
  ("term", "message"),
  [
    (module("geodesic_contrast", PAIR[:1]), r"t\.embeddings: .* are 1; name images, then texts"),
    (module("geodesic_contrast", PAIR, near=0.0), r"t\.module\.near: 0\.0 is not above 0"),
    (module("geodesic_contrast", PAIR, dim=0), r"t\.module\.dim: 0 is not a number of coordinates"),
    (module("dynamic_distillation", PAIR), r"t\.embeddings: .* are 2; name the student's images and texts"),
    (module("dynamic_distillation", TAUGHT, mining=2.0), r"t\.module\.mining: 2\.0 is not in \[0, 1\]"),
    (module("dynamic_distillation", TAUGHT, focus=-1.0), r"t\.module\.focus: -1\.0 is below 0"),
    (module("dynamic_distillation", TAUGHT, temperature=0.0), r"t\.module\.temperature: 0\.0 divides scores; give"),
    (
      module("dynamic_distillation", (*PAIR, "image[0]/teacher", "text[0]/other")),
      r"t\.embeddings: heads 'teacher' and 'other' give 6 and 5 numbers; make them equal",
    ),
  ],
)
def test_what_is_refused(term, message):
  heads = dict.fromkeys(("joint", "teacher", "other"), "image")
  with pytest.raises(UserError, match=message) as error:
    objective.parse_terms({"t": term})["t"].check(Run(heads, 8, head_dims={"joint": 4, "teacher": 6, "other": 5}))
  assert "\n" not in str(error.value)
