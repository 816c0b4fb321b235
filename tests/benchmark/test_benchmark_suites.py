"""Other suites of `mmcontrast benchmark`: Karpathy, VOC 2007, ImageNet, captions among edits, several languages."""

import copy
import json
import types

import numpy as np
import pytest
from clip_benchmark_sets import said
from own_data import picture

import mmcontrast
from mmcontrast import benchmark as room
from mmcontrast.cli import main
from mmcontrast.data.images import decode
from mmcontrast.data.sources import open_source
from mmcontrast.evaluation.protocols import coco, sgd_probe
from mmcontrast.evaluation.protocols.word_order import edits_of
from mmcontrast.inference import imagenet_sets
from mmcontrast.inference.voc_sets import cropped


def karpathy(folder, images=6, cocoid=True, name="dataset_coco.json"):
  """Karpathy's file and its pictures: six captions of each image; half of them are of the test split."""
  rows = []
  for n in range(2 * images):
    (folder / "val").mkdir(parents=True, exist_ok=True)
    (folder / "val" / f"{n}.jpg").write_bytes(picture(n))
    rows.append(
      {
        "filepath": "val",
        "filename": f"{n}.jpg",
        "imgid": n,
        "split": ("train", "test")[n % 2],
        "sentids": [10 * n + k for k in range(6)],
        "sentences": [{"raw": "x" * (1 + (3 * n + k) % 11), "sentid": 10 * n + k} for k in range(6)],
        **({"cocoid": 1000 + n} if cocoid else {}),
      }
    )
  (folder / name).write_text(json.dumps({"images": rows, "dataset": "coco"}))
  return folder


def test_coco_with_five_captions_and_the_packages_positives(tmp_path, runs, models, monkeypatch):
  folder, _ = runs
  root = karpathy(tmp_path / "coco")
  ids = [1000 + n for n in range(1, 12, 2)]
  positives = {"i2t": {one: [10 * (one - 1000), 10 * (one - 1000) + 1] for one in ids[:4]},
               "t2i": {10 * (one - 1000): [one] for one in ids}}  # fmt: skip
  package = types.SimpleNamespace(cxc_gts=positives, eccv_gts=positives)
  monkeypatch.setattr(coco, "positives_of_package", lambda: package)
  table = mmcontrast.benchmark(folder / "x", f"karpathy:{root}")
  row = table["sets"]["coco_test"]
  assert row["protocol"]["protocol"] == "coco_karpathy" and row["protocol"]["captions_a_thing"] == "5"
  assert row["main_metric"] == "mean_recall@1" and "eccv_text_retrieval_map_at_r" in row["metrics"]
  assert not any(name.startswith("1k_") for name in row["metrics"])  # there are no 5,000
  source = open_source({"dataset": f"karpathy:{root}", "source": {"captions": 5}}, "test")
  assert [record["id"] for record in (source[n] for n in range(6))] == ids
  images = models["x"].encode_image([source[n]["images"]["image"] for n in range(6)])
  texts = models["x"].encode_text([text for n in range(6) for text in source.captions(n)])
  scores = texts @ images.T
  own = np.repeat(np.arange(6), 5)
  rank = 1 + ((scores >= scores[np.arange(30), own][:, None] - 1e-6) & (np.arange(6) != own[:, None])).sum(axis=1)
  assert row["metrics"]["image_retrieval_recall@1"] == pytest.approx(np.mean(rank <= 1))
  assert (folder / "x" / "benchmark-karpathy-coco.md").is_file()
  flickr = karpathy(tmp_path / "flickr", cocoid=False, name="dataset_flickr30k.json")
  (found,) = mmcontrast.benchmark(folder / "x", f"karpathy:{flickr}", split="train")["sets"].values()
  assert (
    found["protocol"]["protocol"] == "flickr30k_karpathy" and "eccv_text_retrieval_map_at_r" not in found["metrics"]
  )


