"""Segmentation by names: the measure beside scikit-learn's, prototypes, look-alike patches, DenseCLIP's head."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import jaccard_score

from mmcontrast.evaluation.adaptation import segmentation
from mmcontrast.evaluation.embed import unit

DRAW = np.random.default_rng(0)


def units(*shape, seed=0):
  return unit(np.random.default_rng(seed).normal(size=(int(np.prod(shape[:-1])), shape[-1]))).reshape(shape)


def test_mean_iou_is_that_of_scikit_learn_over_the_classes_that_there_are():
  truth, guess = DRAW.integers(-1, 4, (3, 20, 20)), DRAW.integers(0, 6, (3, 20, 20))
  counts = sum(segmentation.confusion(*pair, 6) for pair in zip(truth, guess))  # image by image
  known = truth != segmentation.NOTHING
  expected = jaccard_score(truth[known], guess[known], labels=range(4), average="macro")
  found = segmentation.mean_iou(counts)
  assert found["miou"] == pytest.approx(expected) and found["classes"] == 4
  assert found["pixel_accuracy"] == pytest.approx(np.mean(truth[known] == guess[known]))


def test_a_patch_is_of_a_class_by_its_share_of_pixels_and_prototypes_are_weighed_means():
  maps = np.full((1, 4, 4), segmentation.NOTHING)
  maps[0, :2, :2], maps[0, :2, 2:], maps[0, 2, 0] = 0, 1, 1
  share = segmentation.shares(maps, (2, 2), 3)
  np.testing.assert_allclose(share[0], [[1, 0, 0], [0, 1, 0], [0, 0.25, 0], [0, 0, 0]])
  patches = units(1, 4, 5)
  rows, has = segmentation.prototypes(patches, share)
  np.testing.assert_allclose(rows[:2], unit(np.stack([patches[0, 0], patches[0, 1] + 0.25 * patches[0, 2]])), atol=1e-6)
  assert has.tolist() == [True, True, False]
  names = units(3, 5, seed=1)
  fused = segmentation.fused(names, rows, has, 0.25)
  np.testing.assert_allclose(fused[0], unit(0.25 * rows[:1] + 0.75 * names[:1])[0], atol=1e-6)
  np.testing.assert_allclose(fused[2], names[2], atol=1e-6)


def test_patches_that_look_alike_become_one_and_others_stay():
  one, other = units(2, 6)
  patches = unit(np.stack([one, one + 0.1 * other, other, other - 0.1 * one]))[None]
  mixed = segmentation.spliced(patches)[0]
  near = lambda x, y: float(x @ y)  # noqa: E731
  assert near(mixed[0], mixed[1]) > near(patches[0, 0], patches[0, 1])
  assert near(mixed[0], one) > 0.98 and near(mixed[2], other) > 0.98
  cosines = patches[0] @ patches[0].T
  weights = np.where(cosines >= cosines.mean(), np.exp(10 * (cosines - 1)), 0)
  np.testing.assert_allclose(mixed, unit(weights @ patches[0]), atol=1e-6)


def test_maps_become_as_large_as_the_image_and_only_some_classes_count():
  scores = np.zeros((2, 2, 3), np.float32)
  scores[0, 0, 0] = scores[0, 1, 1] = scores[1, :, 2] = 1
  guess = segmentation.guesses(scores, 8)
  assert guess[0, 0] == 0 and guess[0, 7] == 1 and (guess[6:] == 2).all()
  assert set(np.unique(segmentation.guesses(scores, 8, np.array([True, False, True])))) == {0, 2}


def test_denseclips_class_vectors_are_its_formula():
  head = segmentation.init_head(jax.random.key(0), 4)._replace(gamma=jnp.full(4, 0.5))
  classes, patches = units(3, 4), units(5, 4, seed=1)
  seen = np.concatenate([patches.mean(0, keepdims=True), patches])
  scores = (classes @ head.query) @ (seen @ np.asarray(head.key)).T / 2
  weights = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
  moved = classes + 0.5 * weights @ seen @ np.asarray(head.value) @ np.asarray(head.out)
  np.testing.assert_allclose(segmentation.in_context(head, classes, patches), unit(moved), atol=1e-5)
  start = segmentation.init_head(jax.random.key(0), 4)
  np.testing.assert_allclose(segmentation.in_context(start, classes, patches), classes, atol=1e-3)  # gamma 1e-4


def test_the_loss_looks_at_the_candidates_of_each_image_and_training_lowers_it():
  classes = np.stack([units(3, 4), units(3, 4, seed=2)])
  classes[1, 2] = 0  # an image of two
  patches, share = units(2, 6, 4, seed=3), np.zeros((2, 6, 3), np.float32)
  share[0, :, 1], share[1, :3, 0], share[1, 3:, 1] = 1, 1, 0.5
  head = segmentation.init_head(jax.random.key(0), 4)
  by_hand = []
  for number, count in ((0, 3), (1, 2)):
    moved = np.asarray(segmentation.in_context(head, classes[number, :count], patches[number]))
    scores = patches[number] @ moved.T / segmentation.TAU
    logs = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    by_hand.append(-(share[number, :, :count] * logs).sum() / share[number].sum())
  loss = segmentation.head_loss(head, *map(jnp.asarray, (classes, patches, share)))
  assert float(loss) == pytest.approx(np.mean(by_hand), rel=1e-4)
  trained = segmentation.train_head(
    classes, patches, share, jax.random.key(0), steps=60, batch_size=4, learning_rate=0.02
  )
  assert float(segmentation.head_loss(trained, *map(jnp.asarray, (classes, patches, share)))) < 0.7 * float(loss)
