"""Update rules against a double loop over gradients, and in a train step whose terms remember: devices, resume."""

import contextlib
import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny_batch, tiny_config, tiny_spec

from mmcontrast.errors import UserError
from mmcontrast.optimization.update_rules import ProjectConflicts, Sum, agreeing, make_update_rule, projected
from mmcontrast.parallel import sharding
from mmcontrast.parameter_paths import path_name
from mmcontrast.runs.checkpoint import Checkpoints
from mmcontrast.training.program import make_method
from mmcontrast.training.step import init_state, train_step


def double_loop(gradients: np.ndarray) -> np.ndarray:
  """[T, P] -> [P]: the rule as its docstring says it."""
  total = np.zeros(gradients.shape[1])
  for i, gradient in enumerate(gradients):
    own = gradient.copy()
    for j, other in enumerate(gradients):
      if i != j and own @ other < 0:
        own = own - (own @ other) / (other @ other) * other
    total += own
  return total


@pytest.mark.parametrize("count", [2, 3, 5])
def test_projection_is_the_double_loop(count):
  with jax.enable_x64(True):
    for seed in range(20):
      gradients = np.random.default_rng(seed).normal(size=(count, 4))
      weights = projected(jnp.asarray(gradients @ gradients.T))
      np.testing.assert_allclose(weights @ gradients, double_loop(gradients), rtol=1e-9, atol=1e-12)


def test_special_gradients():
  opposite = np.array([[1.0, 0.0], [-2.0, 0.0]])
  np.testing.assert_allclose(projected(jnp.asarray(opposite @ opposite.T)) @ opposite, 0.0, atol=1e-6)
  friends = np.array([[1.0, 0.5], [1.0, -0.5], [0.0, 0.0]])  # no conflict, and a term of weight zero
  np.testing.assert_array_equal(projected(jnp.asarray(friends @ friends.T)), 1.0)
  # For two, the order does not matter: the symmetric form of CM-GradHarm.
  a, b = np.array([1.0, 2.0]), np.array([-1.5, 0.1])
  wanted = (a - a @ b / (b @ b) * b) + (b - a @ b / (a @ a) * a)
  for pair in (np.stack([a, b]), np.stack([b, a])):
    np.testing.assert_allclose(projected(jnp.asarray(pair @ pair.T)) @ pair, wanted, rtol=1e-6)


def test_examples_whose_terms_disagree():
  """Compared where both have a gradient; one without any is not counted; the others count for those left out."""
  ours = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 2.0]])
  theirs = np.array([[1.0, 1.0], [-1.0, 1.0], [-1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])  # cosines 0.7, -0.7, -1
  alone = np.full((5, 3), [[7.0], [7.0], [7.0], [0.0], [7.0]])  # of the second term alone
  terms = [list(map(jnp.asarray, (ours, np.zeros((5, 3))))), list(map(jnp.asarray, (theirs, alone)))]
  for least, wanted in ((-1.01, [1, 1, 1, 1, 1]), (-0.8, [1, 1, 0, 1, 1]), (0.0, [1, 0, 0, 1, 1])):
    weight, dropped = agreeing(terms, least)
    np.testing.assert_allclose(weight, np.array(wanted) * 4 / (sum(wanted) - 1), rtol=1e-6)
    np.testing.assert_allclose(dropped, (5 - sum(wanted)) / 4, atol=1e-6)


def test_a_curriculum_leaves_examples_out():
  """The gradients of a batch from which they are taken, scaled; nothing where the bound is -1."""
  with jax.enable_x64(True):
    rng = np.random.default_rng(1)
    params = dict(towers=dict(first=rng.normal(size=(5, 4)), second=rng.normal(size=(4, 3))),
                  heads=dict(a=rng.normal(size=(3, 2)), b=rng.normal(size=(3, 2))),
                  terms={"near": {"log_scale": jnp.float64(0.3)}})  # fmt: skip
    arguments = (small_embed, small_loss, params, ("far", "flat"))
    plain = ProjectConflicts()(*arguments)
    made = [make_update_rule(dict(name="project_conflicts", drop_below=least), params, TERMS, steps=10)
            for least in (-1.0, dict(name="linear", init=-1.0, end=0.0))]  # fmt: skip
    same, start, end = made[0](*arguments, 3), made[1](*arguments, 0), made[1](*arguments, 10)
    for found in (same, start):
      jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), found[:2], plain[:2])
    dropped = float(end[2]["update_rule/dropped"])
    assert (
      0 < dropped < 1 and float(end[2]["update_rule/drop_below"]) == 0 and float(same[2]["update_rule/dropped"]) == 0
    )
    (_, _, embeddings, _), gradients, _ = end
    each = [jax.grad(lambda x, name=name: small_loss(x, params, (name,))[0])(embeddings) for name in ("far", "flat")]
    keep = jnp.sum(each[0]["a"] * each[1]["a"], 1) >= 0
    np.testing.assert_allclose(dropped, 1 - np.mean(keep), rtol=1e-6)

    def pulled(name, params):
      rest, _ = small_embed(params)
      weights = jax.lax.stop_gradient(keep / jnp.mean(keep))[:, None]
      left = {key: x * weights + jax.lax.stop_gradient(x - x * weights) for key, x in rest.items()}
      return small_loss(left, params, (name,))[0]

    wanted = [jax.grad(pulled, 1)(name, params)["heads"] for name in ("far", "flat")]
    for head in ("a", "b"):
      np.testing.assert_allclose(gradients["heads"][head], sum(g[head] for g in wanted), rtol=1e-6, atol=1e-9)


