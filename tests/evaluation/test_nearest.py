"""The largest numbers of rows are those of a sort, in its order, equal ones too."""

import numpy as np
import pytest

from mmcontrast.evaluation.nearest import largest


@pytest.mark.parametrize("k", [1, 20, 40])
@pytest.mark.parametrize("form", ["draws", "rounded", "equal", "few"])
def test_the_largest_are_those_of_a_sort(form, k):
  scores = np.random.default_rng(k).standard_normal((9, 60 if form == "few" else 7003), np.float32)
  scores = np.round(scores, 1) if form == "rounded" else np.zeros_like(scores) if form == "equal" else scores
  found = largest(scores, k)
  assert found.shape == (9, k) and all(len(set(row)) == k for row in found.tolist())
  np.testing.assert_array_equal(found, np.argsort(-scores, axis=1, kind="stable")[:, :k])
