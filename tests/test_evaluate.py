"""A finished run is looked at again: on any source, by overrides, with results side by side."""

import json

import numpy as np
import pytest
from own_data import picture
from PIL import Image
from tiny import tiny_inference

from mmcontrast import evaluate as room
from mmcontrast.cli import main
from mmcontrast.errors import UserError, note
from mmcontrast.evaluate import evaluate_workdir
from mmcontrast.evaluation.defaults import TEMPLATES, evaluators_for
from mmcontrast.evaluation.embed import Space
from mmcontrast.inference import evaluation_config
from mmcontrast.inference.evaluation_config import say_change, set_name

CLASSES = ("cat", "goat", "red fox")


@pytest.fixture
def run(tmp_path, monkeypatch):
  """The folder of an imported run: no sets, no evaluators, no training."""
  models = [tiny_inference(step=0, sets=(), evaluators={}, data={})]
  models[0].config = {**models[0].config, "steps": 0}
  monkeypatch.setattr(room, "load", lambda workdir, step, data_dir: models[-1])
  note.cache_clear()
  (tmp_path / "run").mkdir()
  return tmp_path / "run", models


@pytest.fixture
def pictures(tmp_path):
  """Class folders with two splits: six images a class in train, two in val; those of val have captions."""
  for split, count in (("train", 6), ("val", 2)):
    for kind, name in enumerate(CLASSES):
      folder = tmp_path / "my data" / split / name
      folder.mkdir(parents=True)
      for number in range(count):
        (folder / f"{number}.png").write_bytes(picture(100 * kind + number + (split == "val") * 50))
        if split == "val":
          (folder / f"{number}.txt").write_text(f"{name[:2]} {'x' * number}\n")
  return f"folder:{tmp_path}/my data/{{split}}"


def test_an_imported_run_is_measured_on_class_folders(run, pictures, capsys):
  workdir, models = run
  assert (
    main(
      [
        "evaluate",
        pictures,
        "--workdir",
        str(workdir),
        "--split",
        "val",
        "--train_split",
        "train",
        "--config.evaluation.evaluators.zero_shot.templates=('{}', 'a {}')",
        "--config.evaluation.evaluators.knn.k=3",
      ]
    )
    == 0
  )
  out, err = capsys.readouterr()
  assert out.splitlines()[-2:] == [
    str(workdir / "evaluation-my_data_val.json"),
    str(workdir / "retrieval-my_data_val.png"),
  ]
  assert "other data" not in err  # an imported run trained on none
  assert "evaluated by knn, linear_probe, retrieval, zero_shot, by what my_data_val has" in err
  results = json.loads((workdir / "evaluation-my_data_val.json").read_text())
  assert results["my_data_val/image_to_text/queries"] == 6 and "my_data_val/knn/class_accuracy" in results
  assert "my_data_val/linear_probe/class_accuracy" in results
  # Zero-shot by hand.
  model = models[0]
  folder = workdir.parent / "my data" / "val"
  rows = model.encode_image([np.asarray(Image.open(folder / name / f"{n}.png")) for name in CLASSES for n in range(2)])
  prompts = model.encode_text([text for name in CLASSES for text in (name, f"a {name}")]).reshape(3, 2, -1).mean(1)
  prompts /= np.linalg.norm(prompts, axis=1, keepdims=True)
  right = (rows @ prompts.T).argmax(1) == np.repeat(np.arange(3), 2)
  assert results["my_data_val/zero_shot/class_top1"] == pytest.approx(right.mean())


