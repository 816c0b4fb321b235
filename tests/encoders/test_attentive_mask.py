"""Which patches of an image a text is about, against NumPy; what is painted of those that a tower left out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcontrast.encoders import Encoded
from mmcontrast.encoders.attentive_mask import AttentiveMask, kept_places, relatedness
from mmcontrast.encoders.patch_decoder import PatchDecoder
from mmcontrast.errors import UserError

DRAW = np.random.default_rng(0)
PATCHES, WORDS = (DRAW.normal(size=(3, count, 8)).astype(np.float32) for count in (16, 5))
REAL = np.arange(5) < np.array([[5], [2], [3]])
IMAGE, TEXT = Encoded(None, PATCHES, grid=(4, 4)), Encoded(None, WORDS, REAL)


def by_hand(patches, words, real):
  unit = [x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (patches, words[real])]
  return (unit[0] @ unit[1].T).max(1)


@pytest.mark.parametrize("hides", ["related", "unrelated"])
def test_half_the_patches_are_left(hides):
  made = AttentiveMask(hides=hides).apply({}, IMAGE, TEXT, train=True)
  assert made.places.shape == (3, 8) and made.whole == (4, 4) and made.grid is None
  for example in range(3):
    scores = by_hand(PATCHES[example], WORDS[example], REAL[example])
    np.testing.assert_allclose(relatedness(PATCHES, WORDS, REAL)[example], scores, atol=1e-6)
    order = np.argsort(scores if hides == "related" else -scores)[:8]
    np.testing.assert_array_equal(made.places[example], np.sort(order))
    np.testing.assert_array_equal(made.tokens[example], PATCHES[example, np.sort(order)])
  padded = Encoded(None, np.where(REAL[..., None], WORDS, 9), REAL)
  np.testing.assert_array_equal(AttentiveMask(hides=hides).apply({}, IMAGE, padded, train=True).places, made.places)
  passed = AttentiveMask(hides=hides).apply({}, IMAGE, TEXT, train=False)
  np.testing.assert_array_equal(passed.tokens, PATCHES)


def test_of_equals_the_first_stay_and_no_gradient_goes_through_the_choice():
  np.testing.assert_array_equal(kept_places(jnp.zeros((1, 5)), 0.4), [[0, 1, 2]])
  np.testing.assert_array_equal(kept_places(jnp.zeros((1, 5)), 0.0), [np.arange(5)])

  def total(words):
    return AttentiveMask().apply({}, IMAGE, Encoded(None, words, REAL), train=True).tokens.sum()

  np.testing.assert_array_equal(jax.grad(total)(WORDS), 0)


def test_a_painter_reads_the_text_too():
  decoder = PatchDecoder(width=8, depth=1, heads=2)
  seen = AttentiveMask().apply({}, IMAGE, TEXT, train=True)
  variables = jax.jit(lambda seen, text: decoder.init(jax.random.key(0), seen, text, train=True))(seen, TEXT)
  paint = jax.jit(lambda seen, text: decoder.apply(variables, seen, text, train=True))
  made = paint(seen, TEXT)
  assert made.grid == (4, 4) and "cross_attn" in variables["params"]["blocks_0"]
  np.testing.assert_array_equal(made.places, seen.places)
  other = Encoded(None, np.where(REAL[..., None], WORDS, 9), REAL)
  np.testing.assert_allclose(paint(seen, other).tokens, made.tokens, atol=1e-6)
  assert np.abs(paint(seen, Encoded(None, WORDS + 1, REAL)).tokens - made.tokens).max() > 1e-3


@pytest.mark.parametrize(
  ("read", "message"),
  [
    ((IMAGE, TEXT, TEXT), r"an attentive_mask reads an image and a text, not 3 towers; name two"),
    ((TEXT, IMAGE), r"reads patches of an image first, and these tokens are in no grid"),
    ((IMAGE, Encoded(None, WORDS[..., :4], REAL)), r"vectors of 8 and of 4 numbers; make the towers equally wide"),
  ],
)
def test_what_it_cannot_compare(read, message):
  with pytest.raises(UserError, match=message):
    AttentiveMask().apply({}, *read, train=True)
  with pytest.raises(UserError, match=r"share: 1 is not a share of the patches"):
    AttentiveMask(share=1)
