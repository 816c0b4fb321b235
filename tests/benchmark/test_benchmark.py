"""The sets of a folder in CLIP_benchmark's layout, measured, resumed, compared; what is wrong with them is one line."""

import csv
import json

import numpy as np
import pytest
from clip_benchmark_sets import NAMES, said, write_set
from own_data import picture
from tiny import tiny_inference

import mmcontrast
from mmcontrast import benchmark as room
from mmcontrast.cli import main
from mmcontrast.data.sources import BadRecord, open_source
from mmcontrast.data.sources.clip_benchmark import find_sets
from mmcontrast.data.sources.edited_captions import sugar_crepe, winoground
from mmcontrast.errors import UserError
from mmcontrast.evaluation import bootstrap
from mmcontrast.evaluation.protocols import datacomp
from mmcontrast.evaluation.protocols.outcomes import metrics
from mmcontrast.inference import clip_benchmark_sets

CALTECH, FLICKR, VOC = "wds/vtab/caltech101", "wds_retrieval-flickr30k_test", "voc2007_multilabel"


def test_one_table_resumed_and_compared(suite, runs, capsys, monkeypatch):
  folder, _ = runs
  words = ["benchmark", "--workdir", f"{folder}/x", "--suite", f"clip_benchmark:{suite}"]
  assert main(words) == 0
  out, err = capsys.readouterr()
  assert out.split() == [f"{folder}/x/benchmark-sets.{ending}" for ending in ("json", "csv", "md")]
  assert f"{CALTECH}: 1 of 6 classes have no picture ('crane'); mean_per_class_recall is over the others" in err
  first = (folder / "x" / "benchmark-sets.json").read_text()
  table = json.loads(first)
  assert list(table["sets"]) == sorted([CALTECH, FLICKR, VOC, "sugar_crepe/swap_obj"])
  caltech, flickr = table["sets"][CALTECH], table["sets"][FLICKR]
  assert caltech["datacomp"] == "vtab/caltech101" and caltech["main"] == caltech["metrics"]["mean_per_class_recall"]
  found = flickr["metrics"]
  mean = (found["image_retrieval_recall@1"] + found["text_retrieval_recall@1"]) / 2
  assert flickr["main"] == found["mean_recall@1"] == pytest.approx(mean)
  assert flickr["protocol"]["captions_a_thing"] == "1 to 3" and caltech["protocol"]["templates"] == 2
  assert table["sets"]["sugar_crepe/swap_obj"]["main_metric"] == "edits"
  for row in table["sets"].values():
    assert {"protocol", "version", "ties", "resize", "interpolation", "crop", "split"} <= set(row["protocol"])
    assert ("prompts" in row["protocol"]) == (row["kind"] != "retrieval")
  assert table["average"]["main"] == pytest.approx(np.mean([row["main"] for row in table["sets"].values()]))
  assert table["datacomp"]["sets"] == 2 and "imagenet1k" in table["datacomp"]["missing"]
  page = (folder / "x" / "benchmark-sets.md").read_text()
  assert (
    "It is no DataComp average: 2 of its 38 sets; missing: " in page and "Mean of the main metric over 4 sets" in page
  )

  # Again: nothing is measured; without one file, one set is.
  measured = []
  real = clip_benchmark_sets.measure
  watched = lambda model, name, *rest: measured.append(name) or real(model, name, *rest)  # noqa: E731
  monkeypatch.setattr(clip_benchmark_sets, "measure", watched)
  assert main(words) == 0 and measured == []
  assert (folder / "x" / "benchmark-sets.json").read_text() == first
  (folder / "x" / "benchmark-sets" / f"{VOC}.npz").unlink()
  assert main([*words, "--compare", f"{folder}/y"]) == 0
  assert measured == [VOC, *table["sets"]]
  table = json.loads((folder / "x" / "benchmark-sets.json").read_text())
  for row in table["sets"].values():
    for name, (difference, low, high) in row["difference"].items():
      assert difference == pytest.approx(row["metrics"][name] - row["compared"]["metrics"][name], abs=1e-12)
      assert low <= high and low >= -1 and high <= 1
  rows = list(csv.DictReader((folder / "x" / "benchmark-sets.csv").open()))
  assert {"set", "metric", "value", "main", "examples", "compared", "difference", "low", "high"} == set(rows[0])
  assert sum(int(row["main"]) for row in rows) == 4
  # Other weights under the same name: all is measured anew.
  del measured[:]
  monkeypatch.setattr(room, "load", lambda workdir, step, width=None: tiny_inference(step=4, seed=9))
  assert mmcontrast.benchmark(folder / "x", f"clip_benchmark:{suite}", sets=[FLICKR])["runs"][0]["step"] == 4
  assert measured == [FLICKR]
  page = (folder / "x" / "benchmark-sets.md").read_text()
  assert f"Not asked for (--sets), and not in it: sugar_crepe/swap_obj, {VOC}, {CALTECH}." in page


