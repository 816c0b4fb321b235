"""Examples that lack a modality: in the terms that read it, as if they were not in the batch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from meshes import assert_close, compiled, make_mesh
from tiny import five_terms, tiny_batch, tiny_config, tiny_spec

from mmcontrast.objectives import terms as objective
from mmcontrast.stores import queue as queue_store
from mmcontrast.training.program import make_method
from mmcontrast.training.step import init_state, train_step

IMAGE, TEXT, AUDIO = "image[0]/joint", "text[0]/joint", "audio[0]/joint"
KEY = f"{TEXT}@momentum"
N, D = 8, 5
TERMS = {
  "softmax": dict(query=IMAGE, key=TEXT, direction="both"),
  "sigmoid": dict(query=IMAGE, key=TEXT, criterion="sigmoid", bias=-2.0),
  "smoothed": dict(query=AUDIO, key=TEXT, criterion=dict(name="softmax", smoothing=0.1), target="same_id"),
  "teacher": dict(query=IMAGE, key="image[1]/joint", target=dict(name="teacher", query=AUDIO, temperature=0.5)),
  "views": dict(query=[IMAGE, "image[1]/joint"], key=[IMAGE, "image[1]/joint"]),
  "hard": dict(query=IMAGE, key="image[1]/joint", negative_keys=TEXT),
  "gram": dict(query=IMAGE, key=[TEXT, AUDIO], score="gram_volume", direction="both"),
  "permuted": dict(query=IMAGE, key=[TEXT, AUDIO], score="multilinear", negatives="permuted"),
  "combined": dict(query=TEXT, key=[IMAGE, AUDIO], score="multilinear", negatives="combined"),
}
READS = {
  "softmax": "it", "sigmoid": "it", "smoothed": "at", "teacher": "ia", "views": "i", "hard": "i",
  "gram": "ita", "permuted": "ita", "combined": "ita",
}  # fmt: skip
FULL = {"i": "image", "t": "text", "a": "audio"}


def evaluate(config, embeddings, info, queues=None, **options):
  config = {name: dict(term, temperature=0.5) for name, term in config.items()}
  return objective.evaluate(objective.parse_terms(config), embeddings, info, {}, queues or {}, {}, **options)


def batch(seed=0):
  rng = np.random.default_rng(seed)
  names = (IMAGE, "image[1]/joint", TEXT, AUDIO)
  present = {name: rng.random(N) < 0.7 for name in FULL.values()}
  embeddings = {name: jnp.asarray(rng.normal(size=(N, D)), jnp.float32) for name in names}
  return embeddings, {"id": rng.integers(0, 4, N).astype(np.int32), "valid": rng.random(N) < 0.9, "present": present}


@pytest.fixture(scope="module")
def losses():
  """(embeddings, info) -> ({term: loss, top1, mean scores}, {term: gradients}), by one program a batch size."""

  @compiled
  def every(embeddings, info):
    def one(embeddings, name):
      return evaluate({name: TERMS[name]}, embeddings, info)

    found = {name: jax.value_and_grad(one, has_aux=True)(embeddings, name) for name in TERMS}
    return {name: x[0][1] for name, x in found.items()}, {name: x[1] for name, x in found.items()}

  return every


def takes_part(name, info):
  return np.logical_and.reduce([info["valid"], *(info["present"][FULL[letter]] for letter in READS[name])])


def test_a_term_is_as_if_those_who_lack_a_modality_were_not_there(losses):
  """Loss, metrics and gradients of every term, as of the smaller batch of those that have all."""
  embeddings, info = batch()
  info["present"] = {"text": np.arange(N) != 2, "audio": np.arange(N) != 5, "image": np.ones(N, bool)}
  info["valid"] = np.ones(N, bool)
  found, gradients = losses(embeddings, info)
  for name, metrics in found.items():
    there = takes_part(name, info)
    if name == "hard":  # the pair has both its images, the hard negative of one example is missing
      assert there.all()
      continue
    kept = np.flatnonzero(there)
    assert 0 < len(kept) <= N
    rest = {"id": info["id"][kept]}
    smaller = {key: x[kept] for key, x in embeddings.items()}
    loss = compiled(jax.value_and_grad(lambda x, n=name, i=rest: evaluate({n: TERMS[n]}, x, i), has_aux=True))
    (_, wanted), wanted_gradients = loss(smaller)
    for key, value in wanted.items():
      np.testing.assert_allclose(metrics[key], value, rtol=2e-5, atol=1e-6, err_msg=key)
    for key, gradient in wanted_gradients.items():
      np.testing.assert_allclose(gradients[name][key][kept], gradient, rtol=1e-4, atol=1e-6)
      assert not np.any(np.asarray(gradients[name][key])[~there])


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000))
@example(seed=225)  # no one has all that the teacher's term reads
def test_what_stands_in_a_missing_place_matters_to_no_one(losses, seed):
  embeddings, info = batch(seed)
  changed = {
    name: jnp.where(info["present"][name.split("[")[0]][:, None], x, 9.0 * x + 1.0) for name, x in embeddings.items()
  }
  found, other = losses(embeddings, info), losses(changed, info)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(other)):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=False)
  for name, gradients in found[1].items():
    for key, gradient in gradients.items():
      assert not np.any(np.asarray(gradient)[~info["present"][key.split("[")[0]]]), (name, key)


def test_a_missing_modality_is_nothing_to_terms_that_do_not_read_it(losses):
  embeddings, info = batch()
  info["present"] = {name: np.ones(N, bool) for name in FULL.values()}
  everything = losses(embeddings, info)
  info["present"]["audio"] = np.arange(N) % 2 == 0
  without = losses(embeddings, info)
  for name in TERMS:
    if "a" not in READS[name]:
      assert_close([x[name] for x in without], [x[name] for x in everything], 1e-6)
    else:
      assert abs(without[0][name][f"{name}/loss"] - everything[0][name][f"{name}/loss"]) > 1e-4, name


def test_who_takes_part_is_counted_and_nobody_is_seen(losses):
  embeddings, info = batch(1)
  found, _ = losses(embeddings, info)
  for name, metrics in found.items():
    if name != "hard":
      assert metrics[f"{name}/anchors"] % takes_part(name, info).sum() == 0, name  # once or more an example
  info["present"] = {"image": np.arange(N) % 2 == 0, "text": np.arange(N) % 2 == 1, "audio": np.ones(N, bool)}
  found, _ = losses(embeddings, info)
  idle = {name for name, metrics in found.items() if metrics[f"{name}/anchors"] == 0}
  assert idle == {name for name in found if {"i", "t"} <= set(READS[name])}
  assert all(metrics[f"{name}/loss"] == 0 for name, metrics in found.items() if name in idle)  # as if all were well


@pytest.mark.usefixtures("float64")
def test_eight_devices_agree():
  embeddings, info = batch(3)
  embeddings = {name: x.astype(jnp.float64) for name, x in embeddings.items()}
  config = {name: TERMS[name] for name in ("softmax", "gram", "hard")}

  def run(**options):
    weights = dict.fromkeys(config, 1.0)
    terms = objective.parse_terms({name: dict(term, temperature=0.5) for name, term in config.items()})
    loss = jax.value_and_grad(lambda x: objective.evaluate(terms, x, info, {}, {}, weights, **options), has_aux=True)
    return compiled(loss)(embeddings)

  assert_close(run(impl="ring", mesh=make_mesh(8), tile=2), run(impl="dense"), 1e-10)


def test_a_missing_key_is_no_negative_in_a_queue():
  embeddings, info = batch()
  embeddings[KEY] = embeddings[TEXT]
  info["present"]["text"] = np.arange(N) != 2
  info["present"]["image"] = np.ones(N, bool)
  shapes = jax.tree.map(lambda x: (x.shape[1:], x.dtype), {"present": info["present"]})
  queue = queue_store.init(jax.random.key(0), N, D, shapes)
  queue = queue_store.push(queue, embeddings[KEY], {"present": info["present"]})
  np.testing.assert_array_equal(queue["present"]["text"], info["present"]["text"])
  term = {"t": dict(query=IMAGE, key=KEY, negatives=f"queue:{N}")}

  def loss(keys):
    return evaluate(term, embeddings, {}, {KEY: queue | {"keys": keys}})[0]

  keys, moved = queue["keys"], np.flatnonzero(~info["present"]["text"])
  assert loss(keys.at[moved].multiply(-1.0)) == loss(keys)
  assert loss(keys.at[(moved + 1) % N].multiply(-1.0)) != loss(keys)


def test_a_step_passes_it_on_to_terms_and_queues():
  """What stands in the places of missing texts changes nothing of a step, and the queue knows them."""
  method = make_method(tiny_config(objective=dict(t=five_terms()["image_to_text"])), tiny_spec())
  batch, missing = tiny_batch(), np.arange(16) % 3 == 1
  batch["present"] = {"text": ~missing}
  other = batch | {"text": np.where(missing[:, None, None], np.roll(batch["text"], 1, 0), batch["text"])}
  start = compiled(functools.partial(init_state, method))(batch)
  step = compiled(functools.partial(train_step, method, None))
  (state, metrics), (same, same_metrics) = step(start, batch), step(start, other)
  assert_close(same_metrics, metrics, 1e-5)
  assert_close(same.params, state.params, 1e-6)
  (queue,) = state.queues.values()
  np.testing.assert_array_equal(queue["present"]["text"][:16], ~missing)
  everyone = step(start, batch | {"present": {"text": np.ones(16, bool)}})[1]
  assert abs(everyone["t/loss"] - metrics["t/loss"]) > 1e-4