def test_karpathys_file_is_checked(tmp_path, runs, capsys):
  folder, _ = runs
  words = ["--workdir", f"{folder}/x", "--suite", f"karpathy:{tmp_path}/coco"]
  (tmp_path / "coco").mkdir()
  assert "no dataset_coco.json or dataset_flickr30k.json there" in said(words, capsys)
  root = karpathy(tmp_path / "coco")
  assert "no such choice 'tset'; did you mean 'test'" in said([*words, "--split", "tset"], capsys)
  (root / "val" / "1.jpg").unlink()
  assert "1 of 6 images cannot be used, and the number of fewer is another number" in said(words, capsys)
  (root / "dataset_coco.json").write_text('{"images": [{"split": "test"}]}')
  assert "image 0 lacks 'split', 'filename' or 'sentences'" in said(words, capsys)


def test_voc07_by_both_forms(tmp_path, runs, capsys):
  folder, _ = runs
  root = tmp_path / "VOC2007"
  (root / "JPEGImages").mkdir(parents=True)
  (root / "ImageSets" / "Main").mkdir(parents=True)
  for split, first in (("trainval", 0), ("test", 20)):
    for number, name in enumerate(("cat", "dog")):
      marks = [("1", "-1", "0")[(n + number) % 3] for n in range(18)]
      lines = [f"{first + n:06d} {mark:>2}" for n, mark in enumerate(marks)]
      (root / "ImageSets" / "Main" / f"{name}_{split}.txt").write_text("\n".join(lines) + "\n")
    for n in range(18):
      (root / "JPEGImages" / f"{first + n:06d}.jpg").write_bytes(picture(first + n))
  table = mmcontrast.benchmark(folder / "x", f"voc07:{root}")
  assert list(table["sets"]) == ["voc07_virtex", "voc07_vissl"]
  for name, row in table["sets"].items():
    assert (
      0 < row["main"] <= 1 and row["metrics"]["map"] == row["main"] and row["protocol"]["split"] == "trainval, test"
    )
    assert row["protocol"]["asked_resize"] and f"{row['protocol']['protocol']}_{row['protocol']['version']}" == name
  source = open_source({"dataset": f"voc:{root}", "source": {}}, "trainval")
  assert source[0]["tags"].tolist() == [1, 0] and source.targets[:3].tolist() == [[1, 0], [0, -1], [-1, 1]]
  words = ["--workdir", f"{folder}/x", "--suite", f"voc07:{root}"]
  assert "the protocol trains on trainval and tests on test" in said([*words, "--split", "test"], capsys)
  (root / "ImageSets" / "Main" / "dog_test.txt").write_text("000020 yes\n")
  assert "dog_test.txt:1: '000020 yes'; expected an image and 1, -1 or 0" in said(words, capsys)
  assert "no ImageSets/Main with files such as" in said([*words[:3], f"voc07:{tmp_path}"], capsys)


@pytest.fixture
def classes(tmp_path):
  """Class folders as ImageNet has them: five to train on and two to test of each of three classes."""
  root = tmp_path / "imagenet"
  for split, count in (("train", 5), ("val", 2)):
    for kind in range(3):
      folder = root / split / f"n0000000{kind}"
      folder.mkdir(parents=True)
      for n in range(count):
        (folder / f"{n}.png").write_bytes(picture(100 * kind + n + 50 * (split == "val")))
  return root


