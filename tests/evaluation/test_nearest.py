"""The largest numbers of rows are those of a sort, in its order, equal ones too."""

import numpy as np
import pytest

from mmcontrast.evaluation import nearest
from mmcontrast.evaluation.nearest import largest, of_each


@pytest.mark.parametrize("k", [1, 20, 40])
@pytest.mark.parametrize("form", ["draws", "rounded", "equal", "few"])
def test_the_largest_are_those_of_a_sort(form, k):
  scores = np.random.default_rng(k).standard_normal((9, 60 if form == "few" else 7003), np.float32)
  scores = np.round(scores, 1) if form == "rounded" else np.zeros_like(scores) if form == "equal" else scores
  found = largest(scores, k)
  assert found.shape == (9, k) and all(len(set(row)) == k for row in found.tolist())
  np.testing.assert_array_equal(found, np.argsort(-scores, axis=1, kind="stable")[:, :k])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("order", ["draws", "near last", "equal"])
def test_the_nearest_of_each_by_blocks_are_those_of_all_scores(order, threads, monkeypatch):
  monkeypatch.setattr(nearest, "_QUERIES", 5)
  monkeypatch.setattr(nearest, "_ROWS", 60)
  monkeypatch.setattr(nearest, "_LARGE", 1 << 60 if threads == 1 else 0)
  draw = np.random.default_rng(0)
  queries, bank = draw.integers(-3, 4, (13, 8)).astype(np.float32), draw.integers(-3, 4, (403, 8)).astype(np.float32)
  if order == "near last":  # every block has nearer rows than all before it
    bank = bank[np.argsort(bank.sum(axis=1))]
    queries = np.abs(queries)
  elif order == "equal":
    bank[:] = 1
  scores = queries @ bank.T
  for k in (1, 20, 100, 403):
    found = of_each(queries, bank, k)
    wanted = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(found.index, wanted)
    np.testing.assert_array_equal(found.cosine, np.take_along_axis(scores, wanted, axis=1))
  assert of_each(queries[:0], bank, 3).index.shape == (0, 3)
