"""COCO's retrieval: five captions, folds, and positives beyond the own ones, as eccv-caption counts them."""

import json
import pathlib
import types

import numpy as np
import pytest

from mmcontrast.errors import UserError
from mmcontrast.evaluation.protocols import coco

GOLDEN = json.loads((pathlib.Path(__file__).parents[1] / "golden" / "eccv_caption.json").read_text())


def test_folds_are_the_mean_of_each_alone(monkeypatch):
  monkeypatch.setattr(coco, "FOLD", 40)
  draw = np.random.default_rng(0)
  images, owner = draw.normal(size=(200, 3)), np.repeat(np.arange(200), 1)
  texts = images[owner] + 0.05 * draw.normal(size=(200, 3))
  found = coco.folds(images, texts, owner)
  first = coco.recalls(images[:40], texts[:40], owner[:40], "1k")
  rest = [coco.recalls(images[s : s + 40], texts[s : s + 40], owner[:40], "1k") for s in range(40, 200, 40)]
  name = "1k_text_retrieval_recall@1"
  assert found[name] == pytest.approx(np.mean([one[name] for one in (first, *rest)]))
  with pytest.raises(UserError, match="there are 7"):
    coco.folds(images[:7], texts[:7], owner[:7])


def test_a_hit_is_any_of_five_and_ties_are_lost():
  """A constant model has recall 0; an image is a hit by any of its captions, a caption by its image alone."""
  owner = np.repeat(np.arange(4), 5)
  images = np.eye(4)
  texts = np.full((20, 4), 0.5)
  texts[4::5] = images  # the fifth of each is right
  assert coco.recalls(images, texts, owner, "5k") == {
    "5k_image_retrieval_recall@1": 4 / 20, "5k_image_retrieval_recall@5": 1, "5k_image_retrieval_recall@10": 1,
    "5k_text_retrieval_recall@1": 1, "5k_text_retrieval_recall@5": 1, "5k_text_retrieval_recall@10": 1,
  }  # fmt: skip
  flat = coco.recalls(np.ones((30, 2)), np.ones((150, 2)), np.repeat(np.arange(30), 5), "5k")
  assert set(flat.values()) == {0.0}


def test_positives_of_others_as_the_package_counts_them():
  """Recorded from eccv-caption's own functions: some positives are not in the gallery, some queries have none."""
  given = {key: np.asarray(GOLDEN[key]) for key in ("images", "texts", "image_ids", "text_ids")}
  table = lambda name: {way: {int(k): v for k, v in of.items()} for way, of in GOLDEN[name].items()}  # noqa: E731
  package = types.SimpleNamespace(cxc_gts=table("cxc"), eccv_gts=table("eccv"))
  found = coco.cxc_and_eccv(given["images"], given["image_ids"], given["texts"], given["text_ids"], package)
  assert found == pytest.approx(GOLDEN["expected"], abs=1e-6)
  with pytest.raises(UserError, match="none of the queries is among those that have positives; are these COCO's own"):
    coco.cxc_and_eccv(given["images"], given["image_ids"] + 9999, given["texts"], given["text_ids"], package)


def test_without_the_package_a_line_says_how_to_get_it(monkeypatch):
  monkeypatch.setitem(__import__("sys").modules, "eccv_caption", None)
  with pytest.raises(UserError, match=r"pip install 'mmcontrast\[protocols\]'"):
    coco.positives_of_package()
