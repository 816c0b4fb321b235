"""Maps between frozen spaces, beside SciPy and scikit-learn."""

import numpy as np
import pytest
from scipy import linalg
from sklearn.linear_model import LinearRegression, Ridge

from mmcontrast.errors import UserError
from mmcontrast.evaluation.adaptation import linear_maps
from mmcontrast.evaluation.matches import matches_of


def rows(count=40, width=6, target=4, seed=0):
  draw = np.random.default_rng(seed)
  x = draw.normal(2, 3, (count, width))
  return x, x @ draw.normal(size=(width, target)) + 0.3 * draw.normal(size=(count, target)) - 1


def test_least_squares_and_ridge_are_those_of_scikit_learn():
  x, y = rows()
  np.testing.assert_allclose(
    linear_maps.least_squares(x, y), LinearRegression(fit_intercept=False).fit(x, y).coef_.T, atol=1e-10
  )
  np.testing.assert_allclose(
    linear_maps.ridge(x, y, 2.5), Ridge(alpha=2.5, fit_intercept=False).fit(x, y).coef_.T, atol=1e-10
  )


@pytest.mark.parametrize("target", [3, 6, 8])
def test_procrustes_is_orthogonal_and_the_best_of_all(target):
  x, y = rows(target=target)
  weight = linear_maps.procrustes(x, y)
  small = weight.T @ weight if target <= 6 else weight @ weight.T
  np.testing.assert_allclose(small, np.eye(min(target, 6)), atol=1e-12)
  if target == 6:
    np.testing.assert_allclose(weight, linalg.orthogonal_procrustes(x, y)[0], atol=1e-10)
    for seed in range(5):
      other = linalg.qr(np.random.default_rng(seed).normal(size=(6, 6)))[0]
      assert np.linalg.norm(x @ weight - y) <= np.linalg.norm(x @ other - y)


def test_robust_procrustes_takes_little_notice_of_outliers():
  draw = np.random.default_rng(0)
  x, turn = draw.normal(size=(60, 5)), linalg.qr(draw.normal(size=(5, 5)))[0]
  y = x @ turn
  y[:12] = 10 * draw.normal(size=(12, 5))
  plain, robust = (
    np.abs(method(x, y) - turn).max() for method in (linear_maps.procrustes, linear_maps.robust_procrustes)
  )
  assert robust < 0.02 < plain


def test_a_map_leads_to_the_second_space_as_it_is():
  x, y = rows()
  fitted = linear_maps.fit(x, y, "least_squares")
  expected = LinearRegression().fit(x, y).predict(x)  # standardising is an affine change, which least squares absorb
  np.testing.assert_allclose(fitted.apply(x), expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6)
  scaled = [(of - of.mean(0)) / of.std(0) for of in (x, y)]
  np.testing.assert_allclose(
    linear_maps.fit(x, y, "ridge", 3.0).weight, Ridge(alpha=3.0, fit_intercept=False).fit(*scaled).coef_.T, atol=1e-10
  )


def test_a_number_that_never_changes_does_no_harm():
  x, y = rows()
  x[:, 1] = 5.0
  assert np.isfinite(linear_maps.fit(x, y, "least_squares").apply(x)).all()


def test_held_out_retrieval_beside_none():
  x, y = rows(target=6, seed=1)
  matches = matches_of(np.arange(20), np.arange(20))
  fitted = linear_maps.fit(x[20:], y[20:])
  mapped = linear_maps.held_out_retrieval(x[:20], y[:20], matches, fitted)
  none = linear_maps.held_out_retrieval(x[:20], y[:20], matches, None)
  assert mapped["there/recall@1"] > 0.8 > 0.4 > none["there/recall@1"]
  assert mapped["back/recall@1"] > 0.8 and mapped["there/candidates"] == 20


@pytest.mark.parametrize(
  "change, message",
  [
    (dict(method="rige"), "--method: no such choice 'rige'.*ridge"),
    (dict(l2=0.0), "--l2 0: must be above 0; --method least_squares has none"),
  ],
)
def test_a_wrong_option_is_said(change, message):
  with pytest.raises(UserError, match=message):
    linear_maps.fit(*rows(), **change)


def test_vectors_of_another_length_are_refused():
  with pytest.raises(UserError, match="of 6 numbers cannot be applied to vectors of 5"):
    linear_maps.fit(*rows()).apply(np.zeros((2, 5)))