# ---- Applied to a small model -------------------------------------------------------------------


def small_embed(params):
  hidden = jnp.tanh(params["towers"]["first"] @ params["towers"]["second"])
  return {name: hidden @ head for name, head in params["heads"].items()}, {"mean": jnp.mean(hidden)}


def small_loss(embeddings, own, names):
  a, b = embeddings["a"], embeddings["b"]
  values = {
    "near": jnp.sum((a - b) ** 2) * jnp.exp(own["terms"]["near"]["log_scale"]),
    "far": -0.8 * jnp.sum((a - b) ** 2) + 0.1 * jnp.sum(b),
    "flat": jnp.sum(jnp.sin(a)),
  }
  return sum(values[name] for name in names), ({f"{name}/loss": values[name] for name in names}, {})


TERMS = ("near", "far", "flat")


@pytest.mark.parametrize("on", ["towers/.*", ("towers/first", "heads/a")])
def test_a_small_model_against_the_double_loop(on):
  """Projected where `on` matches, as one vector; summed elsewhere, terms' own numbers included."""
  with jax.enable_x64(True):
    rng = np.random.default_rng(1)
    shapes = dict(towers=dict(first=(5, 4), second=(4, 3)), heads=dict(a=(3, 2), b=(3, 2)))
    params = jax.tree.map(lambda shape: rng.normal(size=shape), shapes, is_leaf=lambda x: isinstance(x, tuple))
    params["terms"] = {"near": {"log_scale": jnp.float64(0.3)}}

    def one(params, name):
      return small_loss(small_embed(params)[0], {"terms": params["terms"]}, (name,))[0]

    each = [dict(leaves(jax.grad(one)(params, name))) for name in TERMS]
    (value, (metrics, _), embeddings, statistics), found, more = ProjectConflicts(on)(
      small_embed, small_loss, params, TERMS
    )
  wanted = {name: sum(g[name] for g in each) for name in each[0]}
  shared = [name for name in wanted if any(re.fullmatch(p, name) for p in ((on,) if isinstance(on, str) else on))]
  combined = double_loop(np.stack([np.concatenate([g[name].ravel() for name in shared]) for g in each]))
  parts = np.split(combined, np.cumsum([wanted[name].size for name in shared])[:-1])
  projected_ones = {name: part.reshape(wanted[name].shape) for name, part in zip(shared, parts)}
  assert all(np.abs(part - wanted[name]).max() > 0.01 for name, part in projected_ones.items())  # a conflict
  for name, leaf in leaves(found):
    np.testing.assert_allclose(leaf, (wanted | projected_ones)[name], rtol=1e-9, atol=1e-12, err_msg=name)
  np.testing.assert_allclose(float(value), sum(map(float, metrics.values())), rtol=1e-12)
  assert set(metrics) == {f"{name}/loss" for name in TERMS} and 0 < float(more["update_rule/conflicts"]) < 1
  assert set(embeddings) == {"a", "b"} and set(statistics) == {"mean"}


