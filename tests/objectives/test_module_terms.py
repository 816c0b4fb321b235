"""Terms that learn and remember: their numbers against reference code, and that devices and absent examples are right.

The numbers of tests/golden/addition.json are of public code run in float64, named in each case's "source".
"""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import assert_close, compiled, make_mesh

from mmcontrast.encoders import Encoded
from mmcontrast.errors import UserError
from mmcontrast.objectives import terms as objective
from mmcontrast.objectives.score import normalize
from mmcontrast.objectives.swav import sinkhorn

CASES = json.loads((pathlib.Path(__file__).parents[1] / "golden" / "addition.json").read_text())
VIEWS = ("image[0]/ssl", "image[1]/ssl", "image_small[0]/ssl", "image_small[1]/ssl")
TEACHERS = tuple(f"{name}@momentum" for name in VIEWS[:2])
pytestmark = pytest.mark.usefixtures("float64")


def case(name):
  return [{key: jnp.asarray(x) for key, x in CASES[name][part].items()} for part in ("inputs", "expected")]


def evaluate(term, embeddings, parameters=None, state=None, valid=None, **options):
  """(loss, metrics, new state) of one term "t"."""
  terms = objective.parse_terms({"t": term})
  info = {} if valid is None else {"valid": valid}
  states = {"t": state} if state else {}
  run = jax.jit(lambda *arrays: objective.evaluate_and_remember(terms, *arrays, {}, {}, states=states, **options))
  loss, metrics, _, states = run(embeddings, info, {"t": parameters or {}})
  return loss, metrics, states.get("t", {})


# ---- Regularizers of statistics over the batch ----------------------------------------------------


@pytest.mark.parametrize(
  ("name", "options"), [("vicreg", dict(sim=25.0, std=25.0, cov=1.0)), ("barlow_twins", dict(off_diagonal=None))]
)
def test_redundancy(name, options):
  x, expected = case(name)
  options = {key: float(x["lambd"]) if value is None else float(x.get(key, value)) for key, value in options.items()}
  term = dict(regularizer=dict(name=name, **options), embeddings=VIEWS[:2])

  def loss(a, b):
    return evaluate(term, {VIEWS[0]: a, VIEWS[1]: b})[0]

  value, gradients = compiled(jax.value_and_grad(loss, (0, 1)))(x["a"], x["b"])
  np.testing.assert_allclose(value, expected["loss"], rtol=1e-10)
  for found, side in zip(gradients, "ab"):
    np.testing.assert_allclose(found, expected[f"grad_{side}"], atol=1e-10)


# ---- SwAV ---------------------------------------------------------------------------------------


def swav(x, **options):
  options = dict(prototypes=x["prototypes"].shape[0], epsilon=0.05, iterations=3, temperature=0.1) | options
  return dict(module=dict(name="swav", **options), embeddings=VIEWS)


def crops(rows, count=4):
  """Rows crop-major, as the reference has them -> name -> [N, D]."""
  return dict(zip(VIEWS, rows.reshape(count, -1, rows.shape[-1])))


def check_swav(x, expected, term, state=None):
  def loss(embeddings, prototypes):
    found, _, new = evaluate(term, crops(embeddings), {"prototypes": {"kernel": prototypes}}, state)
    return found, new

  function = compiled(jax.value_and_grad(loss, (0, 1), has_aux=True))
  prototypes = normalize(x["prototypes"])  # as the reference does first, and `after_step` before it
  np.testing.assert_allclose(prototypes, expected.get("prototypes", prototypes), atol=1e-9)
  (value, new), gradients = function(x["embeddings"], prototypes)
  np.testing.assert_allclose(value, expected["loss"], rtol=1e-6)
  for found, name in zip(gradients, ("grad_embeddings", "grad_prototypes")):
    if name in expected:
      np.testing.assert_allclose(found, expected[name], atol=1e-6)
  return new


def queue_state(queue, filled):
  return {f"queue_{v}": queue[v] for v in range(2)} | {f"filled_{v}": jnp.int32(filled) for v in range(2)}


def test_swav_with_small_crops():
  check_swav(*(found := case("swav_multicrop")), swav(found[0]))


