"""Criterion x target x columns, on every number of devices: the dense loss exactly."""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import assert_close, compiled, make_mesh

from mmcontrast.encoders import Encoded
from mmcontrast.objectives import terms as objective

N, D, QUEUE = 18, 8, 20  # Neither is a multiple of the devices or of the tiles.
DEVICES = (1, 2, 4, 8)
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
  "reverse_kl": dict(criterion=dict(name="reverse_kl", floor=1e-3)),
}
IDENTITY, IDS = "identity", "same_id"
TAGS = dict(name="shared_tags", overlap="jaccard", threshold=0.3)
SOFT = dict(name="soft_similarity", of="image[0]/frozen")
TEACHER = dict(name="teacher", query="image[0]/frozen", key="text[0]/frozen", temperature=0.3)
DISTILLED = dict(name="teacher", query=f"{QUERY}@momentum", share=0.4)


def columns(negatives):
  return dict(negatives=negatives, key=f"{KEY}@momentum", direction="rows")


IN_BATCH, IN_QUEUE, IN_BOTH = {}, columns(f"queue:{QUEUE}"), columns(f"batch+queue:{QUEUE}")
HARD = dict(negative_keys="text[1]/joint", negative_queries=["image[1]/joint", "image[2]/joint"])
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
  "hard": dict(target=IDENTITY, **HARD),
  "tags_hard": dict(target=TAGS, **HARD),
  "prototypes": dict(target=IDENTITY, prototypes=5),
  "class_prototypes": dict(target=dict(name="same_label", label="kind"), prototypes=4),
  "tags_queries": dict(target=TAGS, query=f"{QUERY}@momentum", negatives=f"batch+queue:{QUEUE}", direction="columns"),
}
MIXED = {"softmax": dict(target=IDENTITY), "sigmoid_tags_both": dict(CRITERIA["sigmoid"], target=TAGS, **IN_BOTH)}
LISTS = {
  "captions_ids": dict(CRITERIA["sigmoid"], key=[KEY, "text[1]/joint"], target=IDS),
  "views": dict(query=VIEWS, key=VIEWS, direction="columns"),
  "views_labels": dict(query=VIEWS, key=VIEWS, direction="rows", target=dict(name="same_label", label="kind")),
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
  queue = {"keys": keys, "valid": np.arange(QUEUE) != 5, **facts(QUEUE)}
  info = {**facts(N), "valid": (np.arange(N) != 3) & (np.arange(N) != 17)}
  return (embeddings, queue), info


def value_and_gradients(cases, dtype, impl, devices):
  """({term: its loss and metrics}, {term: gradients of its loss by embeddings, parameters and
  queues}), of one compiled program."""
  terms, mesh = make_terms(cases), make_mesh(devices)
  state, info = make_inputs(make_terms(CASES | LISTS), dtype)
  learned = {
    name: objective.init_parameters({name: term}, jax.random.key(1), {QUERY: Encoded(jnp.zeros((2, D)))})[name]
    for name, term in terms.items()
  }
  learned = jax.tree.map(lambda x: jnp.asarray(x, dtype), learned)

  def loss(state, info, term):
    embeddings, parameters, queues = state
    found, metrics = objective.evaluate(
      {term.name: term}, embeddings, info, {term.name: parameters}, queues, {}, mesh=mesh, impl=impl, tile=2
    )
    return found, {name.split("/")[1]: value for name, value in metrics.items()}

  def every(state, learned, info):
    embeddings, queue = state
    found = {}
    for name, term in terms.items():
      parameters = learned[name]
      own = {e: embeddings[e] for e in term.embeddings}
      queued = {term.queued: queue} if term.queued else {}
      function = jax.value_and_grad(loss, has_aux=True, allow_int=True)
      (_, metrics), gradients = function((own, parameters, queued), info, term)
      found[name] = (
        metrics,
        jax.tree.map(
          lambda g, x: jnp.zeros(x.shape) if g.dtype == jax.dtypes.float0 else g, gradients, (own, parameters, queued)
        ),
      )
    return {name: x[0] for name, x in found.items()}, {name: x[1] for name, x in found.items()}

  return jax.device_get(compiled(every)(state, learned, info))


def assert_same(found, wanted, dtype=jnp.float64):
  """Asserts that (losses and metrics, gradients) are equal, in relative terms."""
  if dtype == jnp.float64:
    assert_close(found, wanted, 1e-10)
    return
  # Sums that cancel: a mean score, of scores up to 1; a temperature's gradient, of logits up to 5.
  assert_close(found[0], wanted[0], 1e-5, floor=1.0)
  for name, (embeddings, parameters, _) in found[1].items():
    assert_close(embeddings, wanted[1][name][0], 1e-5)
    assert_close(parameters, wanted[1][name][1], 1e-5, floor=0.01)


@pytest.fixture(scope="module")
def mixed():
  """The dense results of MIXED in double precision."""
  with jax.enable_x64(True):
    return value_and_gradients(MIXED, jnp.float64, "dense", 1)


@functools.cache
def truth(criterion, case):
  """The dense results of a combination, in double precision."""
  with jax.enable_x64(True):
    return value_and_gradients({case: CRITERIA[criterion] | CASES[case]}, jnp.float64, "dense", 1)


def combinations(which: str):
  """(criterion, case, devices, precision), by how many of them are asked for.

  few: two cases for each criterion, every case at least once, in turns of the devices.
  once: every criterion with every case, on one number of devices: each criterion and each case
    meets all of them.
  all: every criterion with every case on every number of devices, in both precisions.
  """
  for turn, criterion in enumerate(CRITERIA):
    for number, case in enumerate(CASES):
      if which == "all":
        yield from ((criterion, case, d, t) for d in DEVICES for t in (jnp.float64, jnp.float32))
      elif which == "once" or (number - 2 * turn) % len(CASES) < 2:
        yield criterion, case, DEVICES[(number + turn) % len(DEVICES)], jnp.float64


# All of them take fourteen minutes on two cores (-n 2).
WHICH = os.environ.get("MMCONTRAST_COMBINATIONS", "few")


@pytest.mark.parametrize(("criterion", "case", "devices", "dtype"), combinations(WHICH))
def test_combinations(criterion, case, devices, dtype):
  """Value, metrics and gradients of a term, as its own dense ones."""
  whole = truth(criterion, case)
  with jax.enable_x64(dtype == jnp.float64):
    found = value_and_gradients({case: CRITERIA[criterion] | CASES[case]}, dtype, "ring", devices)
  assert_same(found, whole, dtype)
  embeddings, parameters, queues = found[1][case]
  for embedding, gradient in embeddings.items():
    stopped = embedding.endswith("@momentum") or "frozen" in embedding
    assert np.any(gradient) != stopped, embedding
  assert all(np.any(g) for g in parameters.values()) and not any(np.any(g) for g in jax.tree.leaves(queues))


def test_the_few_meet_every_case_and_every_number_of_devices():
  found = list(zip(*combinations("few")))
  assert [set(x) for x in found[:3]] == [set(CRITERIA), set(CASES), set(DEVICES)]
  assert len(list(combinations("once"))) == len(CRITERIA) * len(CASES)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("impl", "devices"), [("dense", 8), ("rows", 2), ("rows", 8)])
def test_other_implementations(mixed, impl, devices):
  assert_same(value_and_gradients(MIXED, jnp.float64, impl, devices), mixed)


@pytest.mark.usefixtures("float64")
def test_lists_of_views():
  found = value_and_gradients(LISTS, jnp.float64, "ring", 4)
  assert_same(found, value_and_gradients(LISTS, jnp.float64, "dense", 1))


def test_single_precision(mixed):
  """Not only as its own dense form: as the truth."""
  assert_same(value_and_gradients(MIXED, jnp.float32, "ring", 8), mixed, jnp.float32)
