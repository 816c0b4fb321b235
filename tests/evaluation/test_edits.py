"""A true caption among its edits, Winoground's scores, MRV: by hand; what is tied is lost."""

import numpy as np
import pytest

from mmcontrast.errors import UserError
from mmcontrast.evaluation.protocols import edits


def test_the_true_caption_is_above_all_edits_or_it_is_wrong():
  images = np.eye(3)[[0, 0, 0, 0]]
  captions = np.array([
    [[2, 1, 0], [1, 1, 0], [0, 1, 0]],  # right
    [[1, 1, 0], [2, 1, 0], [0, 1, 0]],  # an edit is above
    [[1, 1, 0], [1, 0, 1], [0, 1, 0]],  # an edit scores the same: lost
    [[1, 0, 0], [5, 0, 0], [0, 1, 0]],  # the same direction: lost
  ], float)  # fmt: skip
  assert edits.true_first(images, captions).tolist() == [True, False, False, False]
  found = edits.accuracies(np.array([True, False, True, True]), ["a", "a", "b", "b"])
  assert found == {"a": 0.5, "b": 1.0, "micro": 0.75, "macro": 0.75}
  assert edits.accuracies(np.array([True, False, True]), ["a", "b", "b"])["macro"] == 0.75
  with pytest.raises(UserError, match="a picture needs its caption and one edit"):
    edits.true_first(images, captions[:, :1])


def rows(scores):
  """Images and captions [1, 2, D] with these scores of image i and caption j, as far as unit rows have them."""
  images = np.eye(4)[:2]
  captions = np.zeros((2, 4))
  captions[:, :2] = np.asarray(scores).T
  captions[:, 3] = np.sqrt(1 - (captions[:, :2] ** 2).sum(axis=1))
  return images[None], captions[None]


@pytest.mark.parametrize(
  ("scores", "text", "image"),
  [
    ([[0.6, 0.2], [0.3, 0.5]], True, True),
    ([[0.6, 0.2], [0.7, 0.8]], True, False),  # caption 0 is above at picture 1
    ([[0.6, 0.7], [0.3, 0.7]], False, False),
    ([[0.3, 0.5], [0.2, 0.6]], False, True),
    ([[0.5, 0.5], [0.2, 0.6]], False, True),  # tied captions: lost
    ([[0.5, 0.5], [0.5, 0.5]], False, False),
  ],
)
def test_winoground(scores, text, image):
  found = edits.winoground(*rows(scores))
  assert (found["text"][0], found["image"][0], found["group"][0]) == (text, image, text and image)


def test_winoground_of_another_shape():
  with pytest.raises(UserError, match=r"images have the shape \(4, 3, 2\)"):
    edits.winoground(np.ones((4, 3, 2)), np.ones((4, 2, 2)))


def test_mean_rank_variance():
  ranks = {"en": np.array([1, 4, 2]), "de": np.array([1, 2, 2]), "fr": np.array([1, 3, 5])}
  np.testing.assert_allclose(edits.rank_variances(ranks), [0, 2 / 3, 2])
  with pytest.raises(UserError, match="ranks of 1 languages; give two or more"):
    edits.rank_variances({"en": np.ones(3)})


def test_ranks_of_images():
  images = np.eye(4)
  captions = np.array([[3, 1, 0, 0], [2, 1, 0, 0], [1, 2, 1, 3], [1, 1, 1, 1]], float)
  assert edits.image_ranks(images, captions).tolist() == [1, 2, 4, 4]  # of equal scores the true one is last