def test_numbers_by_hand(suite, models, runs):
  """Of pictures and captions read by another reader."""
  folder, _ = runs
  table = mmcontrast.benchmark(folder / "x", f"clip_benchmark:{suite}", sets=[FLICKR, CALTECH])
  model = models["x"]
  source = open_source({"dataset": f"clip_benchmark:{suite}/{FLICKR}", "source": {}}, "test")
  records = [source[n] for n in range(len(source))]
  images = model.encode_image([record["images"]["image"] for record in records])
  texts = model.encode_text([text for record in records for text in record["captions"]["caption"]])
  owner = np.repeat(np.arange(len(records)), [len(record["captions"]["caption"]) for record in records])
  best = (texts @ images.T).argmax(axis=1)
  assert table["sets"][FLICKR]["metrics"]["image_retrieval_recall@1"] == pytest.approx((best == owner).mean())
  source = open_source({"dataset": f"clip_benchmark:{suite}/{CALTECH}", "source": {}}, "all")
  assert source.info.label_names["class"][-2:] == ("crane (4)", "crane (5)")
  records = [source[n] for n in range(len(source))]
  guess = model.classify([record["images"]["image"] for record in records], NAMES, ("a {}", "{}!"), 0.01).argmax(axis=1)
  found = table["sets"][CALTECH]["metrics"]
  assert found["acc1"] == pytest.approx(np.mean([r["labels"]["class"] == g for r, g in zip(records, guess)]))


def test_the_bootstrap_is_that_of_the_mean_of_differences():
  draw = np.random.default_rng(0)
  one, other = draw.random(400) < 0.7, draw.random(400) < 0.5
  found = bootstrap.paired(lambda counts: (one @ counts / 400, other @ counts / 400), 400, draws=2000)
  assert found.difference == pytest.approx(one.mean() - other.mean())
  error = np.std(one.astype(float) - other) / 20
  assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.1)
  same = bootstrap.paired(lambda counts: (one @ counts / 400,) * 2, 400, draws=50)
  assert same == (0, 0, 0)  # paired: what is equal differs in no draw


def test_metrics_of_drawn_examples_are_those_of_their_copies():
  from sklearn.metrics import balanced_accuracy_score, f1_score

  draw = np.random.default_rng(1)
  label, pred, counts = draw.integers(0, 5, 60), draw.integers(0, 6, 60), draw.integers(0, 4, 60)
  copies = np.repeat(np.arange(60), counts)
  found = metrics({"label": label, "pred": pred}, counts)
  assert found["mean_per_class_recall"] == pytest.approx(balanced_accuracy_score(label[copies], pred[copies]))
  expected = f1_score(label[copies], pred[copies], average="macro", labels=np.unique(label[copies]))
  assert found["F1-macro_all"] == pytest.approx(expected)
  scores, targets = draw.normal(size=(60, 3)), draw.random((60, 3)) < 0.3
  found = metrics({"scores": scores, "targets": targets}, counts)
  assert found == pytest.approx(metrics({"scores": scores[copies], "targets": targets[copies]}))


def test_datacomps_names_and_metrics():
  assert len(datacomp.METRICS) == 38
  assert datacomp.called("wds_vtab-caltech101_test") == datacomp.called("caltech101") == "vtab/caltech101"
  assert datacomp.metric("wds_imagenet-a_test") == "acc1" and datacomp.metric("mine") == ""
  assert datacomp.metric("wds_wilds-fmow_test") == "acc_worst_region"


def test_a_metric_that_needs_more_is_left_out_and_said(tmp_path, runs, capsys):
  folder, _ = runs
  samples = [{"cls": str(n % 2).encode()} for n in range(8)]
  write_set(tmp_path / "mixed" / "wds_wilds-fmow_test", samples, classes=("a", "b"), shards=1)
  table = mmcontrast.benchmark(folder / "x", f"clip_benchmark:{tmp_path / 'mixed'}")
  assert table["sets"]["wds_wilds-fmow_test"]["main"] is None and table["average"]["main"] is None
  assert "the metric that counts is acc_worst_region, which its files say too little for" in capsys.readouterr().err
  assert "Not in it, since their main metric" in (folder / "x" / "benchmark-mixed.md").read_text()


