"""Meshes, quick compilation, comparison and a look into traced programs for the tests of objectives."""

import jax
import numpy as np


def make_mesh(devices: int):
  """`devices` of the simulated ones along "data"; None for one."""
  if devices == 1:
    return None
  return jax.make_mesh((devices,), ("data",), devices=jax.devices()[:devices], axis_types=(jax.sharding.AxisType.Auto,))


def compiled(function):
  """`jax.jit` with little effort spent on optimizing: tests compile more than they compute."""
  return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def assert_close(found, wanted, tolerance: float, floor: float = 1e-3) -> None:
  """Asserts that two trees agree to `tolerance` of each array's largest entry, or of `floor`."""

  def check(path, a, b):
    a, b = np.asarray(a), np.asarray(b)
    error = np.max(np.abs(a - b), initial=0.0)
    scale = max(np.max(np.abs(b), initial=0.0), floor)
    assert error <= tolerance * scale, f"{jax.tree_util.keystr(path)}: {error / scale:.3g}"

  jax.tree_util.tree_map_with_path(check, found, wanted)


def equations(jaxpr):
  """All equations of a jaxpr and of those inside it."""
  for equation in jaxpr.eqns:
    yield equation
    for value in jax.tree.leaves(list(equation.params.values())):
      inner = getattr(value, "jaxpr", value)  # of a closed one, or it is one itself
      if hasattr(inner, "eqns"):
        yield from equations(inner)