def test_imagenet_by_every_protocol(classes, runs, models, monkeypatch, capsys):
  folder, _ = runs
  monkeypatch.setattr(imagenet_sets, "SCHEDULE", schedule := sgd_probe.Schedule(epochs=3, batch=4))
  (classes / "classnames.txt").write_text("cat\ngoat\ncat\n")
  (classes / "zeroshot_classification_templates.txt").write_text("a {c}.\n{c}\n")
  drawn = []
  real = imagenet_sets._random_views
  monkeypatch.setattr(imagenet_sets, "_random_views", lambda data, epoch: drawn.append(epoch) or real(data, epoch))
  table = mmcontrast.benchmark(folder / "x", f"imagenet:{classes}")["sets"]
  assert list(table) == ["zero_shot", "low_shot_1", "low_shot_10", "moco_lincls_cached", "moco_lincls"]
  assert drawn == [0, 1, 2]
  assert all(row["examples"] == 6 and 0 <= row["main"] <= 1 for row in table.values())
  assert table["low_shot_1"]["protocol"]["images"] == 3 and table["low_shot_1"]["protocol"]["share"] == 0.01
  assert table["moco_lincls"]["protocol"]["crop"] == 0.875 and table["zero_shot"]["protocol"]["templates"] == 2
  model = models["x"]
  images = [classes / "val" / f"n0000000{kind}" / f"{n}.png" for kind in range(3) for n in range(2)]
  guess = model.classify(images, ("cat", "goat", "cat"), ("a {}.", "{}"), 0.01).argmax(axis=1)
  assert table["zero_shot"]["main"] == pytest.approx(np.mean(guess == np.repeat(range(3), 2)))

  # The cached form by hand: the same probe on what the run gives of centre crops.
  def features(split, count):
    return model.embed("image_features", np.stack([
      cropped(decode((classes / split / f"n0000000{kind}" / f"{n}.png").read_bytes()), model.data)
      for kind in range(3) for n in range(count)
    ]))  # fmt: skip

  train = features("train", 5)
  probe = sgd_probe.fit(lambda epoch: train, np.repeat(range(3), 5), 3, schedule)
  right = probe.logits(features("val", 2)).argmax(axis=1) == np.repeat(range(3), 2)
  assert table["moco_lincls_cached"]["metrics"]["acc1"] == pytest.approx(right.mean())


def test_wrong_imagenets_are_one_line(classes, runs, capsys, monkeypatch):
  folder, _ = runs
  words = ["--workdir", f"{folder}/x", "--suite", f"imagenet:{classes}"]
  assert "train on train and test on val; leave it out" in said([*words, "--split", "val"], capsys)
  monkeypatch.setattr(imagenet_sets.importlib.util, "find_spec", lambda name: None)
  line = said([*words, "--sets", "zero_shot"], capsys)
  assert "no classnames.txt and zeroshot_classification_templates.txt for zero-shot" in line
  (classes / "classnames.txt").write_text("cat\n\n")
  assert "classnames.txt: line 2 is empty, and would be a name; remove it" in said(words, capsys)
  (classes / "classnames.txt").write_bytes(b"\xff\n")
  assert "classnames.txt is not UTF-8 text; write it anew" in said(words, capsys)
  (classes / "classnames.txt").write_text("cat\n")
  assert "has classnames.txt and no zeroshot_classification_templates.txt, or an empty one" in said(words, capsys)
  (classes / "zeroshot_classification_templates.txt").write_text("a photo\n")
  assert "zeroshot_classification_templates.txt: line 1 is 'a photo'; it must hold '{c}'" in said(words, capsys)
  (classes / "zeroshot_classification_templates.txt").write_text("{c}\n")
  assert "1 names for 3 classes" in said([*words, "--sets", "zero_shot"], capsys)
  for n in range(2):
    (classes / "val" / "n00000001" / f"{n}.png").unlink()
  assert "class 'n00000001' has no test pictures, in val" in said(words, capsys)