def leaves(tree):
  return [(path_name(path), np.asarray(leaf)) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]]


# ---- In a train step, with a table --------------------------------------------------------------


def text_config(rule: str, microbatches: int = 1) -> dict:
  """One bag of words, and terms that pull it apart; two share a temperature, and one remembers."""
  pair = dict(query="text[0]/text_joint", key="text[1]/text_ssl", direction="both")
  config = tiny_config(
    objective=dict(
      pull=dict(pair, temperature=dict(init=0.2), criterion=dict(name="compositional", gamma=0.5)),
      push=dict(pair, temperature="pull", weight=-0.7),
      views=dict(query="text[0]/text_joint", key="text[1]/text_joint", weight=0.5,
                 temperature=dict(schedule=dict(name="linear", init=0.4, end=0.2, steps=2)))),
    optimizer=dict(name="sgd", learning_rate=1.0), update_rule=dict(name=rule),
    batch=dict(size=16, microbatches=microbatches))  # fmt: skip
  config["data"]["views"], config["augment"] = dict(text=2), {}
  config["towers"] = dict(text=dict(name="text_transformer", width=8, depth=0, heads=2, pool="mean"))
  config["heads"] = {name: dict(tower="text", name="linear", dim=4) for name in ("text_joint", "text_ssl")}
  return config


def without_images(batch):
  return {name: leaf for name, leaf in batch.items() if name != "image"}


@functools.cache
def program(rule: str, devices: int = 1, microbatches: int = 1):
  """(first state, step), the table cut over the devices."""
  spec = dataclasses.replace(tiny_spec(), batch=without_images(tiny_spec().batch))
  method = make_method(text_config(rule, microbatches), spec)
  mesh = sharding.make_mesh({"data": -1}, jax.devices()[:devices])
  first = jax.jit(functools.partial(init_state, method))(without_images(tiny_batch()))
  placed = sharding.shard_state([("tables/.*", ("data",)), (".*", ())], mesh, first)
  step = jax.jit(functools.partial(train_step, method, mesh), out_shardings=(placed, sharding.replicated(mesh)))
  return jax.device_put(first, placed), lambda state, number: step(
    state, sharding.put_batch(without_images(tiny_batch(seed=number)), mesh)
  )


@functools.cache
def one_step(rule: str, devices: int = 1, microbatches: int = 1):
  """(state before, after, metrics) of a step of gradient descent at rate 1."""
  state, step = program(rule, devices, microbatches)
  return jax.device_get((state, *step(state, 0)))


def gradient(before, after) -> dict[str, np.ndarray]:
  return dict(leaves(jax.tree.map(lambda a, b: np.asarray(a, np.float64) - b, before.params, after.params)))


def test_a_step_projects_towers_and_sums_the_rest():
  before, after, metrics = one_step("project_conflicts")
  _, summed, sum_metrics = one_step("sum")
  found, plain = gradient(before, after), gradient(before, summed)
  for name in plain:
    error = np.abs(found[name] - plain[name]).max() / np.abs(plain[name]).max()
    assert (error > 0.01) == name.startswith("towers/") and (error > 0.01 or error < 1e-5), name
  np.testing.assert_allclose(metrics["loss"], sum_metrics["loss"], rtol=1e-6)
  assert set(metrics) - set(sum_metrics) == {"update_rule/conflicts"} and metrics["update_rule/conflicts"] > 0


