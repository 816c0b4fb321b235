"""DenseCLIP's score maps and their decoder: by numpy, with gradients; that it learns what the towers tell."""

import jax
import numpy as np
import pytest
from scipy import special

from mmcontrast.evaluation.adaptation import score_maps as room
from mmcontrast.evaluation.adaptation.segmentation import NOTHING, TAU, Head
from mmcontrast.evaluation.embed import unit

COUNT, ROWS, COLUMNS, FEATURES, DIM, CLASSES = 3, 2, 3, 5, 4, 3


def drawn(seed=0):
  """Features, unit places and unit names, of noise."""
  draw = np.random.default_rng(seed)
  features = draw.normal(2, 3, (COUNT, ROWS, COLUMNS, FEATURES))
  patches = unit(draw.normal(size=(COUNT * ROWS * COLUMNS, DIM))).reshape(COUNT, ROWS, COLUMNS, DIM)
  return features, patches, unit(draw.normal(size=(CLASSES, DIM)))


@pytest.fixture(scope="module")
def trained():
  """Parameters and a context of noise, so that none of them is idle."""
  draw = np.random.default_rng(1)
  x = jax.ShapeDtypeStruct((1, ROWS, COLUMNS, FEATURES + CLASSES), np.float32)
  shapes = jax.eval_shape(room.Decoder(CLASSES).init, jax.random.key(0), x)["params"]
  decoder = jax.tree.map(lambda leaf: draw.normal(0, 0.3, leaf.shape), shapes)
  context = Head(*draw.normal(size=(4, DIM, DIM)), draw.normal(size=DIM))
  return room.Trained(decoder, context, draw.normal(size=FEATURES), 1 + draw.random(FEATURES))


def maps_by_hand(context, patches, names):
  """s of one image after another."""
  found = []
  for one in patches.astype(np.float64):
    flat, classes = one.reshape(-1, DIM), names.astype(np.float64)
    if context is not None:
      seen = np.concatenate([flat.mean(0)[None], flat])
      scores = (classes @ context.query) @ (seen @ context.key).T / np.sqrt(DIM)
      classes = classes + context.gamma * (special.softmax(scores, -1) @ (seen @ context.value) @ context.out)
      classes /= np.linalg.norm(classes, axis=-1, keepdims=True)
    found.append((flat @ classes.T).reshape(ROWS, COLUMNS, CLASSES))
  return np.stack(found)


def decoded_by_hand(parameters, x):
  """Logits of x [N, rows, columns, F + K]."""

  def block(x, name):
    kernel = parameters[name]["kernel"].reshape(3, 3, x.shape[-1], -1)
    bias, norm = parameters[name]["bias"], parameters[f"{name}_norm"]
    padded, rows, columns = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), x.shape[1], x.shape[2]
    x = sum(padded[:, i : i + rows, j : j + columns] @ kernel[i, j] for i in range(3) for j in range(3)) + bias
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * norm["scale"] + norm["bias"]
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

  def twice(x, axis):
    """Linear between the middles of cells, at the edges as the outermost."""
    x = np.moveaxis(x, axis, 0)
    near = np.concatenate([x[:1], x, x[-1:]])
    both = np.stack([0.75 * x + 0.25 * near[:-2], 0.75 * x + 0.25 * near[2:]], 1)
    return np.moveaxis(both.reshape(2 * len(x), *x.shape[1:]), 0, axis)

  x = block(twice(twice(block(x, "near"), 1), 2), "far")
  return x @ parameters["classes"]["kernel"] + parameters["classes"]["bias"]


def entropy_by_hand(logits, classes):
  logits, classes = logits.reshape(-1, logits.shape[-1]), classes.reshape(-1)
  rows = np.flatnonzero(classes != NOTHING)
  return -np.mean(special.log_softmax(logits[rows], -1)[np.arange(len(rows)), classes[rows]])


def truth(seed=2):
  draw = np.random.default_rng(seed)
  return (draw.integers(NOTHING, CLASSES, (COUNT, n * ROWS, n * COLUMNS)) for n in (room.FINER, 1))


@pytest.mark.parametrize("in_context", [False, True])
def test_maps_logits_and_loss_are_those_of_the_formulas(trained, in_context):
  trained = trained if in_context else trained._replace(context=None)
  features, patches, names = drawn()
  fine, coarse = truth()
  scores = maps_by_hand(trained.context, patches, names)
  logits = decoded_by_hand(trained.decoder, np.concatenate([(features - trained.mean) / trained.deviation, scores], -1))
  expected = entropy_by_hand(logits, fine) + 0.4 * entropy_by_hand(scores / 0.07, coarse)
  with jax.enable_x64(True):
    found = jax.jit(room.decoded)(trained, features, np.float64(patches), np.float64(names))
    np.testing.assert_allclose(found[0], logits, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found[1], scores, rtol=1e-6, atol=1e-6)
    value, slopes = jax.jit(jax.value_and_grad(room.loss))(
      trained, features, np.float64(patches), np.float64(names), fine, coarse
    )
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    if in_context:  # the vectors learn by the maps, too, by a difference quotient
      moved = [trained._replace(context=trained.context._replace(gamma=trained.context.gamma + step * np.eye(DIM)[1]))
               for step in (1e-5, -1e-5)]  # fmt: skip
      up, down = (0.4 * entropy_by_hand(s / TAU, coarse) + entropy_by_hand(decoded_by_hand(
        one.decoder, np.concatenate([(features - one.mean) / one.deviation, s], -1)), fine)
        for one in moved for s in [maps_by_hand(one.context, patches, names)])  # fmt: skip
      np.testing.assert_allclose(slopes.context.gamma[1], (up - down) / 2e-5, rtol=1e-5)


def test_a_cell_is_what_the_pixel_in_its_middle_is():
  maps = np.arange(2 * 6 * 8).reshape(2, 6, 8)
  assert room.at_middles(maps, (2, 2))[0].tolist() == [[maps[0, 1, 2], maps[0, 1, 6]], [maps[0, 4, 2], maps[0, 4, 6]]]
  np.testing.assert_array_equal(room.at_middles(maps, (6, 8)), maps)


def test_it_learns_what_the_tower_tells_and_names_do_not():
  """Two classes whose names are alike; the tower's features tell them apart. Pixels of nothing are not looked at."""
  draw = np.random.default_rng(3)
  maps = np.repeat(np.repeat(draw.integers(0, 2, (24, 2, 2)), 4, 1), 4, 2)
  shown = room.at_middles(maps, (2, 2))
  features = np.stack([shown, 1 - shown], -1) + draw.normal(0, 0.1, (24, 2, 2, 2))
  patches = unit(draw.normal(size=(96, 4))).reshape(24, 2, 2, 4)
  names = np.repeat(unit(draw.normal(size=(1, 4))), 2, 0)
  holes = maps.copy()
  holes[:12] = NOTHING
  features[:12] = draw.normal(size=(12, 2, 2, 2))
  trained = room.train(*map(np.float32, (features, patches, names)), holes, jax.random.key(0), steps=40)
  logits, scores = room.decoded(trained, *map(np.float32, (features, patches, names)))
  fine = room.at_middles(maps, (4, 4))
  assert np.ptp(scores, -1).max() < 1e-6 and np.mean(np.asarray(logits).argmax(-1)[12:] == fine[12:]) > 0.9
