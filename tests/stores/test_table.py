"""Tables keyed by example."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh

from mmcontrast.parallel import sharding
from mmcontrast.runs.train_state import TrainState
from mmcontrast.stores import table as table_store


def made():
  table = table_store.init(1903, {"query": -jnp.inf, "key": 0.0})
  return table_store.write(table, np.arange(1903), {"query": jnp.arange(1903.0), "key": -jnp.arange(1903.0)})


def test_a_new_table_has_a_row_for_every_example():
  table = table_store.init(1903, {"query": -jnp.inf, "key": 0.0})
  assert {name: column.shape for name, column in table.items()} == {"query": (2048,), "key": (2048,)}
  assert (table["query"] == -jnp.inf).all() and not table["key"].any()


def test_what_is_written_is_read_and_nothing_else_moves():
  index, rows = np.array([7, 1902, 0], np.int32), {"query": jnp.array([1.5, 2.5, 3.5]), "key": jnp.ones(3)}
  table = jax.jit(table_store.write)(made(), index, rows)
  np.testing.assert_array_equal(table_store.read(table, index)["query"], [1.5, 2.5, 3.5])
  others = np.setdiff1d(np.arange(2048), index)
  for name, column in made().items():
    np.testing.assert_array_equal(table[name][others], column[others])


def test_padding_is_not_written_and_of_doubles_the_last_valid_one_is_kept_apart():
  index = np.array([3, 5, 3, 9], np.int32)
  rows = {name: jnp.array([10.0, 20.0, 30.0, 40.0]) for name in ("query", "key")}
  table = table_store.write(made(), index, rows, np.array([True, True, True, False]))
  np.testing.assert_array_equal(table["query"][np.array([3, 5, 9])], [30.0, 20.0, 9.0])


def test_padding_that_repeats_an_example_does_not_hide_it():
  index, valid = np.array([3, 3], np.int32), np.array([True, False])
  table = table_store.write(made(), index, {"query": jnp.array([10.0, 20.0]), "key": jnp.zeros(2)}, valid)
  assert table["query"][3] == 10.0


def test_no_gradient_goes_in_or_out():
  def through(x):
    table = table_store.write(made(), np.arange(4), {"query": x, "key": x})
    return jnp.sum(table_store.read(table, np.arange(8))["query"] ** 2)

  assert not jax.grad(through)(jnp.ones(4)).any()
  assert not jax.grad(lambda table: jnp.sum(table_store.read(table, np.arange(8))["key"]))(made())["key"].any()


def test_tables_are_cut_by_rule():
  tables = jax.eval_shape(lambda: {"image_text": table_store.init(100_001, {"query": 0.0})})
  state = TrainState(None, {}, {}, (), None, {}, tables)
  mesh = AbstractMesh((2, 4, 2), sharding.AXES)
  own = [("tables/image_text/.*", (("data", "fsdp"),))]
  for rules, cut in (("fsdp", ("fsdp",)), ("dp", ()), (own, (("data", "fsdp"),))):
    found = sharding.shard_state(rules, mesh, state)
    assert tuple(found.tables["image_text"]["query"].spec) == cut, rules
