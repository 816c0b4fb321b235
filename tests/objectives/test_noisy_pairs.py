"""PC2: soft margins, pseudo-classes, borrowed texts, and the mixtures that tell right pairs from wrong ones."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from term_rules import check_rules, module, random
from test_module_terms import case

from mmcontrast.encoders import Encoded
from mmcontrast.errors import UserError
from mmcontrast.objectives import terms as objective
from mmcontrast.objectives.module_loss import Facts
from mmcontrast.objectives.noisy_pairs import entropy_of_mean, hinge, pseudo_classes, rightness, softened
from mmcontrast.objectives.term import Run
from mmcontrast.stores.epoch_hooks import HOOKS
from mmcontrast.stores.hook import Examples
from mmcontrast.stores.mixtures import smaller_component
from mmcontrast.stores.pair_mixture import divergence, pair_losses

pytestmark = pytest.mark.usefixtures("float64")
NAMES = ("image[0]/joint", "text[0]/joint", "image[0]/classes", "text[0]/classes")


@pytest.mark.parametrize("form", ["linear", "exponential", "sine"])
def test_soft_margins(form):
  """Scores as products with unit vectors along the axes; the released code adds up what is a mean here."""
  x, expected = case("pc2_soft_margin")
  count, released = len(x["scores"]), "sin" if form == "sine" else form
  everyone, number = jnp.ones(count, bool), jnp.arange(count)

  def loss(scores, share=1.0):
    margins = x["margin"] * softened(x["clean_probability"], form)
    facts = Facts((), everyone, 0, {}, {})
    return jnp.sum(hinge(scores, jnp.eye(count), margins, number, ~everyone, everyone, facts, share))

  value, gradient = jax.jit(jax.value_and_grad(loss))(x["scores"])
  np.testing.assert_allclose(value, expected[f"hardest_{released}"], rtol=1e-6)
  np.testing.assert_allclose(gradient, expected[f"grad_{released}"], atol=1e-6)


def test_losses_of_pairs():
  x, expected = case("pc2_soft_margin")
  found = pair_losses(np.asarray(x["scores"]), float(x["margin"]))
  np.testing.assert_allclose(found, expected["per_sample"], rtol=1e-6)
  np.testing.assert_allclose(found.sum(), expected["warmup_mean"], rtol=1e-6)
  everyone, number = jnp.ones(5, bool), jnp.arange(5)
  margins, facts = jnp.full(5, x["margin"]), Facts((), everyone, 0, {}, {})
  mean = hinge(x["scores"], jnp.eye(5), margins, number, ~everyone, everyone, facts, 0.0)
  np.testing.assert_allclose(mean, found, rtol=1e-6)


def test_pseudo_classes():
  x, expected = case("pc2_pseudo_class")
  found, entropy = pseudo_classes(x["logits"], x["text_probability"])
  np.testing.assert_allclose(found, expected["ce"], rtol=1e-6)
  np.testing.assert_allclose(jnp.mean(entropy), expected["entropy_image"], rtol=1e-6)
  whole = entropy_of_mean(x["text_probability"], jnp.ones(len(x["logits"]), bool))
  np.testing.assert_allclose(whole, expected["entropy_text_mean"], rtol=1e-6)


def embeddings(count=8):
  shapes = (5, 5, 3, 3)
  return {name: random(count, width, seed=n) for n, (name, width) in enumerate(zip(NAMES, shapes))}


def rows(small, steady=None):
  small = jnp.asarray(small, jnp.float32)
  return {"small": small, "steady": jnp.zeros_like(small) if steady is None else jnp.asarray(steady, jnp.float32)}


def test_rules_and_borrowed_texts():
  term = module("noisy_pairs", NAMES, count=3)
  small = [0.9, 0.1, 0.8, 0.2, 1.0, 0.6, 0.0, 0.7]
  plain = check_rules(term, embeddings(), {"rows": rows(small, [0, 0, 0, 0.9, 0, 0, 0, 0])})
  whole = jax.tree.map(lambda x: x[:-1], embeddings())

  def found(values, **changes):
    info = {"rows": rows(values, jnp.zeros(7)), "valid": jnp.ones(7, bool)}
    return plain(whole | changes, info)

  (_, metrics), gradients = found(small[:7])
  np.testing.assert_allclose(metrics["t/right"], 4 / 7)
  assert 0 < metrics["t/borrowed"] <= 3 / 7
  for wrong in (1, 3, 6):  # their own texts are not read
    assert not gradients[NAMES[1]][wrong].any()
  # None is right: nobody can lend, and nothing is compared. All are: nobody borrows.
  (loss, metrics), gradients = found([0.0] * 7)
  assert loss == 0 == metrics["t/borrowed"] and not any(x.any() for x in gradients.values())
  (loss, metrics), _ = found([1.0] * 7)
  assert metrics["t/right"] == 1 and metrics["t/borrowed"] == 0
  # As released: hinges are summed, the classes' losses averaged; then all is divided by the number of pairs.
  np.testing.assert_allclose(7 * loss, 7 * metrics["t/pairs"] + metrics["t/classes"], rtol=1e-6)


def test_how_right_a_pair_is():
  small, steady = jnp.asarray([0.9, 0.4, 0.4, 1.0]), jnp.asarray([0.9, 0.8, 0.3, 0.0])
  np.testing.assert_allclose(rightness(small, steady, 0.5), [0.9 + 0.1 * 0.9, 0, 0, 1.0])
  for form in ("linear", "exponential", "sine"):
    np.testing.assert_allclose(softened(jnp.asarray([0.0, 1.0]), form), [0, 1], atol=1e-12)


@pytest.mark.parametrize(
  ("term", "message"),
  [
    (module("noisy_pairs", NAMES[:2]), r"t\.embeddings: .* are 2; name image and text in the joint space, then both"),
    (module("noisy_pairs", NAMES, count=9), r"t\.module\.count: 9 pseudo-classes, and head 'classes' gives 3"),
    (module("noisy_pairs", NAMES, count=1), r"t\.module\.count: 1 is not a number of classes; give 2 or more"),
    (module("noisy_pairs", NAMES, threshold=1.0), r"t\.module\.threshold: 1\.0 is not in \[0, 1\)"),
    (module("noisy_pairs", NAMES, soft="sin"), r"t\.module\.soft: .*'sin'.*did you mean 'sine'"),
    (
      module("noisy_pairs", ("image[0]/joint", "text[0]/other", *NAMES[2:])),
      r"t\.embeddings: heads 'joint' and 'other' give 5 and 6 numbers; make them equal",
    ),
  ],
)
def test_what_is_refused(term, message):
  heads = {"joint": "image", "classes": "image", "other": "text"}
  with pytest.raises(UserError, match=message) as error:
    objective.parse_terms({"t": term})["t"].check(Run(heads, 8, head_dims={"joint": 5, "classes": 3, "other": 6}))
  assert "\n" not in str(error.value)


# ---- Between epochs -----------------------------------------------------------------------------


def test_two_components_are_told_apart():
  draw = np.random.default_rng(0)
  values = np.concatenate([draw.normal(0.2, 0.05, 300), draw.normal(2.0, 0.3, 100)])
  valid = np.ones(400, bool)
  valid[:3] = False
  split = smaller_component(values, valid, seed=0)
  assert split.converged and (split.posterior[:300] > 0.5).all() and (split.posterior[300:] < 0.5).all()
  assert (split.posterior[:3] == 1).all()
  np.testing.assert_array_equal(split.posterior, smaller_component(values, valid, seed=0).posterior)


@pytest.mark.filterwarnings("error")
def test_mixtures_that_are_none():
  """One value, no example, a fit that has not converged, a loss that is not finite: a result all the same."""
  every = np.ones(6, bool)
  assert (smaller_component(np.full(6, 3.0), every, 0).posterior == 1).all()
  assert (smaller_component(np.arange(6.0), ~every, 0).posterior == 1).all()
  far = smaller_component(np.random.default_rng(0).normal(size=2000), np.ones(2000, bool), 0, rounds=1)
  assert not far.converged and ((far.posterior >= 0) & (far.posterior <= 1)).all()
  broken = smaller_component(np.array([0.0, 0.1, 0.05, 9.0, np.inf, np.nan]), every, 0)
  assert np.isfinite(broken.posterior).all() and (broken.posterior[3:] < 0.5).all()


def hooked(first, second, **options):
  """What the hook writes of a set of 40 pairs, of which the last ten have another's text."""
  draw = np.random.default_rng(0)
  images = draw.normal(size=(40, 64))
  texts = images.copy()
  texts[30:] = np.roll(images[30:], 1, 0)
  nodes = {"image[0]/joint": Encoded(images), "text[0]/joint": Encoded(texts), "image[0]/classes": Encoded(second)}
  there = np.arange(40) != 5
  examples = Examples(nodes, dict.fromkeys(nodes, there), {})
  columns = {"small": np.ones(40), "steady": np.ones(40)}
  columns |= {f"class_{number}": jnp.asarray(first[:, number]) for number in range(3)}
  hook = HOOKS["pair_mixture"]("t", "image[0]/joint", "text[0]/joint", "image[0]/classes", batch=20, **options)
  return hook(lambda names: examples, types.SimpleNamespace(tables={"t": columns}), jax.random.key(1))