def test_wrong_suites_are_one_line(tmp_path, runs, suite, capsys):
  folder, asked = runs
  words = ["--workdir", f"{folder}/x", "--suite"]
  one = write_set(tmp_path / "bad" / "set", [{"cls": b"0"}], classes=("a",), shards=1)
  wrong = f"clip_benchmark:{tmp_path / 'bad'}"
  (one / "classnames.txt").rename(one / "names.txt")
  assert "no classnames.txt, which a set of classes needs" in said([*words, wrong], capsys)
  (one / "classnames.txt").write_text("a\n\nb\n")
  assert "classnames.txt: line 2 is empty" in said([*words, wrong], capsys)
  (one / "classnames.txt").write_text("a\n")
  (one / "zeroshot_classification_templates.txt").write_text("a picture\n")
  assert "line 1 is 'a picture'; it must hold '{c}'" in said([*words, wrong], capsys)
  (one / "zeroshot_classification_templates.txt").write_text("a {c}\n")
  (one / "test" / "nshards.txt").write_text("2\n")
  assert "test/1.tar: no such file, of the 2 shards" in said([*words, wrong], capsys)
  (one / "test" / "nshards.txt").write_text("many\n")
  assert "'many' is no number of shards" in said([*words, wrong], capsys)
  assert "--split: no such choice 'tset'; did you mean 'test'?" in said([*words, wrong, "--split", "tset"], capsys)
  (one / "test" / "nshards.txt").write_text("1\n")
  (one / "dataset_type.txt").write_text("retreival\n")
  assert "dataset_type.txt: no such choice 'retreival'; did you mean 'retrieval'?" in said([*words, wrong], capsys)
  (one / "dataset_type.txt").unlink()
  assert "no set there, no folder that has test/nshards.txt" in said([*words, f"clip_benchmark:{tmp_path}/no"], capsys)
  line = said([*words, f"clip_benchmark:{suite}", "--sets", ","], capsys)
  assert "--sets ',': names no set; leave it out for all" in line
  line = said([*words, f"clip_benchmark:{suite}", "--compare", f"{folder}/x/"], capsys)
  assert "is the run of --workdir itself; name another one" in line
  assert "names no folder; give clip_benchmark:FOLDER" in said([*words, "clip_benchmark"], capsys)
  assert "names no source; give aro_order_plain:SOURCE, such as" in said([*words, "aro_order_plain"], capsys)
  assert "did you mean 'clip_benchmark'" in said([*words, f"clip_bench:{suite}"], capsys)
  assert "no such choice 'flickr'" in said([*words, f"clip_benchmark:{suite}", "--sets", "flickr"], capsys)
  assert asked == []  # nothing was loaded


