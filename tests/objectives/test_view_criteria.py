"""MV-InfoNCE, MV-DHEL and DHEL: published values, plain formulas, every mesh, masks, what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import assert_close, compiled, make_mesh

from mmcontrast.errors import UserError
from mmcontrast.objectives import terms as objective

VIEWS = [f"image[{view}]/ssl" for view in range(4)]
INFONCE, DHEL = dict(name="multi_view"), dict(name="mv_dhel")
FORMS = {
  "infonce": INFONCE,
  "infonce_readme": dict(INFONCE, same_view=False),
  "dhel": DHEL,
  "dhel_readme": dict(DHEL, ordered=True),
}
N, D, TAU = 11, 6, 0.4
VALID = (np.arange(N) != 2) & (np.arange(N) != 10)


def make_term(criterion, views=3, temperature=TAU, **changes):
  return dict(query=VIEWS[:views], key=VIEWS[:views], criterion=criterion, temperature=temperature) | changes


def evaluate(config, views, info=None, **options):
  terms = objective.parse_terms(config)
  return objective.evaluate(terms, dict(zip(VIEWS, views)), info or {}, {}, {}, {}, **options)


def wave(n, d, shift):
  """[n, d]: sin(0.7 k + shift), k = 1, 2, ..."""
  return jnp.sin(0.7 * jnp.arange(1, n * d + 1) + shift).reshape(n, d)


def random(*shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def formula(form, views, temperature):
  """The loss of [V, N, D] in plain operations on all V N x V N exponentials; nothing masked."""
  u = views / jnp.linalg.norm(views, axis=-1, keepdims=True)
  e = jnp.exp(jnp.einsum("lid,mjd->limj", u, u) / temperature)
  count, n = u.shape[:2]
  other_view = 1 - jnp.eye(count)[:, None, :, None]
  other_example = 1 - jnp.eye(n)[None, :, None, :]
  positives = jnp.einsum("limi->i", e * other_view)
  if form.startswith("infonce"):
    seen = other_view if form == "infonce_readme" else jnp.maximum(other_view, other_example)
    return jnp.mean(jnp.log(jnp.sum(e * seen, (0, 2, 3))) - jnp.log(positives))
  negatives = jnp.sum((e * (1 - other_view) * other_example), (2, 3))  # [V, N]
  pairs = positives if form == "dhel_readme" else positives / 2
  return jnp.mean(jnp.sum(jnp.log(negatives), 0) - jnp.log(pairs))


# ---- Values -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
  ("form", "views", "temperature", "expected"),
  [
    ("infonce", 4, 0.5, 2.391016584495),
    ("infonce", 2, 0.5, 2.034765688726),
    ("dhel", 4, 0.5, 3.975151606790),
    ("dhel_readme", 4, 0.5, 3.282004426230),
    ("dhel", 2, 0.3, 2.556462784114),
  ],
)
def test_published_code(form, views, temperature, expected):
  """Numbers of the authors' code in float64; the last is DHEL's own (arXiv:2405.18045)."""
  waves = [wave(5, 7, shift) for shift in (0.1, 1.3, 2.2, 3.9)]
  loss = compiled(lambda waves: evaluate({"t": make_term(FORMS[form], views, temperature)}, waves)[0])(waves)
  np.testing.assert_allclose(loss, expected, rtol=1e-11)
  np.testing.assert_allclose(formula(form, jnp.stack(waves[:views]), temperature), expected, rtol=1e-11)


@functools.cache
def plain():
  """The formulas' values and gradients by views and temperature, of the examples that are there."""
  gradients = {form: jax.value_and_grad(functools.partial(formula, form), (0, 1)) for form in FORMS}
  return compiled(lambda views, tau: {form: function(views[:, VALID], tau) for form, function in gradients.items()})


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("impl", "devices"), [("dense", 1), ("rows", 8), ("ring", 8)])
def test_value_and_gradients(impl, devices):
  """Of embeddings and temperature, two examples absent, as the plain formula of those there."""
  temperature = dict(init=TAU, form="tau", learned=True)
  terms = objective.parse_terms({form: make_term(c, temperature=temperature) for form, c in FORMS.items()})

  def loss(views, tau, form):
    return objective.evaluate(
      {form: terms[form]}, dict(zip(VIEWS, views)), {"valid": VALID}, {form: {"tau": tau}}, {}, {},
      mesh=make_mesh(devices), impl=impl, tile=4,
    )[0]  # fmt: skip

  every = compiled(lambda *x: {form: jax.value_and_grad(loss, (0, 1))(*x, form) for form in FORMS})
  views = random(3, N, D)
  for form, (value, (by_views, by_tau)) in every(views, TAU).items():
    expected, (wanted, wanted_tau) = plain()(views, TAU)[form]
    assert_close((value, by_views[:, VALID], by_tau), (expected, wanted, wanted_tau), 1e-10)
    assert not np.any(by_views[:, ~VALID])