def test_the_hook_finds_wrong_pairs_and_what_moved():
  logits = np.zeros((40, 3))
  logits[:, 0] = 2.0
  unseen = np.full((40, 3), -1.0)
  update = hooked(unseen, logits)
  new = update.tables["t"]
  right = new["small"] > 0.5
  assert right[:30].all() and right[30:].sum() < 4 and new["small"][5] == 1
  assert (new["steady"] == 1).all()  # nothing was seen before, so nothing moved
  assert new["class_0"][5] == -1 and np.isclose(new["class_0"][6], np.exp(2) / (np.exp(2) + 2))
  assert update.shown["of"] == 39 and update.shown["small losses"] == right.sum() - 1
  then = np.stack([new[f"class_{number}"] for number in range(3)], 1)
  moved = logits.copy()
  moved[:4] = [[0.0, 0.0, 9.0]]
  new = hooked(then, moved).tables["t"]
  assert (new["steady"][:4] < 0.5).all() and (new["steady"][6:] > 0.5).all()
  np.testing.assert_allclose(divergence(np.array([[0.5, 0.5]]), np.array([[0.25, 0.75]])), np.log(4 / 3) / 2)


def test_what_the_hook_needs():
  hook = HOOKS["pair_mixture"]("pair", "image[0]/joint", "text[0]/joint", "image[0]/classes")
  state = types.SimpleNamespace(tables={"pairs": {"small": 0}})
  with pytest.raises(UserError, match=r"term: 'pair' is no entry .* which pairs are right; did you mean 'pairs'"):
    hook.check(state, 40, True)
  with pytest.raises(UserError, match=r"add one with module=dict\(name='noisy_pairs'"):
    hook.check(types.SimpleNamespace(tables={}), 40, True)
  hook = HOOKS["pair_mixture"]("pairs", "image[0]/joint", "text[0]/joint", "image[0]/classes")
  with pytest.raises(UserError, match=r"set: it tells pairs apart that are trained on; leave it out"):
    hook.check(state, 40, False)
  with pytest.raises(UserError, match=r"rounds: 0 is below 1"):
    HOOKS["pair_mixture"]("pairs", "a", "b", "c", rounds=0)
