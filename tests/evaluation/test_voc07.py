"""VOC07's two forms: the choice of the cost, what is difficult, and average precisions, each by another's code."""

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import LinearSVC

from mmcontrast.errors import UserError
from mmcontrast.evaluation.protocols import voc07
from mmcontrast.inference import voc_sets

# What VISSL's evaluate.py gives for scores of numpy's default_rng(0).
VISSL = {(5, 6): 0.5, (5, 1): 0.6666666666666666, (30, 6): 0.44, (30, 1): 0.5478260869565217,
         (200, 6): 0.3023645752792555, (200, 1): 0.32411702494700095}  # fmt: skip


def test_average_precision_of_vissl():
  draw = np.random.default_rng(0)
  for (count, digits), expected in VISSL.items():
    scores = draw.normal(size=count).round(digits)
    shown = draw.random(count) < 0.3
    shown[0] = True
    assert voc07.envelope_average_precision(shown, scores) == pytest.approx(expected, abs=1e-12)


@pytest.fixture(scope="module")
def made():
  draw = np.random.default_rng(3)
  centre = draw.normal(size=(2, 6))
  targets = [draw.choice([1, 0, 0, -1], (count, 2)) for count in (45, 40)]
  rows = [(of == 1) @ centre * 1.2 + draw.normal(size=(len(of), 6)) for of in targets]
  return rows[0], targets[0], rows[1], targets[1]


@pytest.mark.parametrize("form", voc07.FORMS)
def test_a_form_is_the_published_steps(form, made):
  """Step by step with scikit-learn, folds cut by hand."""
  found = voc07.measure(form, *made, ("cat", "dog"))
  train, train_targets, test, test_targets = made
  eps = {"voc07-virtex": 0, "voc07-vissl": 1e-5}[form]
  train, test = (rows / (np.linalg.norm(rows, axis=1)[:, None] + eps) for rows in (train, test))
  for number, name in enumerate(("cat", "dog")):
    labels = np.where(train_targets[:, number] == 1, 1, -1)  # the difficult are negatives
    best = (-1.0, None, None)
    for cost in voc07.FORMS[form].costs:
      svm = lambda cost=cost: LinearSVC(  # noqa: E731
        C=cost, class_weight={1: 2, -1: 1}, dual=True, max_iter=2000, random_state=0
      )
      of_folds = [
        average_precision_score(labels[out] == 1, svm().fit(train[fold], labels[fold]).decision_function(train[out]))
        for fold, out in StratifiedKFold(3).split(train, labels)
      ]
      if np.mean(of_folds) > best[0]:
        best = (np.mean(of_folds), cost, svm().fit(train, labels).decision_function(test))
    kept = test_targets[:, number] != -1  # and are not tested
    average = voc07.envelope_average_precision if form == "voc07-vissl" else average_precision_score
    assert found[f"cost_{name}"] == best[1]
    assert found[f"ap_{name}"] == pytest.approx(average(test_targets[kept, number] == 1, best[2][kept]), abs=1e-6)
  assert found["map"] == pytest.approx((found["ap_cat"] + found["ap_dog"]) / 2)


def test_the_two_forms_give_two_numbers(made):
  found = {form: voc07.measure(form, *made, ("cat", "dog"))["map"] for form in voc07.FORMS}
  assert found["voc07-virtex"] != pytest.approx(found["voc07-vissl"], abs=1e-4)


def test_classes_that_nobody_shows(made):
  train, train_targets, test, test_targets = made
  with pytest.raises(UserError, match="no test picture shows 'dog', so that it has no average precision"):
    voc07.measure("voc07-vissl", train, train_targets, test, np.minimum(test_targets, [1, 0]), ("cat", "dog"))
  few = train_targets.copy()
  few[2:, 0] = 0
  with pytest.raises(UserError, match=r"[012] training pictures show 'cat'; cross-validation needs 3"):
    voc07.measure("voc07-virtex", train, few, test, test_targets, ("cat", "dog"))


def test_the_two_resizes():
  """As torchvision's transforms do them with Pillow: Resize(256), CenterCrop(224); Resize(256), Resize((224, 224))."""
  draw = np.random.default_rng(0)
  pixels = draw.integers(0, 256, (40, 60, 3), np.uint8)
  image = Image.fromarray(pixels).resize((384, 256), Image.Resampling.BILINEAR)
  np.testing.assert_array_equal(
    voc_sets.VIEWS["voc07-virtex"](pixels, {"image_size": 224}), np.asarray(image.crop((80, 16, 304, 240)))
  )
  np.testing.assert_array_equal(
    voc_sets.VIEWS["voc07-vissl"](pixels, {"image_size": 224}),
    np.asarray(image.resize((224, 224), Image.Resampling.BILINEAR)),
  )
