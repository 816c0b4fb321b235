"""Other packages' own evaluation on the same embeddings: our numbers are theirs, to 1e-6.

CLIP_benchmark is installed without what it asks for: `pip install --no-deps clip-benchmark==1.6.2`.
"""

import pathlib
import sys

import numpy as np
import pytest

pytest.importorskip("clip_benchmark")

TESTS = pathlib.Path(__file__).parents[1]
sys.path += [str(TESTS / "golden"), str(TESTS / "evaluation")]
import make_clip_benchmark as theirs  # noqa: E402
from test_clip_benchmark import ours  # noqa: E402

KINDS = {"retrieval": theirs.retrieval, "classification": theirs.classification, "selection": theirs.selection}


def inputs(kind, seed, coarse):
  draw = np.random.default_rng(seed)

  def rows(*shape):
    if not coarse:
      return draw.normal(size=(*shape, 16))
    return draw.choice([-1.0, 1.0], (*shape, 4))  # cosines are multiples of a half: most scores are equal

  if kind == "retrieval":
    return {"images": rows(150), "texts": rows(700), "owner": np.sort(draw.integers(0, 150, 700))}
  if kind == "selection":
    return {"images": rows(200, 2), "texts": rows(200, 2)}
  return {"images": rows(300), "prompts": rows(330, 80), "labels": draw.integers(0, 330, 300)}


@pytest.mark.parametrize("coarse", [False, True], ids=["normal", "ties"])
@pytest.mark.parametrize("kind", KINDS)
def test_clip_benchmark_on_the_same_embeddings(kind, coarse):
  given = inputs(kind, len(kind), coarse)
  expected = KINDS[kind](**given)
  assert ours(kind, **given) == pytest.approx(expected, abs=1e-6) and expected