def test_swav_with_a_full_queue():
  x, expected = case("swav_queue")
  length = x["queue"].shape[1]
  new = check_swav(x, expected, swav(x, queue=length), queue_state(x["queue"], length))
  np.testing.assert_allclose(jnp.stack([new["queue_0"], new["queue_1"]]), expected["queue_after"], atol=1e-6)


def test_swav_with_a_queue_that_is_not_full():
  x, expected = case("swav_queue_filling")
  length = expected["queue_after"].shape[1]
  new = check_swav(x, expected, swav(x, queue=length), queue_state(jnp.zeros_like(expected["queue_after"]), 0))
  np.testing.assert_allclose(jnp.stack([new["queue_0"], new["queue_1"]]), expected["queue_after"], atol=1e-6)
  assert int(new["filled_0"]) == len(x["embeddings"]) // 4


def test_prototypes_wait_and_stay_of_unit_length():
  x, expected = case("swav_multicrop")
  config = swav(x, freeze_steps=5)
  term = objective.parse_terms({"t": config})["t"]

  def loss(prototypes, step):
    return evaluate(config, crops(x["embeddings"]), {"prototypes": {"kernel": prototypes}}, step=step)[0]

  gradient = compiled(jax.grad(loss))
  gradients = [gradient(jnp.asarray(expected["prototypes"]), step) for step in (4, 5)]
  assert not np.any(gradients[0]) and np.any(gradients[1])
  moved = term.after_step({"prototypes": {"kernel": 3 * jnp.asarray(expected["prototypes"])}})
  np.testing.assert_allclose(moved["prototypes"]["kernel"], expected["prototypes"], atol=1e-6)


def test_sinkhorn_shares_alike():
  codes = sinkhorn(jnp.asarray(np.random.default_rng(0).normal(size=(12, 4))), jnp.arange(12) < 10, 1.0, 100)
  np.testing.assert_allclose(jnp.sum(codes, 1), np.arange(12) < 10, atol=1e-12)
  np.testing.assert_allclose(jnp.sum(codes, 0), 2.5, atol=1e-6)


# ---- DINO ---------------------------------------------------------------------------------------


def dino(**options):
  return dict(module=dict(name="dino", **options), embeddings=(*VIEWS, *TEACHERS))


def test_dino_with_small_crops():
  x, expected = case("dino_multicrop")
  term = dino(temperature=float(x["student_temp"]), teacher_temperature=float(x["teacher_temp"]))
  teachers = dict(zip(TEACHERS, x["teacher"].reshape(2, -1, x["teacher"].shape[-1])))

  def loss(student):
    found, _, new = evaluate(term, crops(student) | teachers, state={"centre": x["center"].reshape(-1)})
    return found, new

  (value, new), gradient = compiled(jax.value_and_grad(loss, has_aux=True))(x["student"])
  np.testing.assert_allclose(value, expected["loss"], rtol=1e-6)
  np.testing.assert_allclose(gradient, expected["grad_student"], atol=1e-6)
  np.testing.assert_allclose(new["centre"], expected["center_after"].reshape(-1), atol=1e-6)


# ---- On devices, and with examples that are absent ------------------------------------------------


N, D = 16, 6
MODULES = {
  "swav": dict(module=dict(name="swav", prototypes=5, queue=32, temperature=0.2), embeddings=VIEWS),
  "dino": dino(),
}


def random(seed, n=N):
  draw = np.random.default_rng(seed)
  return {name: jnp.asarray(draw.normal(size=(n, D))) for name in (*VIEWS, *TEACHERS)}


def shapes():
  return {name: Encoded(jnp.zeros((2, D))) for name in (*VIEWS, *TEACHERS)}


def run(name, devices, valid, steps=3):
  """Losses and gradients of some steps, of which each remembers the one before; and the last state."""
  terms = objective.parse_terms({name: MODULES[name]})
  parameters = objective.init_parameters(terms, jax.random.key(0), shapes())
  states = objective.init_states(terms, jax.random.key(0), shapes())
  mesh = make_mesh(devices)

  def loss(embeddings, parameters, states, step):
    info = {"valid": valid}
    found, metrics, _, new = objective.evaluate_and_remember(
      terms, embeddings, info, parameters, {}, {}, mesh=mesh, states=states, step=step
    )
    return found, (metrics, new)

  function, found = compiled(jax.value_and_grad(loss, (0, 1), has_aux=True)), []
  for step in range(steps):
    embeddings = random(step, len(valid))
    if devices > 1:
      place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
      embeddings = jax.device_put(embeddings, place)
    (value, (metrics, states)), gradients = function(embeddings, parameters, states, step)
    found.append((value, metrics, gradients))
  return found, states


