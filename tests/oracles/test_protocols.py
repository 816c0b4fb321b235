"""Other packages' own evaluation on the same embeddings: our numbers are theirs, to 1e-6.

CLIP_benchmark is installed without what it asks for: `pip install --no-deps clip-benchmark==1.6.2 webdataset==1.0.2`.
"""

import pathlib
import sys

import numpy as np
import pytest
import torch

pytest.importorskip("clip_benchmark")

TESTS = pathlib.Path(__file__).parents[1]
sys.path += [str(TESTS), str(TESTS / "golden"), str(TESTS / "evaluation")]
import make_clip_benchmark as theirs  # noqa: E402
from clip_benchmark_sets import write_suite  # noqa: E402
from test_clip_benchmark import ours  # noqa: E402
from tiny import tiny_inference  # noqa: E402

from mmcontrast import benchmark as room  # noqa: E402

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


class Looked:
  """Our model as CLIP_benchmark asks one: pictures come as our reader prepares them, texts as they are written."""

  def __init__(self, model):
    self.model = model

  def encode_image(self, pixels):
    return torch.tensor(self.model.embed("image", pixels.numpy()))

  def encode_text(self, texts):
    return torch.tensor(self.model.embed("text", texts.texts))


class Texts:
  def __init__(self, texts):
    self.texts = list(texts)

  def to(self, device):
    return self


def test_clip_benchmark_reads_the_same_folders_and_gives_the_same_numbers(tmp_path, monkeypatch):
  """The package's own reader and evaluators against `mmcontrast benchmark`, on the same tiny model."""
  pytest.importorskip("webdataset")
  from clip_benchmark.datasets.builder import build_wds_dataset, image_captions_collate_fn
  from clip_benchmark.metrics import image_caption_selection, zeroshot_classification, zeroshot_retrieval

  suite = write_suite(tmp_path / "sets", pictures=40)
  model = tiny_inference(step=1)
  monkeypatch.setattr(room, "load", lambda workdir, step, width=None: model)
  (tmp_path / "run").mkdir()
  table = room.benchmark(tmp_path / "run", f"clip_benchmark:{suite}")["sets"]

  def transform(image):
    return torch.tensor(np.asarray(model.view(image)))

  def loader(name, collate=None):
    data = build_wds_dataset(name, transform, "test", str(suite / name))
    found = torch.utils.data.DataLoader(data.batched(8) if collate is None else data, batch_size=None if collate is None
                                        else 8, collate_fn=collate)  # fmt: skip
    return found, data

  looked = Looked(model)
  for name in ("wds/vtab/caltech101", "voc2007_multilabel"):
    batches, data = loader(name)
    batches = [(torch.as_tensor(np.stack([np.asarray(x) for x in images])), torch.as_tensor(np.asarray(labels)))
               for images, labels in batches]  # fmt: skip
    wrapped = type("Loader", (list,), {})(batches)
    wrapped.dataset = data
    expected = zeroshot_classification.evaluate(looked, wrapped, Texts, data.classes, data.templates, "cpu", amp=False)
    found = table[name]["metrics"]
    assert {k: found[k] for k in expected} == pytest.approx(expected, abs=1e-6) and expected
  name = "wds_retrieval-flickr30k_test"
  batches, _ = loader(name, image_captions_collate_fn)
  expected = zeroshot_retrieval.evaluate(looked, batches, Texts, "cpu", amp=False, recall_k_list=[1, 5, 10])
  found = table[name]["metrics"]
  assert {k: found[k] for k in expected} == pytest.approx(expected, abs=1e-6)
  name = "sugar_crepe/swap_obj"
  batches, _ = loader(name, image_captions_collate_fn)
  expected = image_caption_selection.evaluate(looked, batches, Texts, "cpu", amp=False)
  found = table[name]["metrics"]
  assert {k: found[k] for k in expected} == pytest.approx(expected, abs=1e-6)


