"""`mmcontrast report`: the page of a run, of one without text, of one that is still training, of two; messages."""

import html.parser
import json
import re

import pytest
from own_data import picture
from tiny import tiny_inference

from mmcontrast import run_report as room
from mmcontrast.cli import main
from mmcontrast.config import to_json
from mmcontrast.errors import UserError
from mmcontrast.run_report import report

PAIR = {"image_text": {"query": "image[0]/pictures", "key": "text[0]/words", "temperature": 0.07}}
CLASSES = ("cat", "goat")


class Read(html.parser.HTMLParser):
  """A page: its elements, the ids among them, what it would load, and the data in it."""

  def __init__(self, path):
    super().__init__()
    self.elements, self.loads, self.data, self._in = [], [], "", False
    self.text = path.read_text()
    self.feed(self.text)
    self.ids = [attributes["id"] for _, attributes in self.elements if "id" in attributes]
    self.data = json.loads(self.data)

  def handle_starttag(self, tag, attributes):
    attributes = dict(attributes)
    self.elements.append((tag, attributes))
    self.loads += [attributes[key] for key in ("src", "href") if key in attributes]
    self._in = attributes.get("id") == "data"

  def handle_data(self, data):
    self.data += data if self._in else ""
    self._in = False


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Two runs by metrics and config, and eight captioned pictures in folders of two classes."""
  folder = tmp_path_factory.mktemp("looked at")
  for name, peak in (("run", 1e-3), ("other", 2e-3)):
    (folder / name).mkdir()
    lines = [{"step": step, "loss": 2 / step, "image_text/loss": 1 / step, "image_text/temperature": 0.07,
              "learning_rate": peak, "examples_per_second": 9.0, "data_wait": 0.1} for step in (1, 2, 3)]  # fmt: skip
    (folder / name / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
  for kind, name in enumerate(CLASSES):
    (folder / "pictures" / name).mkdir(parents=True)
    for number in range(4):
      (folder / "pictures" / name / f"{number}.png").write_bytes(picture(10 * kind + number))
      (folder / "pictures" / name / f"{number}.txt").write_text(f"{name} </script> {'x' * number}\n")
  return folder


def model(folder, seed=0, **evaluation):
  """A tiny run whose evaluation set is the pictures."""
  data = {"pets": {"dataset": f"folder:{folder}/pictures", "source": {}, "split": "all"}}
  made = tiny_inference(step=3, seed=seed, sets=("pets",), data=data, evaluators={"zero_shot": {}}, **evaluation)
  made.config = {**made.config, "objective": PAIR, "steps": 3}
  return made


@pytest.fixture(scope="module")
def models(folder):
  return {"run": model(folder), "other": model(folder, seed=1)}


@pytest.fixture(autouse=True)
def loaded(monkeypatch, folder, models):
  monkeypatch.setattr(room, "load", lambda workdir, step, data_dir: models[workdir.name])
  monkeypatch.setattr(room.plane, "has_umap", lambda: False)


def test_a_page_holds_all_it_shows(folder, capsys):
  assert main(["report", "--workdir", str(folder / "run")]) == 0
  assert capsys.readouterr().out.strip() == str(folder / "run" / "report.html")
  page = Read(folder / "run" / "report.html")
  assert all(link.startswith(("#", "data:")) for link in page.loads)
  assert not re.search(r"https?://|@import|url\((?!data:)", page.text)
  assert "default-src 'none'" in page.text and 'lang="en"' in page.text
  sections = ["results", "curves", "mixture", "retrieval", "zero_shot", "map", "config"]
  assert [one for one in page.ids if one in sections] == sections and len(set(page.ids)) == len(page.ids)
  assert {chart["title"] for chart in page.data["charts"]} >= {
    "loss",
    "image_text/loss",
    "temperatures",
    "learning rate",
  }
  points = page.data["map"]
  assert points["modalities"] == ["image", "text"] and len(points["modality"]) == 16
  assert all(len(points[key]) == 16 for key in ("words", "tile", "label", "concept"))
  assert min(points["tile"]) >= 0 and sorted(set(points["label"])) == [0, 1]  # a caption shows its image, too
  assert set(points["views"]) == {"PCA"} and len(points["views"]["PCA"]["x"]) == 16
  assert [attributes["data-points"] for tag, attributes in page.elements if tag == "canvas"] == ["16"]
  tiles = [attributes for _, attributes in page.elements if "data-tile" in attributes]
  assert tiles and all(int(one["data-tile"]) < 8 and one["aria-label"] for one in tiles)
  assert "cat &lt;/script&gt;" in page.text and "pets/image_to_text" not in page.text
  assert page.text.count("data-rank") == 16  # of four by each way there are hits and misses, all of eight
  assert "modality gap" in page.text and "95 % bootstrap" in page.text


def test_two_runs_side_by_side(folder, tmp_path, models):
  models["other"].config = {**models["other"].config, "seed": 7}
  path = report(
    folder / "run", tmp_path / "a" / "both", compare=[folder / "other"], embedding_atlas=tmp_path / "m.parquet"
  )
  assert path == tmp_path / "a" / "both.html" and (tmp_path / "m.parquet").is_file()
  page = Read(path)
  assert page.data["runs"] == ["run", "other"]
  assert [line["run"] for line in page.data["charts"][0]["lines"]] == [0, 1]
  assert "<code>seed</code>" in page.text and "difference to run" in page.text
  assert "The configs are the same" not in page.text


def test_what_cannot_be_shown_is_said(folder, tmp_path, models, monkeypatch):
  alone = model(folder, text="")
  alone.model = type(alone.model)(
    {"image": alone.model.towers["image"]}, {"pictures": alone.model.heads["pictures"]}, {"pictures": "image"},
    {"image": "image"},
  )  # fmt: skip
  alone.config = {**alone.config, "objective": {}, "towers": {"image": alone.config["towers"]["image"]},
                  "heads": {"pictures": alone.config["heads"]["pictures"]}}  # fmt: skip
  alone = type(alone)(alone.config, alone.model, alone.variables, alone.tokenizer, 3)
  monkeypatch.setitem(models, "run", alone)
  page = Read(report(folder / "run", tmp_path / "alone.html"))
  assert page.text.count("This run has no text tower.") == 2
  assert page.data["map"]["modalities"] == ["image"] and len(page.data["map"]["words"]) == 8


def test_a_run_that_is_still_training_has_curves(folder, tmp_path, models, monkeypatch):
  def none(workdir, step, data_dir):
    raise UserError(f"{workdir}: no checkpoint")

  monkeypatch.setattr(room, "load", none)
  with pytest.raises(UserError, match="no checkpoint"):
    report(folder / "run", tmp_path / "r.html")
  with monkeypatch.context() as patch:
    patch.setattr(room, "load", lambda workdir, *rest: models["run"] if workdir.name == "run" else none(workdir, *rest))
    with pytest.raises(UserError, match=r"^--compare .*other: no checkpoint"):
      report(folder / "run", tmp_path / "r.html", compare=[folder / "other"])
  (folder / "run" / "config.json").write_text(to_json(models["run"].config))
  try:
    page = Read(report(folder / "run", tmp_path / "r.html"))
    with pytest.raises(UserError, match="nothing to map"):
      report(folder / "run", tmp_path / "s.html", embedding_atlas=tmp_path / "s.parquet")
  finally:
    (folder / "run" / "config.json").unlink()
  assert page.data["charts"] and page.data["map"] is None and page.text.count("no checkpoint") == 4
  assert not (tmp_path / "s.html").exists() and not (tmp_path / "s.parquet").exists()


def test_a_set_that_is_not_here_is_said_in_the_page(folder, tmp_path, models, monkeypatch):
  lost = tiny_inference(step=3, sets=("gone",), data={"gone": {"dataset": "folder:/nowhere/x"}}, evaluators={})
  monkeypatch.setitem(models, "run", lost)
  page = Read(report(folder / "run", tmp_path / "r.html"))
  assert "gone is left out" in page.text and "/nowhere/x" in page.text and page.data["map"] is None
  page = Read(report(folder / "run", tmp_path / "r.html", source=f"folder:{folder}/pictures"))
  assert len(page.data["map"]["words"]) == 16


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"out": "x.txt"}, r"--out x\.txt: give a name that ends in \.html, such as x\.html"),
    ({"out": "{folder}"}, "--out .*: is a folder; give the file"),
    ({"embedding_atlas": "x.csv"}, r"ends in \.parquet"),
    ({"projection": "tsne"}, r"--projection: no such choice 'tsne'.*pca, umap"),
    ({"projection": "umap"}, "umap-learn is missing; pip install"),
    ({"examples": 0}, "--examples 0: give 1 or more"),
    ({"dataset": "pet"}, "--dataset: no such choice 'pet'; did you mean 'pets'"),
  ],
)
def test_a_mistake_is_one_line(folder, options, message):
  options = {key: value.format(folder=folder) if isinstance(value, str) else value for key, value in options.items()}
  with pytest.raises(UserError, match=message) as caught:
    report(folder / "run", **options)
  assert "\n" not in str(caught.value)


def test_words_that_are_no_options(folder, capsys):
  for words, message in (
    (["--split", "val"], "name one: mmcontrast report SOURCE"),
    (["--x=1"], "--source.caption=alt"),
  ):
    assert main(["report", "--workdir", str(folder / "run"), *words]) == 2
    assert message in capsys.readouterr().err