def test_a_set_that_is_not_whole_is_one_line_before_anything_is_kept(tmp_path, runs, models, monkeypatch, capsys):
  folder, _ = runs
  words = ["--workdir", f"{folder}/x", "--suite"]
  one = write_set(tmp_path / "bad" / "set", [{"cls": b"0"}, {"cls": b"1"}] * 3, classes=("a", "a"), shards=1)
  wrong = f"clip_benchmark:{tmp_path / 'bad'}"
  shard = (one / "test" / "0.tar").read_bytes()
  (one / "test" / "0.tar").write_bytes(shard[: len(shard) // 2])
  assert "test/0.tar: is cut off or damaged, and what follows its last whole sample is lost" in said(
    [*words, wrong], capsys
  )
  (one / "test" / "0.tar").write_bytes(shard)
  (one / "classnames.txt").write_text("a\n")
  line = said([*words, wrong], capsys)
  assert "3 of 6 pictures are of a class that classnames.txt has no line for: record 1: " in line
  (one / "classnames.txt").write_text("a\na\n")
  (one / "zeroshot_classification_templates.txt").unlink()
  assert f"zeroshot_classification_templates.txt of {one} is not there or empty; write one" in said(
    [*words, wrong], capsys
  )
  (one / "zeroshot_classification_templates.txt").write_text("a {c}\n")

  def load(workdir, step, width=None):
    if workdir.name == "none":
      raise UserError(f"{workdir}: no checkpoints there")
    return models[workdir.name]

  monkeypatch.setattr(room, "load", load)
  line = said([*words, wrong, "--compare", f"{folder}/none"], capsys)
  assert line == f"error: --compare {folder}/none: no checkpoints there"
  assert not list((folder / "x").glob("**/*.*"))
  mmcontrast.benchmark(folder / "x", wrong)
  assert "classnames.txt: lines 1 and 2 are both 'a': such classes have equal scores" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("row", "message"),
  [
    (7, "example 0: 7 is no table; expected the published form, with 'bbox_x'"),
    ({"bbox_w": None}, "example 0: 'bbox_w' is None, and should be a number"),
    ({"bbox_x": "left"}, "example 0: 'bbox_x' is 'left', and should be a number"),
    ({"bbox_h": 0}, "example 0: its box is 5 x 0 pixels; give both 1 or more"),
    ({"true_caption": 3}, "example 0: 'true_caption' is 3, and should be a text"),
    ({"false_caption": " "}, "example 0: 'false_caption' is ' ', and should be a text"),
    ({"image_path": ["a.jpg"]}, "example 0: 'image_path' is ['a.jpg'], and should be a text"),
    ({"bbox_x": 99}, "record 0: 0.jpg: the box (99, 0, 104, 5) lies beside the picture of 24 x 18 pixels"),
  ],
)
def test_wrong_edits_are_one_line(row, message, tmp_path, runs, models, monkeypatch, capsys):
  folder, _ = runs
  root = tmp_path / "aro"
  (root / "images").mkdir(parents=True)
  (root / "images" / "0.jpg").write_bytes(picture(0))
  good = {"image_path": "0.jpg", **dict.fromkeys(("bbox_x", "bbox_y"), 0), **dict.fromkeys(("bbox_w", "bbox_h"), 5)}
  good |= {"true_caption": "a b", "false_caption": "b a", "relation_name": "on"}
  (root / "visual_genome_relation.json").write_text(json.dumps([good | row if isinstance(row, dict) else row]))
  assert message in said(["--workdir", f"{folder}/x", "--suite", f"aro:{root}"], capsys)


def test_files_of_edits_that_are_none(tmp_path, capsys):
  (tmp_path / "examples.jsonl").write_text(
    '{"image_0": "a", "image_1": "b", "caption_0": "x", "caption_1": "x"}\n\n{"im'
  )
  with pytest.raises(UserError, match=r"examples.jsonl: line 3: is not JSON"):
    winoground(f"{tmp_path}")
  (tmp_path / "examples.jsonl").write_bytes(b"\xff\xfe")
  with pytest.raises(UserError, match=r"examples.jsonl: is not UTF-8 text"):
    winoground(f"{tmp_path}")
  (tmp_path / "examples.jsonl").write_text('{"image_0": "a", "image_1": "b", "caption_0": "x", "caption_1": "x"}\n')
  winoground(f"{tmp_path}")
  assert "1 of 1 examples have one caption twice, such as the example 0" in capsys.readouterr().err
  (tmp_path / "swap_obj.json").write_text('"text"')
  with pytest.raises(UserError, match=r"swap_obj.json: holds 'text', no list or table of examples"):
    sugar_crepe(f"{tmp_path}")


def test_a_run_without_texts_is_one_line(runs, suite, capsys, models, monkeypatch):
  folder, _ = runs
  monkeypatch.setattr(models["images"], "heads", {"image": "pictures"})
  line = said(["--workdir", f"{folder}/images", "--suite", f"clip_benchmark:{suite}"], capsys)
  assert "images: has no text tower with a head in the joint space (config.evaluation.text)" in line
  assert not list((folder / "images").iterdir())


def test_records_that_are_none(tmp_path):
  samples = [{"cls": b"0"}, {"cls": b"7"}, {"txt": b"x"}, {"cls": b"x"}]
  write_set(tmp_path / "set", samples, classes=("a", "b"), shards=1)
  source = open_source({"dataset": f"clip_benchmark:{tmp_path}/set", "source": {}}, "test")
  assert source[0]["labels"] == {"class": 0} and not list((tmp_path / "set" / "test").glob("*.index"))
  for index, message in (
    (1, "cls is '7', not the number of one of 2 classes"),
    (2, "no member cls"),
    (3, "cls is 'x'"),
  ):
    with pytest.raises(BadRecord, match=message):
      source[index]
  with pytest.raises(UserError, match="no option 'caption'"):
    open_source({"dataset": f"clip_benchmark:{tmp_path}/set", "source": {"caption": "x"}}, "test")
  with pytest.raises(UserError, match="did you mean 'clip_benchmark:"):
    open_source({"dataset": f"{tmp_path}/set", "source": {}}, "test")
  write_set(tmp_path / "many", [{"npy": b"none"}], "multilabel", ("a", "b"), shards=1)
  with pytest.raises(BadRecord, match="npy cannot be read"):
    open_source({"dataset": f"clip_benchmark:{tmp_path}/many", "source": {}}, "test")[0]
  assert list(find_sets(f"{tmp_path}")) == ["many", "set"]
