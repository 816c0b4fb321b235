"""Queues and momentum copies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcontrast.errors import UserError
from mmcontrast.stores import momentum as momentum_store
from mmcontrast.stores import queue as queue_store

INFO = {"tags": ((3,), np.uint8), "id": ((), np.int32), "valid": ((), np.bool_), "labels": {"kind": ((), np.int32)}}


def facts(n, value):
  return {
    "tags": np.full((n, 3), value, np.uint8),
    "id": np.full(n, value, np.int32),
    "valid": np.zeros(n, bool),
    "labels": {"kind": np.full(n, value, np.int32)},
    "index": np.arange(n),
  }


def test_a_new_queue_is_random_and_knows_nothing():
  queue = queue_store.init(jax.random.key(0), 8, 4, INFO)
  np.testing.assert_allclose(jnp.linalg.norm(queue["keys"], axis=1), 1.0, rtol=1e-6)
  assert not queue["tags"].any() and (queue["id"] == -1).all() and queue["valid"].all()
  assert (queue["labels"]["kind"] == -1).all() and queue["pointer"] == 0


def test_first_in_first_out_with_what_is_known():
  queue = queue_store.init(jax.random.key(0), 6, 4, INFO)
  push = jax.jit(queue_store.push)
  for value in (1, 2, 3, 4):
    queue = push(queue, jnp.full((2, 4), float(value)), facts(2, value))
  np.testing.assert_array_equal(queue["keys"][:, 0], [4, 4, 2, 2, 3, 3])
  np.testing.assert_array_equal(queue["labels"]["kind"], queue["id"])
  np.testing.assert_array_equal(queue["tags"][:, 0], queue["id"])
  assert queue["pointer"] == 2 and not queue["valid"].any() and "index" not in queue


def test_a_queue_takes_whole_batches():
  queue = queue_store.init(jax.random.key(0), 8, 4, {})
  with pytest.raises(UserError, match="length 8 is not a multiple of the global batch 3; use 9"):
    queue_store.push(queue, jnp.ones((3, 4)), {})


def test_no_gradient_into_stores():
  queue = queue_store.init(jax.random.key(0), 4, 2, {})
  assert not jax.grad(lambda k: jnp.sum(queue_store.push(queue, k, {})["keys"]))(jnp.ones((2, 2))).any()
  assert jax.grad(lambda x: momentum_store.update(jnp.ones(()), x, 0.9))(2.0) == 0.0


def test_moving_average_keeps_the_dtype():
  old = {"a": jnp.ones(2), "b": [jnp.zeros((), jnp.bfloat16)]}
  new = momentum_store.update(old, {"a": jnp.zeros(2), "b": [jnp.ones((), jnp.bfloat16)]}, 0.75)
  np.testing.assert_allclose(new["a"], 0.75)
  assert new["b"][0] == 0.25 and new["b"][0].dtype == jnp.bfloat16