def test_edits_as_they_were_published(tmp_path, runs, models, capsys):
  folder, _ = runs
  for name in ("val2017", "images"):
    (tmp_path / "all" / name).mkdir(parents=True)
    for n in range(8):
      (tmp_path / "all" / name / f"{n}.jpg").write_bytes(picture(n))
  root = tmp_path / "all"
  rows = {
    str(n): {"filename": f"{n}.jpg", "caption": "x" * (n + 1), "negative_caption": "x" * (9 - n)} for n in range(8)
  }
  (root / "swap_obj.json").write_text(json.dumps(rows))
  (root / "add_att.json").write_text(json.dumps(rows))
  aro = []
  for n in range(8):
    box = {"bbox_x": 2, "bbox_y": 3, "bbox_w": 12, "bbox_h": 10, "relation_name": ("on", "under", "in", "in")[n % 4]}
    aro.append(box | {"image_path": f"{n}.jpg", "true_caption": "x" * (n + 1), "false_caption": "x" * (9 - n)})
  (root / "visual_genome_relation.json").write_text(json.dumps(aro))
  pairs = []
  for n in range(4):
    paths = {"image_0": f"{n}.jpg", "image_1": f"{n + 4}.jpg"}
    pairs.append(paths | {"caption_0": "x" * (n + 1), "caption_1": "x" * (8 - n)})
  (root / "examples.jsonl").write_text("".join(json.dumps(one) + "\n" for one in pairs))
  table = mmcontrast.benchmark(folder / "x", f"sugar_crepe:{root}")["sets"]
  assert list(table) == ["add_att", "swap_obj"]
  model = models["x"]
  image = lambda n: model.encode_image(root / "images" / f"{n}.jpg")[0]  # noqa: E731
  text = lambda length: model.encode_text("x" * length)[0]  # noqa: E731
  right = [image(n) @ text(n + 1) > image(n) @ text(9 - n) + 1e-6 for n in range(8)]
  assert table["swap_obj"]["main"] == pytest.approx(np.mean(right))
  (row,) = mmcontrast.benchmark(folder / "x", f"aro:{root}")["sets"].values()
  cut = lambda n: model.encode_image(decode((root / "images" / f"{n}.jpg").read_bytes())[3:13, 2:14])[0]  # noqa: E731
  right = np.array([cut(n) @ text(n + 1) > cut(n) @ text(9 - n) + 1e-6 for n in range(8)])
  assert row["main"] == pytest.approx(right.mean())
  assert row["metrics"]["macro"] == pytest.approx(
    np.mean([right[::4].mean(), right[1::4].mean(), right[[2, 3, 6, 7]].mean()])
  )
  (row,) = mmcontrast.benchmark(folder / "x", f"winoground:{root}")["sets"].values()
  assert set(row["metrics"]) == {"text", "image", "group"} and row["main_metric"] == "group" and row["examples"] == 4
  words = ["--workdir", f"{folder}/x", "--suite"]
  assert "none of examples.jsonl is there" in said([*words, f"winoground:{tmp_path}"], capsys)
  (root / "add_att.json").write_text('{"0": {"filename": "0.jpg"}}')
  assert "add_att.json: example 0 lacks 'caption'; expected the published form" in said(
    [*words, f"sugar_crepe:{root}"], capsys
  )
  assert "it has no splits; leave it out" in said([*words, f"aro:{root}", "--split", "test"], capsys)


def test_captions_among_the_same_words(tmp_path, runs, models, monkeypatch, capsys):
  """Of any source of captioned pictures. A model that is told a text's length alone loses all, by equal scores."""
  folder, _ = runs
  root = tmp_path / "pictures"
  root.mkdir()
  captions = {0: "a red dog near a cat", 1: "blue\n", 2: "the cat sat on a mat\nsmall cup", 3: ""}
  for n, text in captions.items():
    (root / f"{n}.png").write_bytes(picture(40 * n))
    (root / f"{n}.txt").write_text(text)
  words = ["--workdir", f"{folder}/x", "--suite", f"aro_order_plain:folder:{root}"]
  assert main(["benchmark", *words]) == 0
  err = capsys.readouterr().err
  assert "1 of 4 captions have no other order of their words and are left out" in err
  file = folder / "x" / "benchmark-aro_order_plain-pictures.json"
  (row,) = json.loads(file.read_text())["sets"].values()
  assert row["main_metric"] == "edits" and set(row["metrics"].values()) == {0} and len(row["metrics"]) == 5
  assert row["protocol"]["protocol"] == "aro_order_plain" and row["protocol"]["captions"] == 3
  # One that is told the last letter.
  reads = copy.copy(models["x"])
  reads.tokenizer = types.SimpleNamespace(
    encode=lambda texts, length: np.array([[1, 3 + ord(text[-1]) % 27, 2, 0, 0] for text in texts], np.int32)
  )
  monkeypatch.setattr(room, "load", lambda workdir, step, width=None: reads)
  reads.__dict__["digest"] = "another"
  (row,) = mmcontrast.benchmark(folder / "x", f"aro_order_plain:folder:{root}")["sets"].values()
  hits = []
  for n, number, text in ((0, 0, captions[0]), (2, 2, "the cat sat on a mat"), (2, 3, "small cup")):
    image = reads.encode_image(root / f"{n}.png")[0]
    true, *others = reads.encode_text([text, *(" ".join(one) for one in edits_of(text.split(), number).values())])
    hits.append([image @ true > image @ other + 1e-6 for other in others])
  assert row["main"] == pytest.approx(np.mean([all(of) for of in hits]))
  assert row["metrics"]["shuffle_within_trigrams"] == pytest.approx(np.mean([hits[0][2], hits[1][2], hits[2][1]]))
  for n in captions:
    (root / f"{n}.txt").write_text("red")
  assert "none of 4 captions of 4 pictures has words that can stand in another order" in said(words, capsys)
  assert f"--suite aro_order_plain:folder:{tmp_path}/none: " in said(
    [*words[:3], f"aro_order_plain:folder:{tmp_path}/none"], capsys
  )


