"""Regions as tokens, against LXMERT's; which are hidden, by whose seed; what is not in the view is not seen."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcontrast.encoders import Encoded
from mmcontrast.encoders.cross_modal import CrossModalTransformer
from mmcontrast.encoders.dropout import per_example
from mmcontrast.encoders.regions import HideRegions, RegionCells, RegionTransformer, SecondStream
from mmcontrast.errors import UserError
from mmcontrast.modalities.boxes import roi_align

GOLDEN = json.loads((pathlib.Path(__file__).parents[1] / "golden" / "addition.json").read_text())


def made_up(shape, shift):
  return np.sin(0.7 * (np.arange(np.prod(shape)) + 1) + shift).reshape(shape)


def parameters(listed, start=0.6):
  """torch's arrays, by name, as the module has them."""
  ours = {"visn_fc": "embed_features", "visn_layer_norm": "norm_features", "box_fc": "embed_boxes",
          "box_layer_norm": "norm_boxes"}  # fmt: skip
  made = {}
  for number, (name, shape) in enumerate(listed):
    x, (layer, part) = made_up(shape, start + number), name.split(".")
    norm = "norm" in layer
    x = x / np.sqrt(shape[1]) if len(shape) > 1 else 0.1 * x + (norm and part == "weight")
    kind = {"bias": "bias", "weight": "scale" if norm else "kernel"}[part]
    made.setdefault(ours[layer], {})[kind] = x.T
  return {"params": made}


def test_a_region_is_lxmerts_sum_of_what_and_where():
  case = GOLDEN["lxmert_regions"]
  with jax.enable_x64(True):
    regions = Encoded(None, made_up((2, 3, 5), 0.1), np.ones((2, 3), bool), boxes=np.array(case["inputs"]["boxes"]))
    module, weights = RegionTransformer(width=8, depth=0, heads=2), parameters(case["inputs"]["parameters"])
    found = jax.jit(lambda: module.apply(weights, regions, train=False).tokens)()
    np.testing.assert_allclose(found, case["expected"]["out"], atol=1e-6)


def test_cells_are_those_of_the_box_and_a_grid_where_no_box_is_known():
  draw = np.random.default_rng(0)
  image = Encoded(None, jnp.asarray(draw.normal(size=(2, 16, 3)), jnp.float32), grid=(4, 4))
  boxes = jnp.asarray([[[0.5, 0, 1, 0.5], [0, 0, 0, 0]], [[1, 0, 0, 1], [0.1, 0.2, 0.7, 0.9]]])
  pool = jax.jit(lambda one: RegionCells(cells=2, grid=2).apply({}, one, train=False))
  found = pool(image.replace(boxes=boxes))
  assert found.mask.tolist() == [[True, False], [True, True]]
  np.testing.assert_allclose(found.tokens[:, 0], roi_align(image.map, boxes[:, 0], (2, 2), 2).reshape(2, -1), rtol=1e-6)
  np.testing.assert_allclose(found.boxes[1, 0], [0, 0, 1, 1])  # where it is, mirrored or not
  np.testing.assert_allclose(found.pooled[0], found.tokens[0, 0], rtol=1e-6)
  known = pool(image.replace(boxes=jnp.asarray([[[0, 0.5, 0.5, 1]]] * 2)))
  without = pool(image)
  assert without.tokens.shape == (2, 4, 12) and bool(without.mask.all())
  np.testing.assert_allclose(without.tokens[:, 2], known.tokens[:, 0], atol=1e-6)


def test_hidden_regions_are_the_examples_own():
  features = jnp.asarray(np.random.default_rng(0).normal(size=(400, 4, 3)) + 9, jnp.float32)
  real = jnp.asarray(np.arange(4) < np.array([[4], [3]] * 200))
  seeds = jnp.arange(400, dtype=jnp.uint32) * 7

  @jax.jit
  def hide(features, real, seeds):
    with per_example(seeds):
      return HideRegions(0.5).apply({}, features, real, rngs={"dropout": jax.random.key(1)})

  shown, hidden = hide(features, real, seeds)
  assert not np.any(hidden & ~real) and abs(hidden.sum() / real.sum() - 0.5) < 0.07
  zeros, same = (shown == 0).all(-1), (shown == features).all(-1)
  other = (shown == jnp.roll(features, 1, 1)).all(-1)
  assert np.all(same[~np.asarray(hidden)])
  shares = [float((one & hidden).sum() / hidden.sum()) for one in (zeros, other, same)]
  np.testing.assert_allclose(shares, [0.8, 0.1, 0.1], atol=0.05)
  order = np.random.default_rng(1).permutation(400)
  np.testing.assert_array_equal(hide(features[order], real[order], seeds[order])[1], hidden[order])


def test_what_is_not_in_the_view_is_not_seen_and_both_streams_come_out():
  """A region that is not there changes nothing, of an image without any nothing is infinite."""
  draw = np.random.default_rng(0)
  text = Encoded(None, jnp.asarray(draw.normal(size=(2, 5, 8)), jnp.float32), np.arange(5) < np.array([[5], [3]]))
  features = jnp.asarray(draw.normal(size=(2, 3, 6)), jnp.float32)
  mask = np.array([[True, False, True], [False] * 3])
  boxes = jnp.asarray(draw.random((2, 3, 4)), jnp.float32)
  regions = Encoded(None, features, mask, boxes=boxes)
  own = RegionTransformer(width=8, depth=1, heads=2, hide=0.5)
  fusion = CrossModalTransformer(width=8, depth=1, heads=2, second=True)

  def both(variables, regions):
    seen = own.apply(variables[0], regions, train=False)
    made = fusion.apply(variables[1], text, seen, train=False)
    return made, SecondStream().apply({}, made, train=False)

  @jax.jit
  def init(key):
    seen, first = own.init_with_output(key, regions, train=False)
    return first, fusion.init(key, text, seen, train=False)

  variables = init(jax.random.key(0))
  both = jax.jit(both)
  made, second = both(variables, regions)
  assert second.tokens.shape == (2, 3, 8) and second.hidden.shape == (2, 3) and not np.any(second.hidden)
  moved = both(variables, regions.replace(tokens=jnp.where(mask[..., None], features, 9.0)))
  np.testing.assert_allclose(moved[0].tokens[0], made.tokens[0], atol=1e-5)
  np.testing.assert_allclose(moved[1].tokens[0, ::2], second.tokens[0, ::2], atol=1e-5)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves((made, second)))


def test_what_is_refused():
  one = Encoded(None, np.zeros((1, 2, 8), np.float32))
  for module, message in (
    (RegionCells(), r"reads the map of an image, and these tokens are in no grid"),
    (RegionTransformer(8, 0, 2), r"reads regions with their boxes; let it read one tower 'region_cells'"),
    (SecondStream(), r"let it read one alone, with second=True"),
  ):
    with pytest.raises(UserError, match=message):
      module.apply({}, one, train=False)
  with pytest.raises(UserError, match=r"cells: 0 is not a whole number of 1 or more"):
    RegionCells(cells=0)
  with pytest.raises(UserError, match=r"hide: 1 is not a share of the regions"):
    RegionTransformer(hide=1)