def test_without_anything_to_measure_it_says_the_way_out(run, pictures, monkeypatch):
  workdir, models = run
  with pytest.raises(UserError, match=r"evaluation\.sets is empty.*mmcontrast evaluate 'folder:/data/\{split\}' --spl"):
    evaluate_workdir(workdir)
  with pytest.raises(UserError, match=r"nothing to evaluate my_data_val by: .*empty; choose some, as in --config\.ev"):
    evaluate_workdir(workdir, source=pictures, split="val", overrides=["--config.evaluation.evaluators={}"])
  models.append(tiny_inference(step=0, sets=(), evaluators={}, data={}, text=""))
  with pytest.raises(UserError, match=r"no two heads for that .*linear probes need a training set: --train_split"):
    evaluate_workdir(workdir, source=pictures, split="val")
  results = evaluate_workdir(workdir, source=pictures, split="val", train_split="train")
  assert "my_data_val/knn/class_accuracy" in results
  for words, message in (
    (["--config.evaluation.evaluators.zero_shit.label=class"], "did you mean"),
    (["--config.evaluation.evaluators.knn.kk=3"], "knn"),
    (["--config.batch.size=3"], "only"),
    (["--batch=3"], "only"),
    (["--config.evaluation.images=a"], "no such key"),
  ):
    with pytest.raises(UserError, match=message) as caught:
      evaluate_workdir(workdir, source=pictures, split="val", overrides=words)
    assert "\n" not in str(caught.value)
  assert [path.name for path in workdir.iterdir() if path.name.startswith("evaluation-")] == [
    "evaluation-my_data_val.json"
  ]


def test_a_source_that_cannot_be_opened_stops_before_the_model_is_loaded(run, pictures, monkeypatch, capsys):
  workdir, _ = run
  monkeypatch.setattr(room, "load", None)
  for source, options, message in (
    (pictures, {}, "--split says which part"),
    ("jsonl:/nowhere.jsonl", {}, "nowhere"),
    ("emoji_noto", {"split": "test"}, "leave out --split"),
    (pictures, {"split": "val", "train_split": "val"}, "--train_split val"),
  ):
    with pytest.raises(UserError, match=message):
      evaluate_workdir(workdir, source=source, data_dir="/nowhere", **options)
  for words in (["--split", "val"], ["--train_split", "train"], ["--source.labels=x"]):
    assert main(["evaluate", "--workdir", str(workdir), *words]) == 2
    assert "name one: mmcontrast evaluate SOURCE" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("evaluator", "lacks"),
  [
    ("captioning", r"captioning: this run has no decoder of captions; leave it out, or train config coca"),
    ("perplexity", r"perplexity: this run has no decoder of captions"),
    ("masked_words", r"masked_words: the run has no head that guesses words of a text, one of name='words'"),
  ],
)
def test_what_the_run_lacks_is_said_before_a_set_is_read(run, pictures, evaluator, lacks, monkeypatch):
  monkeypatch.setattr(room, "load_set", None)
  with pytest.raises(UserError, match=lacks):
    evaluate_workdir(
      run[0], source=pictures, split="val", overrides=[f"--config.evaluation.evaluators={{'{evaluator}': {{}}}}"]
    )


def test_results_stand_side_by_side(run, pictures, capsys):
  workdir, models = run
  evaluate_workdir(workdir, source=pictures, split="val")
  first = (workdir / "evaluation-my_data_val.json").read_text()
  evaluate_workdir(workdir, source=pictures, split="val")  # the same again: nothing is put aside
  evaluate_workdir(workdir, source=pictures, split="train", step=7)
  assert "kept as" not in capsys.readouterr().err
  models.append(tiny_inference(step=40, seed=3, sets=(), evaluators={}, data={}))
  evaluate_workdir(workdir, source=pictures, split="val")
  assert "kept as evaluation-my_data_val.1.json and retrieval-my_data_val.1.png" in capsys.readouterr().err
  assert (workdir / "evaluation-my_data_val.1.json").read_text() == first
  assert sorted(path.name for path in workdir.glob("*.json")) == [
    "evaluation-my_data_train-step7.json",
    "evaluation-my_data_val.1.json",
    "evaluation-my_data_val.json",
  ]
  lines = [json.loads(line) for line in (workdir / "evaluations.jsonl").read_text().splitlines()]
  assert [line["step"] for line in lines] == [0, 0, 0, 40]
  assert {**lines[0]["results"], "protocols": lines[0]["protocols"]} == json.loads(first)
  assert lines[0]["data"]["my_data_val"]["dataset"] == pictures and len({line["model"] for line in lines}) == 2


