"""Two-component Gaussian mixtures of one number an example: which examples are of the smaller component.

On the host, between epochs; scikit-learn fits them.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np


class Split(NamedTuple):
  """The posterior of the component of the smaller mean, [E] in [0, 1], and whether the fit has converged."""

  posterior: np.ndarray
  converged: bool


def smaller_component(values: np.ndarray, valid: np.ndarray, seed: int, rounds: int = 10) -> Split:
  """Fits two Gaussians to the `valid` values [E], scaled to [0, 1].

  As PC2 has it: so many rounds of EM at most, tolerance 0.01, 5e-4 added to variances; what they have come to then is
  used. An example that is not valid has posterior 1. Where all values are equal, or fewer than two are valid, there are
  not two components: all have posterior 1. Values that are not finite count as the largest that is.

  Args:
    seed: of the start.
  """
  posterior = np.ones(len(values))
  some = np.asarray(values, np.float64)[valid]
  finite = some[np.isfinite(some)]
  if len(finite) < 2 or np.ptp(finite) == 0:
    return Split(posterior, True)
  from sklearn.exceptions import ConvergenceWarning  # takes seconds
  from sklearn.mixture import GaussianMixture

  some = np.where(np.isfinite(some), some, finite.max())
  scaled = ((some - some.min()) / np.ptp(some))[:, None]
  mixture = GaussianMixture(n_components=2, max_iter=rounds, tol=1e-2, reg_covar=5e-4, random_state=seed)
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", ConvergenceWarning)
    mixture.fit(scaled)
  posterior[valid] = mixture.predict_proba(scaled)[:, mixture.means_[:, 0].argmin()]
  return Split(posterior, bool(mixture.converged_))
