"""Every criterion x target x columns, on every number of devices, is the dense loss exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import closest, compiled, make_mesh

from mmcontrast.objectives import terms as objective

N, D, QUEUE = 18, 8, 20  # Neither is a multiple of the devices or of the tiles.
QUERY, KEY = "image[0]/joint", "text[0]/joint"
VIEWS = ["image[0]/joint", "image[1]/joint"]
LEARNED = dict(init=0.2, learned=True)

CRITERIA = {
  "softmax": {},
  "inside": dict(criterion=dict(name="softmax", positives="inside")),
  "smoothing": dict(criterion=dict(name="softmax", smoothing=0.1)),
  "decoupled": dict(criterion="decoupled"),
  "sigmoid": dict(criterion="sigmoid", bias=dict(init=-2.0)),
  "hinge": dict(criterion=dict(name="hinge", margin=0.5)),
  "hardest": dict(criterion=dict(name="hinge", margin=0.5, reduce="hardest")),
}
IDENTITY, IDS = "identity", "same_id"
TAGS = dict(name="shared_tags", overlap="jaccard", threshold=0.3)
SOFT = dict(name="soft_similarity", of="image[0]/frozen")
TEACHER = dict(name="teacher", query="image[0]/frozen", key="text[0]/frozen", temperature=0.3)
DISTILLED = dict(name="teacher", query=f"{QUERY}@momentum", share=0.4)


def columns(negatives):
  return dict(negatives=negatives, key=f"{KEY}@momentum", direction="rows")


IN_BATCH, IN_QUEUE, IN_BOTH = {}, columns(f"queue:{QUEUE}"), columns(f"batch+queue:{QUEUE}")
CASES = {
  "identity": dict(target=IDENTITY, **IN_BATCH),
  "ids": dict(target=IDS, **IN_BATCH),
  "tags": dict(target=TAGS, **IN_BATCH),
  "soft": dict(target=SOFT, **IN_BATCH),
  "teacher": dict(target=TEACHER, **IN_BATCH),
  "identity_queue": dict(target=IDENTITY, **IN_QUEUE),
  "tags_queue": dict(target=TAGS, **IN_QUEUE),
  "identity_both": dict(target=IDENTITY, **IN_BOTH),
  "tags_both": dict(target=TAGS, **IN_BOTH),
  "distilled": dict(target=DISTILLED, **IN_BOTH),
}
# Every case for the softmax; for the others each kind of target and of columns, since a criterion
# sees a tile and its weights, not where they come from.
SOME = {criterion: ("tags_both", "teacher") for criterion in CRITERIA}
SOME |= {
  criterion: ("identity", "identity_queue", "tags_both", "teacher")
  for criterion in ("sigmoid", "hinge", "hardest")
}
SOME["softmax"] = tuple(CASES)
MIXED = {
  "softmax": dict(target=IDENTITY),
  "sigmoid_tags_both": dict(CRITERIA["sigmoid"], target=TAGS, **IN_BOTH),
  "hardest": dict(CRITERIA["hardest"], target=IDENTITY),
}
LISTS = {
  "captions": dict(key=[KEY, "text[1]/joint"]),
  "captions_ids": dict(CRITERIA["sigmoid"], key=[KEY, "text[1]/joint"], target=IDS),
  "views": dict(query=VIEWS, key=VIEWS, direction="columns"),
  "views_labels": dict(
    query=VIEWS, key=VIEWS, direction="rows", target=dict(name="same_label", label="kind")
  ),
}


def make_terms(cases):
  common = dict(query=QUERY, key=KEY, direction="both", temperature=LEARNED)
  return objective.parse_terms({name: common | case for name, case in cases.items()})


def make_inputs(terms, dtype):
  """Embeddings of every name, queues, what is known of the examples (two of them padding)."""
  rng = np.random.default_rng(0)

  def facts(n):
    return {
      "id": rng.integers(0, 6, n).astype(np.int32),
      "tags": rng.integers(0, 2, (n, 5), np.uint8),
      "labels": {"kind": rng.integers(0, 4, n).astype(np.int32)},
    }

  names = objective.required_embeddings(terms)
  embeddings = {name: jnp.asarray(rng.normal(size=(N, D)), dtype) for name in names}
  keys = jnp.asarray(rng.normal(size=(QUEUE, D)), dtype)
  keys = keys / jnp.linalg.norm(keys, axis=1, keepdims=True)
  queues = {f"{KEY}@momentum": {"keys": keys, "valid": np.arange(QUEUE) != 5, **facts(QUEUE)}}
  info = {**facts(N), "valid": (np.arange(N) != 3) & (np.arange(N) != 17)}
  temperatures = jax.tree.map(lambda x: jnp.asarray(x, dtype), objective.init_temperatures(terms))
  return (embeddings, temperatures, queues), info


def value_and_gradients(cases, dtype, impl, devices):
  """(losses and metrics of each term, gradients of embeddings, temperatures, bias and queues)."""
  terms, mesh = make_terms(cases), make_mesh(devices)
  state, info = make_inputs(terms, dtype)
  weights = {name: 1.0 + 0.3 * k for k, name in enumerate(terms)}

  def loss(state, info):
    embeddings, temperatures, queues = state
    return objective.evaluate(
      terms, embeddings, info, temperatures, queues, weights, mesh=mesh, impl=impl, tile=2
    )

  function = jax.value_and_grad(loss, has_aux=True, allow_int=True)
  (_, metrics), gradients = compiled(function)(state, info)
  return metrics, jax.tree.map(
    lambda g: g if g.dtype != jax.dtypes.float0 else np.zeros(g.shape), gradients
  )


def same_as_dense(cases, dtype, impl, devices, tolerance):
  found = value_and_gradients(cases, dtype, impl, devices)
  closest(found, value_and_gradients(cases, dtype, "dense", 1), tolerance)
  return found


@pytest.fixture(scope="module")
def mixed():
  """The dense results of MIXED, in both precisions."""
  with jax.enable_x64(True):
    double = value_and_gradients(MIXED, jnp.float64, "dense", 1)
  return {jnp.float64: double, jnp.float32: value_and_gradients(MIXED, jnp.float32, "dense", 1)}


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_combination_on_eight_devices(criterion):
  cases = {name: CRITERIA[criterion] | CASES[name] for name in SOME[criterion]}
  _, (embeddings, _, queues) = same_as_dense(cases, jnp.float64, "ring", 8, 1e-10)
  for name in embeddings:
    stopped = name.endswith("@momentum") or "frozen" in name
    assert np.any(embeddings[name]) != stopped, name
  assert not any(np.any(g) for g in jax.tree.leaves(queues))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
  ("impl", "devices"),
  [("dense", 8), ("ring", 1), ("ring", 2), ("ring", 4), ("ring", 8), ("rows", 2), ("rows", 8)],
)
def test_every_number_of_devices(mixed, impl, devices):
  closest(value_and_gradients(MIXED, jnp.float64, impl, devices), mixed[jnp.float64], 1e-10)


@pytest.mark.usefixtures("float64")
def test_lists_of_views():
  same_as_dense(LISTS, jnp.float64, "ring", 4, 1e-10)


def test_single_precision(mixed):
  closest(value_and_gradients(MIXED, jnp.float32, "ring", 8), mixed[jnp.float32], 1e-5)
