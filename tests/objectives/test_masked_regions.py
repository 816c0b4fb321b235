"""Masked regions: value and gradient against LXMERT's formulas in NumPy; devices, absence, order; what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from meshes import assert_close, compiled, make_mesh
from scipy.special import erf

from mmcontrast.encoders import Encoded
from mmcontrast.errors import UserError
from mmcontrast.objectives import terms as objective
from mmcontrast.objectives.masked_regions import smooth_l1
from mmcontrast.objectives.term import Run

pytestmark = pytest.mark.usefixtures("float64")
N, R, V, D, F = 8, 3, 9, 4, 6
WORDS, GUESS, TARGET = (
  "seen(fusion(text[0], image[0]))/words",
  "seen(fusion(text[0], image[0]))/as",
  "cells(image[0])/as",
)
TERMS = dict(
  w=dict(module="region_words", embeddings=WORDS),
  f=dict(module=dict(name="region_features", normalised=True), embeddings=(GUESS, f"{TARGET}@momentum")),
)


def case():
  draw = np.random.default_rng(0)
  x = {WORDS: draw.normal(size=(N, R, V)), GUESS: draw.normal(size=(N, R, D)), TARGET: 3 * draw.normal(size=(N, R, F))}
  ids = np.full((R, N, 5), -1)
  for r, n in np.ndindex(R, N):
    count = draw.integers(1, 4)
    ids[r, n, : count + 2] = [1, *draw.integers(3, V, count), 2]
  ids[2, 0, 1] = 2
  ids[2, 0, 2:] = -1  # a region without a word
  hidden, real = draw.random((2, N, R)) < np.array([0.5, 0.8])[:, None, None]
  return jax.tree.map(jnp.asarray, (x, ids, hidden & real, real))


def setup():
  terms = objective.parse_terms(TERMS)
  nodes = made(*(jnp.zeros((2, R, size)) for size in (V, D, F)), jnp.zeros((2, R), bool), jnp.ones((2, R), bool))
  return terms, objective.init_parameters(terms, jax.random.key(0), nodes)


def made(logits, guess, target, hidden, real):
  return {
    WORDS: Encoded(logits=logits, mask=real, hidden=hidden),
    GUESS: Encoded(None, guess, real, hidden=hidden),
    f"{TARGET}@momentum": Encoded(None, target, real),
  }


@compiled
def run(x, ids, hidden, real, valid, parameters):
  """((loss, metrics), gradients by embeddings)."""

  def loss(x):
    info = {"valid": valid, "views": {f"text_region[{r}]": {"ids": ids[r]} for r in range(R)}}
    nodes = made(x[WORDS], x[GUESS], x[TARGET], hidden, real)
    return objective.evaluate(objective.parse_terms(TERMS), nodes, info, parameters, {}, {})

  return jax.value_and_grad(loss, has_aux=True)(x)


def reference(x, ids, hidden, real, parameters):
  """(loss of words, loss of features): mean(confidence * loss) / 0.15 over all regions, of airsplay/lxmert."""
  log_p = x[WORDS] - np.log(np.exp(x[WORDS]).sum(-1, keepdims=True))
  words, regions, with_words = 0, 0, 0
  for n, r in zip(*np.nonzero(real)):
    inner = set(ids[r, n][ids[r, n] >= 3].tolist())
    regions += 1
    with_words += bool(inner)
    words -= hidden[n, r] * sum(log_p[n, r, word] for word in inner) / max(len(inner), 1)
  p = parameters["f"]
  y = x[GUESS] @ p["transform"]["kernel"] + p["transform"]["bias"]
  y = y * 0.5 * (1 + erf(y / np.sqrt(2)))
  y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-12)
  y = (y * p["norm"]["scale"] + p["norm"]["bias"]) @ p["fc1"]["kernel"] + p["fc1"]["bias"]
  t = x[TARGET]
  t = (t - t.mean(-1, keepdims=True)) / np.sqrt(t.var(-1, keepdims=True) + 1e-6)
  d = np.abs(y - t)
  features = (np.where(d < 1, d**2 / 2, d - 0.5).mean(-1) * (hidden & real)).sum()
  return words / (0.15 * with_words), features / (0.15 * regions)


def test_value_gradient_devices_order_and_what_is_absent():
  x, ids, hidden, real = case()
  _, parameters = setup()
  parameters = jax.tree.map(lambda leaf: leaf.astype(float), parameters)
  valid = np.arange(N) != 3
  (value, metrics), gradients = wanted = run(x, ids, hidden, real, valid, parameters)
  there = np.asarray(real) & valid[:, None]
  plain = lambda x: reference(x, np.asarray(ids), np.asarray(hidden), there, parameters)  # noqa: E731
  host = jax.tree.map(np.asarray, x)
  np.testing.assert_allclose([metrics["w/loss"], metrics["f/loss"]], plain(host), rtol=1e-6)
  assert 0 <= metrics["w/top1"] <= 1 and not np.any(gradients[TARGET])
  n, r = np.argwhere(np.asarray(hidden) & there)[1]
  for name, place in ((WORDS, (n, r, 4)), (GUESS, (n, r, 1))):
    step = np.zeros_like(host[name])
    step[place] = 1e-5
    up, down = (sum(plain({**host, name: host[name] + sign * step})) for sign in (1, -1))
    np.testing.assert_allclose(gradients[name][place], (up - down) / 2e-5, rtol=1e-6, atol=1e-9)

  mesh = NamedSharding(make_mesh(4), PartitionSpec("data"))
  cut = jax.device_put((x, hidden, real, valid), mesh)
  assert_close(run(cut[0], ids, *cut[1:], parameters), wanted, 1e-9)
  broken = jax.tree.map(lambda leaf: leaf.at[3].set(jnp.nan), x)
  unseen = {**broken, WORDS: jnp.where(np.asarray(real)[..., None], broken[WORDS], 50.0)}
  np.testing.assert_allclose(run(unseen, ids, hidden, real, valid, parameters)[0][0], value, rtol=1e-12)
  order = np.random.default_rng(3).permutation(N)
  parts = jax.tree.map(lambda leaf: leaf[order], (x, hidden, real, valid))
  (moved, _), turned = run(parts[0], ids[:, order], *parts[1:], parameters)
  np.testing.assert_allclose(moved, value, rtol=1e-12)
  np.testing.assert_allclose(turned[GUESS], gradients[GUESS][order], atol=1e-12)
  (nothing, _), still = run(x, ids, jnp.zeros_like(hidden), real, valid, parameters)
  assert nothing == 0 and not any(np.any(leaf) for leaf in still.values())


def test_smooth_l1():
  np.testing.assert_allclose(smooth_l1(jnp.array([0.5, -2.0, 1.0]), 0.0), [0.125, 1.5, 0.5])


FACTS = {"image": ("box",), "text_region": ("ids", "box")}


@pytest.mark.parametrize(
  ("name", "changes", "run", "message"),
  [
    ("w", dict(module=dict(name="region_words", share=0)), {}, r"share: 0 is not a share of the regions"),
    ("w", {}, dict(views={}), r"this run has no regions; set config\.data\.regions\.views, such as 4"),
    (
      "w",
      {},
      dict(facts={"image": ("box",)}),
      r"asks for the 'ids' of text_region views; add it to config\.data\.facts",
    ),
    ("f", {}, dict(facts={}), r"asks for the 'box' of image views; add it to config\.data\.facts"),
    (
      "w",
      {},
      dict(token_ids={"bos": -1}),
      r"module\.start: True, and the tokenizer has no start token; set it to False",
    ),
    (
      "f",
      dict(embeddings=(GUESS, TARGET)),
      {},
      r"name regions of the online branch and their features of the momentum",
    ),
  ],
)
def test_what_is_refused(name, changes, run, message):
  heads = {"words": "seen", "as": "seen"}
  fields = {"words": {"logits"}, "as": {"tokens"}}
  of = dict(heads=heads, batch_size=N, made=fields, views={"text_region": R}, facts=FACTS, token_ids={"bos": 1}) | run
  with pytest.raises(UserError, match=message):
    objective.parse_terms({name: TERMS[name] | changes})[name].check(Run(**of))


def test_regions_that_nobody_hid_are_refused():
  nodes = made(*(jnp.zeros((2, R, size)) for size in (V, D, F)), None, None)
  with pytest.raises(UserError, match=r"says of no region that it was hidden; let it read what a tower 'region_"):
    objective.init_parameters(objective.parse_terms(TERMS), jax.random.key(0), nodes)