def test_a_section_that_a_later_train_gave_is_used_and_said(run, pictures):
  workdir, models = run
  before = {key: value for key, value in models[0].config["evaluation"].items() if key != "data"}  # an older section
  now = {
    **before,
    "sets": ("mine",),
    "evaluators": {"retrieval": {}},
    "data": {"mine": {"dataset": pictures, "split": "val"}},
  }
  assert say_change(workdir, {"evaluation": now}) == ""  # nothing was there before
  (workdir / "config.json").write_text(json.dumps({"evaluation": before}))
  assert say_change(workdir, {"evaluation": before}) == ""
  assert "config.evaluation.data, config.evaluation.evaluators, config.evaluation.sets changed" in say_change(
    workdir, {"evaluation": now}
  )
  (workdir / "config.json").write_text(json.dumps({"evaluation": now}))
  assert "mine/image_to_text/recall@1" in evaluate_workdir(workdir)
  assert (workdir / "evaluation.json").is_file() and (workdir / "retrieval.png").is_file()
  with pytest.raises(UserError, match=r"nothing to evaluate mine by: config\.evaluation\.evaluators is empty"):
    evaluate_workdir(workdir, overrides=["--config.evaluation.evaluators={}"])


@pytest.mark.parametrize(
  ("dataset", "split", "name"),
  [
    ("folder:/d/flowers/{split}", "val", "flowers_val"),
    ("csv:/d/my rows.v2.csv", None, "my_rows.v2"),
    ("webdataset:/d/shards/{000..099}.tar", "all", "shards"),
    ("jsonl:/d/*.jsonl", "test", "d_test"),
    ("coco:", "val", "coco_val"),
    ("csv:gs://bucket/a/b.csv", None, "b"),
    ("folder:/d/größe", None, "größe"),
    ("folder:./", None, "folder"),
    ("folder:../emoji_noto", None, "emoji_noto_set"),
  ],
)
def test_names_of_sets(dataset, split, name):
  assert set_name(dataset, split) == name


JOINT = {"image": ("text",), "text": ("image",)}
HAS = dict(
  modalities=("image", "text"),
  labels={"class": CLASSES},
  tags=True,
  space=Space(JOINT, "image"),
  tokens=False,
  bank=True,
)


@pytest.mark.parametrize(
  ("changes", "names", "said"),
  [
    ({}, ["retrieval", "zero_shot", "knn", "linear_probe", "tagging"], ""),
    (dict(bank=False), ["retrieval", "zero_shot"], "--train_split"),
    (dict(bank=None), ["retrieval", "zero_shot"], None),
    (dict(space=Space(JOINT, "")), ["retrieval", "zero_shot"], ""),
    (dict(space=Space({}, "image")), ["knn", "linear_probe", "tagging"], "no two heads"),
    (dict(tokens=True), ["retrieval", "knn", "linear_probe", "tagging"], ""),
    (dict(modalities=("image",), tags=False), ["zero_shot", "knn", "linear_probe"], ""),
    (dict(labels={"class": ("0", "1")}), ["retrieval", "knn", "linear_probe", "tagging"], "zero_shot.names=FILE"),
    (dict(labels={"class": ("n01440764", "n01443537")}, bank=False), ["retrieval"], "zero_shot.names=FILE"),
    (dict(modalities=("image",), labels={}, tags=False), [], "no captions, labels or tags"),
    (dict(modalities=("text",)), [], "no images"),
  ],
)
def test_evaluators_suit_what_there_is(changes, names, said):
  found, left_out = evaluators_for(**{**HAS, **changes})
  assert list(found) == names and (not left_out if said is None else said in "; ".join(left_out))
  if "zero_shot" in found:
    assert found["zero_shot"] == {"label": ("class",), "templates": TEMPLATES}


def test_saved_sections_survive_what_is_no_config(tmp_path):
  config = {"evaluation": {"sets": ("a",), "batch_size": 3}}
  for text in ("", "[]", "{}", '{"evaluation": 3}'):
    (tmp_path / "config.json").write_text(text)
    assert evaluation_config.saved_section(tmp_path, config) == config["evaluation"]


def test_sets_and_evaluators_of_overrides_alone(run, pictures):
  workdir, _ = run
  results = evaluate_workdir(
    workdir,
    overrides=[
      "--config.evaluation.evaluators.zero_shot.label=class",
      "--config.evaluation.sets=('mine',)",
      f"--config.evaluation.data.mine={{'dataset': {pictures!r}, 'split': 'val'}}",
      "--config.evaluation.batch_size=4",
    ],
  )
  assert list(results) == ["mine/zero_shot/class_top1"]
  assert (workdir / "evaluation.json").is_file()