@pytest.mark.parametrize(("rule", "devices", "microbatches"), [("sum", 8, 1), ("project_conflicts", 4, 2)])
def test_devices_and_microbatches(rule, devices, microbatches):
  """Metrics, gradients and the table, which is cut, are those of one device and one chunk."""
  before, one, metrics = one_step(rule)
  _, many, many_metrics = one_step(rule, devices, microbatches)
  for name, value in metrics.items():
    np.testing.assert_allclose(many_metrics[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
  found = gradient(before, many)
  for name, leaf in gradient(before, one).items():
    assert np.abs(found[name] - leaf).max() <= 1e-4 * np.abs(leaf).max(), name
  for side, column in one.tables["pull"].items():
    np.testing.assert_allclose(many.tables["pull"][side], column, rtol=1e-4, atol=1e-5)
    assert np.isfinite(column[:16]).all() and np.isneginf(column[16:]).all()


def test_a_checkpoint_keeps_the_table_and_the_run_bit_for_bit(tmp_path):
  state, step = program("sum")
  config = text_config("sum")
  for number in range(2):
    state, _ = step(state, number)
  with contextlib.closing(Checkpoints(tmp_path, config["checkpoint"])) as checkpoints:
    checkpoints.save(state, config, {"loss": 1.0})
  with contextlib.closing(Checkpoints(tmp_path, config["checkpoint"])) as checkpoints:
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)
    restored = checkpoints.restore(like)
  assert np.isfinite(restored.tables["pull"]["query"][:16]).all()
  for a, b in zip(leaves((restored, step(restored, 2))), leaves((state, step(state, 2))), strict=True):
    assert np.array_equal(a[1], b[1]), a[0]


def test_scheduled_numbers_are_those_of_the_step():
  state, step = program("sum")
  found = []
  for number in range(3):
    state, metrics = step(state, number)
    found.append(float(metrics["views/temperature"]))
  np.testing.assert_allclose(found, [0.4, 0.3, 0.2], rtol=1e-6)
  assert metrics["pull/gamma"] == 0.5


def test_the_sum_is_one_backward_pass_of_the_weighted_losses():
  """The step's program is that of differentiating the sum by hand."""
  params = {"towers": jnp.array([1.0, -2.0, 0.5]), "terms": {"t": jnp.float32(0.3)}}

  def embed(params):
    return {"a": jnp.sin(params["towers"])}, {"statistics": jnp.mean(params["towers"])}

  def loss(embeddings, own, names):
    values = {"t": jnp.sum(embeddings["a"] ** 2) * own["terms"]["t"], "u": jnp.sum(embeddings["a"])}
    return sum(values[name] for name in names), ({name: values[name] for name in names}, {})

  def by_hand(params):
    def total(params):
      embeddings, statistics = embed(params)
      value, found = loss(embeddings, {"terms": params["terms"]}, ("t", "u"))
      return value, (found, embeddings, statistics)

    (value, found), gradients = jax.value_and_grad(total, has_aux=True)(params)
    return (value, *found), gradients, {}

  ours = jax.make_jaxpr(lambda params: Sum()(embed, loss, params, ("t", "u")))(params)
  assert str(ours) == str(jax.make_jaxpr(by_hand)(params))


PARAMS = {"heads": {"image": 0.0}, "terms": {"t": 0.0}, "towers": {"image": 0.0, "text": 0.0}}


@pytest.mark.parametrize(
  ("rule", "says"),
  [
    (dict(name="project"), r"config\.update_rule\.name: no such choice 'project'; did you mean 'project_conflicts'"),
    (dict(name="project_conflicts", onn="x"), r"config\.update_rule: no option 'onn'; did you mean 'on'"),
    (dict(name="project_conflicts", on="tower/.*"), r"config\.update_rule\.on: 'tower/\.\*' matches no parameter"),
    (dict(name="project_conflicts", on="terms/.*"), r"config\.update_rule\.on: 'terms/\.\*' matches no parameter"),
    (dict(name="project_conflicts", on="("), r"config\.update_rule\.on: '\(' is not a regex"),
    (dict(name="sum", on="towers/.*"), r"config\.update_rule: no option 'on'"),
  ],
)
def test_mistakes(rule, says):
  with pytest.raises(UserError, match=says) as error:
    make_update_rule(rule, PARAMS, ("t", "u"))
  assert "\n" not in str(error.value)


def test_one_term_cannot_conflict():
  with pytest.raises(UserError, match=r"config\.update_rule: \['t'\] cannot conflict; give config\.objective two"):
    make_update_rule("project_conflicts", PARAMS, ("t",))
