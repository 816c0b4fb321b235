"""The engine itself: its rule, its memory, its communication, its worst inputs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import assert_close, compiled, equations, make_mesh

from mmcontrast.errors import UserError
from mmcontrast.objectives.global_matrix import choose_impl, reduce_tiles
from mmcontrast.objectives.reductions import Reduction, merge

BOTH_SUMS = {"rows": Reduction("logits", "row", "logsumexp"), "columns": Reduction("logits", "column", "logsumexp")}


def dots(rows, columns, shared):
  return {"logits": shared * rows @ columns.T}, None


def symmetric(impl, mesh=None, size=512, axes=None):
  """Sum of all log-sum-exps of scaled dot products."""

  def loss(rows, columns, scale):
    stats = reduce_tiles(dots, BOTH_SUMS, rows, columns, scale, impl=impl, mesh=mesh, size=size, axes=axes)
    return jnp.sum(stats["rows"]) + jnp.sum(stats["columns"])

  return jax.value_and_grad(loss, (0, 1, 2))


@pytest.mark.parametrize(
  ("rows", "columns", "dim", "devices", "impl"),
  [
    (256, 256, 128, 1, "dense"),
    (2048, 2048, 512, 1, "dense"),
    (4096, 4096, 512, 1, "ring"),
    (4096, 4096, 512, 8, "dense"),
    (8192, 8192, 512, 8, "rows"),
    (32768, 32768, 512, 8, "ring"),
    (1024, 65536, 256, 8, "ring"),
    (256, 16384, 128, 1, "dense"),
    (8192, 65536, 128, 8, "rows"),
    (8192, 65536, 512, 8, "ring"),
  ],
)
def test_rule_of_auto(rows, columns, dim, devices, impl):
  assert choose_impl(rows, columns, dim, devices) == impl


def test_auto_is_the_rule(monkeypatch):
  seen = []
  monkeypatch.setattr(
    "mmcontrast.objectives.global_matrix.choose_impl", lambda *arguments: seen.append(arguments) or "ring"
  )
  symmetric("auto", make_mesh(2))(jnp.ones((6, 4)), jnp.ones((8, 4)), 1.0)
  assert seen == [(6, 8, 4, 2, 1)]


def test_unknown_implementation_names_the_nearest():
  with pytest.raises(UserError, match="did you mean 'ring'"):
    symmetric("rings")(jnp.ones((2, 2)), jnp.ones((2, 2)), 1.0)


@pytest.mark.parametrize("impl", ["rows", "ring"])
def test_two_mesh_axes_and_a_third_that_is_not_of_the_batch(impl):
  mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 3)
  rng = np.random.default_rng(0)
  inputs = rng.normal(size=(12, 4)), rng.normal(size=(22, 4)), 1.5
  inputs = jax.tree.map(jnp.float32, inputs)
  assert_close(compiled(symmetric(impl, mesh, 2))(*inputs), compiled(symmetric("dense"))(*inputs), 1e-5)


def temporaries(impl, n, dim=64, devices=8, size=64):
  mesh = make_mesh(devices)
  split = jax.sharding.NamedSharding(mesh, jax.P("data"))
  x = jax.ShapeDtypeStruct((n, dim), jnp.float32, sharding=split)
  scale = jax.ShapeDtypeStruct((), jnp.float32)
  lowered = jax.jit(symmetric(impl, mesh, size)).lower(x, x, scale)
  return lowered.compile().memory_analysis().temp_size_in_bytes


def test_memory_of_the_ring_is_linear_in_the_batch():
  small, large = (temporaries("ring", n) for n in (4096, 8192))
  assert large <= 2.2 * small
  assert large < temporaries("dense", 8192) / 8


def test_a_block_is_sent_on_before_the_tiles_that_need_it():
  """In every ring step the permutations read only what the step was given, so they can overlap."""
  traced = jax.make_jaxpr(symmetric("ring", make_mesh(4), 2))(jnp.ones((16, 4)), jnp.ones((16, 4)), 1.0)
  steps = [equation.params["jaxpr"].jaxpr for equation in equations(traced.jaxpr) if equation.primitive.name == "scan"]
  steps = [
    step
    for step in steps
    if any(e.primitive.name == "ppermute" for e in step.eqns) and any(e.primitive.name == "scan" for e in step.eqns)
  ]
  steps = [
    step
    for step in steps
    if not any(
      e.primitive.name == "ppermute"
      for s in step.eqns
      if s.primitive.name == "scan"
      for e in equations(s.params["jaxpr"].jaxpr)
    )
  ]
  assert len(steps) == 2  # One forward, one backward.
  for step in steps:
    given = set(step.invars) | set(step.constvars)
    names = [equation.primitive.name for equation in step.eqns]
    sent = [e for e in step.eqns if e.primitive.name == "ppermute"]
    assert all(set(e.invars) <= given for e in sent)
    assert max(i for i, n in enumerate(names) if n == "ppermute") < names.index("scan")


def test_each_tile_is_multiplied_once_forward_and_three_times_backward():
  """One logit serves both directions: recomputed once, then one product for each gradient."""
  traced = jax.make_jaxpr(symmetric("ring", None, 8))(jnp.ones((8, 4)), jnp.ones((8, 4)), 1.0)
  products = [e for e in equations(traced.jaxpr) if e.primitive.name == "dot_general"]
  assert len(products) == 4


def test_a_sum_over_all_pairs_has_its_gradient_in_the_forward_pass():
  """One product forward and one for each gradient, in one visit of each tile; value and gradient as dense."""
  rng = np.random.default_rng(0)
  inputs = [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((10, 4), (14, 4), ())]
  mask = np.arange(14) != 3

  def loss(impl, rows, columns, scale):
    whole = {"sum": Reduction("logits", "all", "sum")}
    tile = lambda *parts: ({"logits": jax.nn.softplus(dots(*parts)[0]["logits"])}, None)  # noqa: E731
    mesh = make_mesh(1 if impl == "alone" else 2)
    impl = "ring" if impl == "alone" else impl
    return 3.0 * reduce_tiles(tile, whole, rows, columns, scale, column_mask=mask, impl=impl, mesh=mesh, size=2)["sum"]

  found = {
    impl: compiled(jax.value_and_grad(functools.partial(loss, impl), (0, 1, 2)))(*inputs)
    for impl in ("dense", "alone", "rows", "ring")
  }
  for impl in ("alone", "rows", "ring"):
    assert_close(found[impl], found["dense"], 1e-5)
  traced = jax.make_jaxpr(jax.value_and_grad(functools.partial(loss, "alone"), (0, 1)))(*inputs)
  assert sum(e.primitive.name == "dot_general" for e in equations(traced.jaxpr)) == 3


def test_no_product_for_columns_that_want_no_gradient():
  def stopped(rows, columns):
    stats = reduce_tiles(dots, BOTH_SUMS, rows, jax.lax.stop_gradient(columns), 1.0, impl="ring")
    return jnp.sum(stats["rows"])

  traced = jax.make_jaxpr(jax.grad(stopped))(jnp.ones((8, 4)), jnp.ones((8, 4)))
  products = [e for e in equations(traced.jaxpr) if e.primitive.name == "dot_general"]
  assert len(products) == 3


def plain(rows, columns, shared):
  return {"logits": rows["x"][:, None] - columns["x"][None, :]}, None


@pytest.mark.parametrize("impl", ["dense", "ring"])
def test_nothing_to_reduce(impl):
  """All columns masked: -inf, and gradients of zero rather than NaN."""
  sums = {"sum": Reduction("logits", "row", "logsumexp"), "max": Reduction("logits", "row", "max")}

  def loss(x):
    stats = reduce_tiles(plain, sums, {"x": x}, {"x": x}, column_mask=jnp.zeros(4, bool), impl=impl)
    finite = jnp.where(jnp.isfinite(stats["sum"]), stats["sum"], 0.0)
    return jnp.sum(finite), stats

  gradient, stats = jax.grad(loss, has_aux=True)(jnp.arange(4.0))
  assert np.all(np.isneginf(stats["sum"])) and np.all(np.isneginf(stats["max"]))
  np.testing.assert_array_equal(gradient, 0.0)


@pytest.mark.parametrize("impl", ["dense", "ring"])
def test_ties_share_the_gradient_of_a_maximum(impl):
  top = {"max": Reduction("logits", "row", "max")}

  def loss(x):
    return jnp.sum(reduce_tiles(plain, top, {"x": x}, {"x": x}, impl=impl, size=1)["max"])

  # Each row's maximum is at the two smallest columns, which get half of minus four each.
  np.testing.assert_allclose(jax.grad(loss)(jnp.array([0.0, 0.0, 1.0, 2.0])), [-1, -1, 1, 1])


def test_statistics_of_two_halves_merge():
  values = jnp.asarray(np.random.default_rng(0).normal(size=(3, 8)), jnp.float32)
  sums = {kind: Reduction("logits", "row", kind) for kind in ("logsumexp", "sum", "max")}
  whole, left, right = (
    reduce_tiles(lambda r, c, s: ({"logits": r @ c.T}, None), sums, values, jnp.eye(8)[part])
    for part in (slice(0, 8), slice(0, 3), slice(3, 8))
  )
  for kind in sums:
    np.testing.assert_allclose(merge(kind, left[kind], right[kind]), whole[kind], rtol=1e-6)


@pytest.mark.parametrize("impl", ["dense", "ring"])
def test_large_scale_and_identical_rows_stay_finite(impl):
  x = jnp.ones((8, 4)) / 2
  value, gradients = symmetric(impl, None, 2)(x, x, 100.0)
  np.testing.assert_allclose(value, 16 * (100 + np.log(8)), rtol=1e-6)
  assert all(np.all(np.isfinite(g)) for g in gradients)
