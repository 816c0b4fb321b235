"""What holds of every term that takes the batch as a whole: devices, tiles, order, and who takes part."""

import jax
import jax.numpy as jnp
import numpy as np
from meshes import assert_close, compiled, make_mesh

from mmcontrast.objectives import terms as objective


def module(name, embeddings, **options):
  return dict(module=dict(name=name, **options), embeddings=embeddings)


def function_of(term, parameters=None, **options):
  """(embeddings, info) -> ((loss, metrics), gradients) of one term "t", compiled; info["rows"]: of its table."""
  terms = objective.parse_terms({"t": term})

  def loss(embeddings, info):
    own = {"remembered": {"t": info["rows"]}} if "rows" in info else {}
    return objective.evaluate_and_remember(terms, embeddings, info, parameters or {}, {}, {}, **own, **options)[:2]

  function = compiled(jax.value_and_grad(loss, has_aux=True, allow_int=True))
  return lambda embeddings, info: jax.tree.map(_number, function(embeddings, info))


def _number(x):
  return np.zeros(len(x)) if x.dtype == jax.dtypes.float0 else np.asarray(x)  # a mask has no gradient


def gradients_of(term, embeddings, info):
  return function_of(term)(embeddings, info)


def check_rules(term, embeddings, info, tolerance=1e-9, parameters=None):
  """Four devices and small tiles are one and the whole; neither the order of examples nor one that takes no part,
  the last of `embeddings`, changes anything."""
  count = len(jax.tree.leaves(embeddings)[0]) - 1
  info = info | {"valid": jnp.arange(count + 1) < count}
  fewer = jax.tree.map(lambda x: x[:-1], (embeddings, info))
  plain = function_of(term, parameters)
  (loss, _), gradients = plain(*fewer)
  order = np.random.default_rng(0).permutation(count)
  (found, _), others = plain(*jax.tree.map(lambda x: x[order], fewer))
  assert_close((found, others), (loss, jax.tree.map(lambda x: x[order], gradients)), tolerance)
  broken = jax.tree.map(lambda x: x.at[-1].set(1e3) if x.dtype == jnp.float64 else x, embeddings)
  (found, _), others = function_of(term, parameters, mesh=make_mesh(4), impl="ring", tile=2)(broken, info)
  assert_close((found, jax.tree.map(lambda x: x[:-1], others)), (loss, gradients), tolerance)
  assert all(not x[-1].any() for x in jax.tree.leaves(others))
  return plain


def random(*shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape))