def test_two_views_in_a_fraction_are_no_less_than_nt_xent():
  """It averages the two denominators inside the logarithm, NT-Xent the logarithms."""
  config = {"joined": make_term(INFONCE, 2), "apart": make_term("softmax", 2)}
  both = compiled(lambda views: evaluate(config, views)[1])
  for seed in range(5):
    found = both(random(2, 9, 4, seed=seed))
    assert found["apart/loss"] < found["joined/loss"]


def test_a_product_over_views_does_not_overflow():
  """At a temperature of 0.001 one view's sum of exponentials is beyond float32, and so is float64's product."""
  views = jnp.asarray(random(4, 8, 3), jnp.float32)
  views = views.at[:, 1].set(views[:, 0])  # a twin: similarity one
  config = {form: make_term(criterion, 4, 0.001) for form, criterion in FORMS.items()}
  loss, gradients = compiled(jax.value_and_grad(lambda views: evaluate(config, views)[0]))(views)
  assert np.isfinite(loss) and np.all(np.isfinite(gradients)) and np.any(gradients)


# ---- Examples and views -------------------------------------------------------------------------

ALL = {form: make_term(criterion) for form, criterion in FORMS.items()}
every = compiled(jax.value_and_grad(lambda views, info: evaluate(ALL, views, info)[0]))


@pytest.mark.usefixtures("float64")
def test_neither_order_of_examples_nor_of_views_matters():
  views, info = random(3, N, D), {"valid": np.ones(N, bool)}
  loss, order = every(views, info)[0], np.random.default_rng(0).permutation(N)
  np.testing.assert_allclose(every(views[:, order], info)[0], loss, rtol=1e-12)
  np.testing.assert_allclose(every(views[np.array([2, 0, 1])], info)[0], loss, rtol=1e-12)


@pytest.mark.usefixtures("float64")
def test_absent_examples():
  """Whatever stands in their place; without negatives, and without anybody, nothing."""
  views = random(3, N, D)
  for left in (5, 1, 0):
    valid = np.arange(N) < left
    stray = jnp.where(valid[:, None], views, 9.0 * views + 1.0)
    (loss, found), (other, other_found) = (every(x, {"valid": valid}) for x in (views, stray))
    np.testing.assert_allclose(other, loss, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(other_found, found, rtol=1e-9, atol=1e-12)
    assert not np.any(found[:, ~valid])
    if left < 2:  # MV-InfoNCE's fraction is one, MV-DHEL's denominator empty
      np.testing.assert_allclose(loss, 0.0, atol=1e-12)
      np.testing.assert_allclose(found, 0.0, atol=1e-12)


@pytest.mark.usefixtures("float64")
def test_examples_may_have_weights():
  """In proportion, however many views; zero: no anchor, but a negative still."""
  views, weight = random(3, 4, D), np.array([1.0, 0.0, 3.0, 1.0])
  weighted = compiled(lambda weight: evaluate({"t": ALL["dhel"]}, views, {"weight": weight})[0])
  found = [weighted(one) for one in np.eye(4)]
  np.testing.assert_allclose(weighted(weight), np.average(found, weights=weight), rtol=1e-12)
  np.testing.assert_allclose(weighted(np.ones(4)), np.mean(found), rtol=1e-12)


def test_metrics_are_those_of_the_views():
  views = jnp.stack([jnp.eye(4)] * 3)
  _, metrics = compiled(lambda views: evaluate({"t": make_term(INFONCE)}, views))(views)
  found = [float(metrics[f"t/{name}"]) for name in ("top1", "positive", "negative", "temperature")]
  np.testing.assert_allclose(found, [1.0, 1.0, 0.0, TAU], atol=1e-6)


# ---- What is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize("criterion", ["multi_view", "mv_dhel"])
@pytest.mark.parametrize(
  "changes",
  [
    dict(key="text[0]/joint"),
    dict(query=VIEWS[0], key=VIEWS[1]),
    dict(target="same_id"),
    dict(negative_keys="image[3]/ssl"),
    dict(query=f"{VIEWS[0]}@momentum", key=f"{VIEWS[1]}@momentum", negatives="queue:64"),
  ],
)
def test_what_does_not_go_with_joined_views(criterion, changes):
  with pytest.raises(UserError, match=r"objective\.t\.criterion: .*the same list of two or more views") as error:
    objective.parse_terms({"t": make_term(criterion, **changes)})
  assert "\n" not in str(error.value)


def test_options():
  with pytest.raises(UserError, match=r"t\.criterion: no option 'same_views'; did you mean 'same_view'"):
    objective.parse_terms({"t": make_term(dict(INFONCE, same_views=True))})
  with pytest.raises(UserError, match=r"t\.criterion: no option 'same_view'; .*ordered"):
    objective.parse_terms({"t": make_term(dict(DHEL, same_view=True))})
  assert objective.parse_terms({"t": make_term("mv_dhel", temperature=None)})["t"].temperature.init == 0.5