@pytest.mark.parametrize("name", MODULES)
def test_eight_devices_do_what_one_does(name):
  valid = np.arange(N) != 3
  wanted = run(name, 1, valid)
  assert_close(run(name, 8, valid), wanted, 1e-9)
  assert all(np.any(leaf) for leaf in jax.tree.leaves(wanted[1]))


@pytest.mark.parametrize("name", MODULES)
def test_who_is_absent_has_no_part(name):
  """As if the batch were without it, and what stands in its place, NaN included, reaches no one."""
  terms = objective.parse_terms({name: MODULES[name] | dict(module=dict(MODULES[name]["module"]))})
  parameters = objective.init_parameters(terms, jax.random.key(0), shapes())
  states = objective.init_states(terms, jax.random.key(0), shapes())
  whole = random(0)
  there = {key: x[np.arange(N) != 3] for key, x in whole.items()}
  absent = {key: x.at[3].set(jnp.nan) for key, x in whole.items()}

  def loss(embeddings, info):
    return objective.evaluate_and_remember(terms, embeddings, info, parameters, {}, {}, states=states)

  run, info = compiled(loss), {"valid": np.arange(N) != 3}
  (value, _, _, new), (wanted, _, _, without) = run(absent, info), run(there, {})
  np.testing.assert_allclose(value, wanted, rtol=1e-12)
  assert_close(new, without, 1e-12)
  gradients = compiled(jax.grad(lambda x, info: loss(x, info)[0]))(whole, info)
  assert all(not np.any(x[3]) for x in gradients.values())


# ---- What is refused ----------------------------------------------------------------------------


RUN = dict(views={"image": 2, "image_small": 2}, heads={"ssl": "image", "words": "image"}, batch_size=8,
           token_heads=("words",), examples=20)  # fmt: skip


@pytest.mark.parametrize(
  ("term", "message"),
  [
    (dict(module="swaw", embeddings=VIEWS), r"t\.module: .*did you mean 'swav'"),
    (dict(module=dict(name="swav", prototype=3), embeddings=VIEWS), r"t\.module: no option 'prototype'; .*prototypes"),
    (dict(module=dict(name="swav", iterations=0), embeddings=VIEWS), r"t\.module\.iterations: 0 is not"),
    (dict(module="swav", embedding=VIEWS), r"t: no option 'embedding'; did you mean 'embeddings'"),
    (dict(module="swav", embeddings=VIEWS[:1]), r"t\.embeddings: 2 views give codes .* there are 1"),
    (dict(module=dict(name="swav", queue=12), embeddings=VIEWS), r"t\.module\.queue: 12 is not a multiple"),
    (dict(module=dict(name="swav", queue=32), embeddings=VIEWS), r"module\.queue: 32 .* epoch of 20, .*; use 16 or"),
    (dict(module="swav", embeddings=("image[0]/words", VIEWS[1])), r"takes one vector an example, which head 'words'"),
    (dict(module="dino", embeddings=VIEWS), r"t\.embeddings: .* no student of another view than a teacher's"),
    (dict(module="dino", regularizer="alignment", embeddings=VIEWS), r"two kinds of term"),
    (dict(regularizer="alignment", embeddings=VIEWS[:2], stop_gradient=VIEWS[:2]), r"stop_gradient: nothing would be"),
    (dict(regularizer="alignment", embeddings=VIEWS[:2], stop_gradient=VIEWS[2]), r"t\.stop_gradient: no such choice"),
  ],
)
def test_what_is_refused(term, message):
  with pytest.raises(UserError, match=message) as error:
    objective.check_terms(objective.parse_terms({"t": term}), **RUN)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["vicreg", "barlow_twins"])
def test_statistics_need_a_batch(name):
  term = dict(regularizer=name, embeddings=VIEWS[:2])
  with pytest.raises(UserError, match=r"t\.regularizer: a batch of 1 is too small"):
    objective.check_terms(objective.parse_terms({"t": term}), **(RUN | {"batch_size": 1}))