def test_captions_in_several_languages(tmp_path, runs, models, capsys):
  folder, _ = runs
  root = tmp_path / "sets"
  (root / "images").mkdir(parents=True)
  for n in range(5):
    (root / "images" / f"{n}.jpg").write_bytes(picture(n))
  names = "".join(f"{n}.jpg\n" for n in range(5))
  lengths = {"en": (1, 2, 3, 4, 5), "de": (5, 4, 3, 2, 1), "cs": (2, 2, 2, 2, 2)}
  for language, of in lengths.items():
    (root / f"test_2016_flickr.{language}").write_text("".join("x" * n + "\n" for n in of))
    (root / f"test_1kcaptions_{language}.txt").write_text("".join("x" * n + "\n" for n in of))
  for name in ("test_2016_flickr.txt", "test_image_names.txt"):
    (root / name).write_text(names)
  words = ["--workdir", f"{folder}/x", "--suite", f"mrv:{root}"]
  assert main(["benchmark", *words, "--compare", f"{folder}/y"]) == 0
  table = json.loads((folder / "x" / "benchmark-mrv-sets.json").read_text())["sets"]
  assert list(table) == ["xtd10", "test_2016_flickr"]
  model, row = models["x"], table["test_2016_flickr"]
  images = np.stack([model.encode_image(root / "images" / f"{n}.jpg")[0] for n in range(5)])
  ranks = {}
  for language, of in lengths.items():
    scores = model.encode_text(["x" * n for n in of]) @ images.T
    ranks[language] = (scores >= np.diag(scores)[:, None] - 1e-6).sum(axis=1)
  expected = {f"recall@1_{one}": (of == 1).mean() for one, of in ranks.items()}
  expected |= {
    "recall@1": np.mean(list(expected.values())),
    "mean_rank_variance": np.var(list(ranks.values()), 0).mean(),
  }
  assert row["metrics"] == pytest.approx(expected) and table["xtd10"]["metrics"] == row["metrics"]
  assert row["main_metric"] == "recall@1" and row["protocol"]["languages"] == ["cs", "de", "en"]
  assert set(row["difference"]) == set(expected) and row["protocol"]["protocol"] == "mrv"
  text = (folder / "x" / "benchmark-mrv-sets.md").read_text()
  assert "Per cent, but for mean_rank_variance." in text
  assert f"| mean_rank_variance | {expected['mean_rank_variance']:.2f} |" in text
  capsys.readouterr()
  assert "--split test: its sets are tests; leave it out" in said([*words, "--split", "test"], capsys)
  (root / "test_2016_flickr.de").write_text("x\n\nx\nx\nx\n")
  assert "test_2016_flickr.de: line 2 is empty; a line an image" in said(words, capsys)
  (root / "test_2016_flickr.de").write_text("x\n")
  assert "test_2016_flickr.de: 1 captions of the 5 images of test_2016_flickr.txt" in said(words, capsys)
  for language in ("de", "cs"):
    (root / f"test_2016_flickr.{language}").unlink()
  assert "test_2016_flickr.txt: captions in en alone; ranks are compared" in said(words, capsys)
  assert "images: no test_image_names.txt and no names of images" in said([*words[:-1], f"mrv:{root}/images"], capsys)