def test_eccv_caption_on_random_embeddings():
  """All of its 5,000 images and 25,000 captions, and its own folds of 1,000, of which the ids are looked up."""
  package = pytest.importorskip("eccv_caption")
  from eccv_caption._metrics import compute_coco1k_r_at_k, compute_eccv_metrics, compute_r_at_k

  from mmcontrast.evaluation.protocols import coco

  known = package.Metrics()
  of_text = {int(one): known.coco_gts["t2i"][int(one)][0] for one in known.coco_ids}
  text_ids, image_ids = list(of_text), list(dict.fromkeys(of_text.values()))
  place = {one: number for number, one in enumerate(image_ids)}
  owner = np.array([place[of_text[one]] for one in text_ids])
  draw = np.random.default_rng(0)
  images = draw.normal(size=(5000, 24)).astype(np.float32)
  texts = (images[owner] + 1.5 * draw.normal(size=(25000, 24))).astype(np.float32)
  images, texts = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (images, texts))
  found = coco.cxc_and_eccv(images, image_ids, texts, text_ids, known)
  found |= coco.recalls(images, texts, owner, "5k") | coco.folds(images, texts, owner)

  def lists(rows, ids, columns, column_ids, wanted, most):
    column_ids, out = np.asarray(column_ids), {}
    for number, one in enumerate(ids):
      if one in wanted:
        scores = columns @ rows[number]
        best = np.argpartition(-scores, most)[:most]
        out[one] = column_ids[best[np.argsort(-scores[best])]].tolist()
    return out

  i2t = lists(images, image_ids, texts, text_ids, set(image_ids), 60)
  t2i = lists(texts, text_ids, images, image_ids, set(text_ids), 60)
  for way, given in (("text", ("i2t", i2t)), ("image", ("t2i", t2i))):
    key, retrieved = given
    for k in (1, 5, 10):
      assert found[f"cxc_{way}_retrieval_recall@{k}"] == pytest.approx(
        compute_r_at_k(retrieved, known.cxc_gts[key], k), abs=1e-6
      )
      assert found[f"5k_{way}_retrieval_recall@{k}"] == pytest.approx(
        compute_r_at_k(retrieved, known.coco_gts[key], k), abs=1e-6
      )
    theirs_ = compute_eccv_metrics(retrieved, known.eccv_gts[key])
    for name, metric in (("recall@1", "eccv_r1"), ("r_precision", "eccv_rprecision"), ("map_at_r", "eccv_map_at_r")):
      assert found[f"eccv_{way}_retrieval_{name}"] == pytest.approx(theirs_[metric], abs=1e-6)
  fold = []
  for start in range(0, 5000, 1000):
    ids = set(image_ids[start : start + 1000])
    own = [number for number, one in enumerate(text_ids) if of_text[one] in ids]
    part = slice(start, start + 1000)
    retrieved = lists(texts[own], [text_ids[n] for n in own], images[part], image_ids[part], set(text_ids), 60)
    wanted = {text_ids[n]: known.coco_gts["t2i"][text_ids[n]] for n in own}
    fold.append(compute_coco1k_r_at_k(retrieved, wanted, ids, 5))
  assert found["1k_image_retrieval_recall@5"] == pytest.approx(np.mean(fold), abs=1e-6)


def test_mocos_classifier_is_torchs_sgd():
  from mmcontrast.evaluation.protocols.sgd_probe import Classifier, Schedule, fit

  draw = np.random.default_rng(0)
  labels, rows = draw.integers(0, 7, 50), draw.normal(size=(50, 9)).astype(np.float32)
  start = Classifier(draw.normal(0, 0.01, (9, 7)).astype(np.float32), np.zeros(7, np.float32))
  schedule = Schedule(epochs=4, milestones=(2, 3), rate=0.3, batch=16)
  found = fit(lambda epoch: rows, labels, 7, schedule, seed=3, start=start)
  linear = torch.nn.Linear(9, 7)
  linear.weight.data, linear.bias.data = torch.tensor(start.weight.T.copy()), torch.tensor(start.bias)
  optimizer = torch.optim.SGD(linear.parameters(), 0.3, momentum=0.9)
  order = np.random.default_rng(3)
  for epoch in range(4):
    for group in optimizer.param_groups:
      group["lr"] = 0.3 * 0.1 ** sum(epoch >= one for one in (2, 3))
    places = order.permutation(50)
    for first in range(0, 50, 16):
      at = places[first : first + 16]
      loss = torch.nn.functional.cross_entropy(linear(torch.tensor(rows[at])), torch.tensor(labels[at]))
      optimizer.zero_grad()
      loss.backward()
      optimizer.step()
  np.testing.assert_allclose(found.weight, linear.weight.detach().numpy().T, atol=1e-6)
  np.testing.assert_allclose(found.bias, linear.bias.detach().numpy(), atol=1e-6)
