"""A modality that nothing in the package names: series of numbers, registered as a stranger would, in every use."""

import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from toy_source import Toy

from mmcontrast import embed as embed_room
from mmcontrast import search as search_room
from mmcontrast.cli import main
from mmcontrast.config import base_config
from mmcontrast.data import inspection, noise
from mmcontrast.data.evaluation_set import EvaluationSet, Things, load_configured_set
from mmcontrast.data.sources import BadRecord
from mmcontrast.encoders import Encoded
from mmcontrast.encoders.heads import build_head
from mmcontrast.errors import UserError
from mmcontrast.evaluation.embedded_set import EmbeddedSet
from mmcontrast.evaluation.metric_names import metric_names
from mmcontrast.evaluation.suite import check, check_space, run_suite
from mmcontrast.inference import Inference
from mmcontrast.inference.embeddings import Embeddings
from mmcontrast.modalities import MODALITIES
from mmcontrast.modalities.modality import Modality
from mmcontrast.modalities.use import Shown
from mmcontrast.modalities.views import Inputs, Preparation
from mmcontrast.models.model import Model, build_model
from mmcontrast.search import search

COUNT, LENGTH = 20, 8


class Series(Modality):
  """Eight float32 of a file; a person sees them as bars."""

  name, a, nouns, asked, field = "series", "a series", "series", "the path of a series", "series"
  source_option, absent, view_sets, suffixes = "series", "no series", ("series",), (".f32",)

  def columns(self, info):
    return getattr(info, "curves", ())

  def evaluation_view(self, raw, settings):
    if len(raw) != 4 * LENGTH:
      raise BadRecord(f"{len(raw)} bytes are no series of {LENGTH} float32")
    return np.frombuffer(raw, np.float32)

  def arrays(self, settings):
    views = settings["views"].get("series", 0)
    return {"series": ((views, LENGTH), np.float32)} if views else {}

  def decode(self, record, settings):
    return record.get("series", {})

  def numbers(self, settings):
    return {noise.STYLE: settings["views"]["series"]}

  def view(self, value, numbers, settings, into):
    for number, raw in zip(range(settings["views"]["series"]), value.values()):
      into["series"][number] = self.evaluation_view(raw, settings)

  def preparation(self, config):
    return AsTheyAre(tuple(self.arrays(config["data"])))

  def show(self, thing):
    values = self.evaluation_view(thing, {}) if isinstance(thing, bytes) else thing
    heights = np.arange(16)[:, None] < 8 + 2 * np.repeat(values, 2)[None]
    return Shown(np.repeat(255 * heights[..., None].astype(np.uint8), 3, -1), file=(".f32", values.tobytes()))


class AsTheyAre(Preparation):
  """The arrays are what the tower reads."""

  def __call__(self, batch, train):
    return {name: Inputs(batch[name]) for name in self.arrays}


class Tower(nn.Module):
  """Each number is a token."""

  @nn.compact
  def __call__(self, x, mask, *, train):
    tokens = nn.Dense(8)(x[..., None] + jnp.eye(LENGTH)[None])
    return Encoded(pooled=tokens.mean(1), tokens=tokens)


class Curves(Toy):
  """The toy source with a series for each record, at the height of its number."""

  def __init__(self, count=COUNT, broken=None):
    super().__init__(count, broken)
    self.info.__dict__["curves"] = ("curve",)  # the schema of a source that a stranger writes

  def __getitem__(self, index):
    return {"series": {"curve": curve(index)}, "names": {}, **super().__getitem__(index)}


def curve(number):
  return np.random.default_rng(number).normal(size=LENGTH).astype(np.float32).tobytes()


@pytest.fixture(autouse=True)
def registered(monkeypatch):
  monkeypatch.setitem(MODALITIES, "series", Series())


@pytest.fixture
def model(registered, monkeypatch):
  return make_model()


def make_model(objective=None, **evaluation):
  c = base_config()
  c.data.image_size, c.data.text_length = 16, 5
  c.towers = dict(
    image=dict(name="vit", patch=8, width=8, depth=1, heads=2),
    text=dict(name="text_transformer", width=8, depth=1, heads=2),
  )
  c.heads = dict(pictures=dict(tower="image", name="linear", dim=4), words=dict(tower="text", name="linear", dim=4))
  c.objective = objective or {}
  c.evaluation.update(dict(image="pictures", text="words", series="curves", batch_size=6) | evaluation)
  config = c.to_dict()
  two = build_model(config, 30)
  config["towers"]["series"] = {"name": "own"}
  model = Model(
    {**two.towers, "series": Tower()},
    {**two.heads, **{name: build_head(dict(name="linear", dim=dim), "") for name, dim in (("curves", 4), ("wide", 9))}},
    {**two.tower_of_head, "curves": "series", "wide": "series"},
    {**two.modality_of_tower, "series": "series"},
  )  # fmt: skip
  views = {name: MODALITIES[name].zeros(2, config) for name in ("image", "text", "series")}
  shapes = jax.eval_shape(model.init, jax.random.key(0), views)
  draw = np.random.default_rng(0)
  variables = jax.tree.map(lambda leaf: draw.normal(0, 0.3, leaf.shape).astype(np.float32), shapes)
  tokenizer = types.SimpleNamespace(
    tokens=lambda texts: [[1, 3 + len(text), 2] for text in texts],
    encode=lambda texts, length: np.array([[1, 3 + len(text), 2, 0, 0] for text in texts], np.int32),
  )
  return Inference(config, model, variables, tokenizer, 5)


@pytest.fixture
def runs(monkeypatch, model):
  """The source "curves"; the models by name."""
  known = {"run": model}
  for room in (embed_room, search_room):
    monkeypatch.setattr(room, "open_source", lambda config, split, data_dir: Curves())
    monkeypatch.setattr(room, "load", lambda workdir, step, data_dir: known[str(workdir)])
  return known


def test_it_is_encoded(model, tmp_path):
  (tmp_path / "3.f32").write_bytes(curve(3))
  rows = model.encode("series", [curve(2), tmp_path / "3.f32"])
  np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
  np.testing.assert_allclose(model.encode_series(str(tmp_path / "3.f32")), rows[1:], atol=1e-6)
  assert "series by own, head curves" in repr(model)
  with pytest.raises(UserError, match=r"no such choice 'sires'; did you mean 'series'"):
    model.encode("sires", [])
  with pytest.raises(AttributeError, match="encode_sires"):
    _ = model.encode_sires
  (tmp_path / "bad.f32").write_bytes(b"123")
  for wrong, message in (
    (tmp_path / "bad.f32", r"bad\.f32: 3 bytes are no series of 8 float32; give a path"),
    (tmp_path / "no.f32", r"no\.f32: No such file.*; give the path of a series"),
    (7, "encode_series: 7 is not a series; give a path"),
    ([None], "series 0: None is not a series"),
    ([], "nothing to encode"),
  ):
    with pytest.raises(UserError, match=message) as caught:
      model.encode("series", wrong)
    assert "\n" not in str(caught.value)


def test_it_is_a_column_of_shards(runs, tmp_path):
  said = embed_room.embed("run", "curves", tmp_path / "all")
  assert "40 images and 40 captions and 20 series of 20 records" in said
  there = Embeddings(tmp_path / "all")
  assert there.manifest["kinds"] == ["image", "text", "series"] and there.counts("series") == [20]
  np.testing.assert_allclose(next(there.rows("series"))[4:5], runs["run"].encode("series", curve(4)), atol=1e-6)
  assert there.describe("series", np.array([4])) == [
    {"index": 4, "id": 40, "name": "toy-4", "path": "", "column": "curve", "text": "number 4"}
  ]
  assert "20 series and 40 captions" in embed_room.embed("run", "curves", tmp_path / "two", kind="series,text",
                                                          format="parquet")  # fmt: skip
  assert Embeddings(tmp_path / "two").describe("series", np.array([4]))[0]["column"] == "curve"
  for kind, message in (("sires", "--kind: no such choice 'sires'; did you mean 'series'"),):
    with pytest.raises(UserError, match=message):
      embed_room.embed("run", "curves", tmp_path / "no", kind=kind)
  runs["run"] = make_model(series="")
  with pytest.raises(
    UserError,
    match=r"--kind series: this run has no head for it: config\.evaluation\.series names none; "
    "--kind image,text can be embedded",
  ):
    embed_room.embed("run", "curves", tmp_path / "no", kind="series")
  assert not (tmp_path / "no").exists()


def test_words_images_and_files_of_it_search_each_other(runs, tmp_path, capsys):
  model = runs["run"]
  (tmp_path / "q.f32").write_bytes(curve(7))
  (tmp_path / "no_ending").write_bytes(curve(7))
  rows = {"series": np.concatenate([model.encode("series", curve(n)) for n in range(COUNT)])}
  found = search("run", "the 4 th", "curves", kind="series", count=3, out=tmp_path / "found.png")
  cosines = rows["series"] @ model.encode_text("the 4 th")[0]
  np.testing.assert_allclose([one.score for one in found], np.sort(cosines)[::-1][:3], atol=1e-5)
  assert found[0].style == "curve" and found[0].text == f"number {found[0].index}"
  assert (tmp_path / "found-1.f32").read_bytes() == curve(found[0].index) and Image.open(tmp_path / "found.png")
  assert "found-1.f32 to found-3.f32" in capsys.readouterr().err
  itself = search("run", str(tmp_path / "q.f32"), "curves", kind="series", count=1)[0]
  assert itself.index == 7 and itself.score == pytest.approx(1, abs=1e-5)
  for given in (dict(query_kind="series"), {}):  # what no other modality can open
    assert search("run", str(tmp_path / "no_ending"), "curves", kind="series", count=1, **given)[0] == itself
    assert search("run", curve(7), "curves", kind="series", count=1, **given)[0] == itself
  embed_room.embed("run", "curves", tmp_path / "rows")
  assert (
    search("run", curve(7), embeddings=tmp_path / "rows", kind="series", query_kind="series", count=1)[0].index == 7
  )
  pictures = search("run", str(tmp_path / "q.f32"), "curves", count=2, out=tmp_path / "of_series.png")
  assert [one.style for one in pictures] == ["a", "b"]  # images are searched where nobody says what


def test_what_cannot_be_searched_names_what_can(runs, tmp_path):
  (tmp_path / "q.f32").write_bytes(curve(7))
  (tmp_path / "bad.f32").write_bytes(b"12")
  for query, options, message in (
    (str(tmp_path / "bad.f32"), {}, r"bad\.f32: 2 bytes are no series .*; give the path of a series, or words that"),
    ("absent.f32", {}, "absent.f32: no such series file; give the path of one, or words"),
    ("words", dict(kind="sires"), "--kind: no such choice 'sires'; did you mean 'series'"),
    (
      "words",
      dict(kind="text", out="a.png"),
      "--out draws images and sounds and videos and series and point clouds and graphs; leave it out, or search --kind "
      "image or",
    ),
    ("words", dict(query_kind="image"), "words: no such image file"),
  ):
    with pytest.raises(UserError, match=message) as caught:
      search("run", query, "curves", **options)
    assert "\n" not in str(caught.value)
  runs["run"] = make_model(series="wide")  # of another length than the others
  with pytest.raises(
    UserError,
    match=r"compares no series with words: the heads 'words' and 'wide' are of different spaces; "
    "search by the path of a series",
  ):
    search("run", "words", "curves", kind="series")
  assert search("run", str(tmp_path / "q.f32"), "curves", count=1)[0].index == 7  # series by series: all that is left
  runs["run"] = make_model(series="")
  with pytest.raises(UserError, match=r"compares no series with words: config\.evaluation\.series names no head"):
    search("run", "words", "curves", kind="series")
  tower = runs["run"].model.modality_of_tower.pop("series")
  with pytest.raises(UserError, match="this run has no series tower; search by the path of an image or by words"):
    search("run", str(tmp_path / "q.f32"), "curves", kind="image")
  assert tower == "series"


def an_evaluation_set(name="s", split="test"):
  """20 series and texts, two series a text, and one image for each of the first 10; a label that the series tell."""
  examples, noise = np.arange(COUNT), np.random.default_rng(len(split)).normal(0, 0.01, (COUNT, LENGTH))
  values = np.stack([np.frombuffer(curve(n // 2), np.float32) for n in examples]) + noise.astype(np.float32)
  return EvaluationSet(
    name=name, seen=split == "train",
    things={
      "image": Things(np.zeros((10, 16, 16, 3), np.uint8) + np.arange(10, dtype=np.uint8)[:, None, None, None],
                      np.arange(10) // 2, np.arange(10)),
      "text": Things([f"thing {'x' * n}" for n in range(10)], np.arange(10), 2 * np.arange(10)),
      "series": Things(values, examples // 2, examples),
    },
    labels={"kind": examples // 2 % 2}, label_names={"kind": ["odd", "even"]}, tags=np.zeros((COUNT, 0)), tag_names=[],
    split=np.full(COUNT, split),
  )  # fmt: skip


def test_evaluators_ask_for_its_nodes_by_name(model):
  config = {
    "sets": ("s",), "train_sets": ("t",),
    "evaluators": {
      "retrieval": {}, "zero_shot": {"of": ("image", "series")},
      "knn": {"node": ("series", "curves", "series.tokens"), "k": 1}, "linear_probe": {"node": "wide"}},
  }  # fmt: skip
  sets = {"s": an_evaluation_set("s", "test"), "t": an_evaluation_set("t", "train")}
  space = model.space
  embedded = {name: EmbeddedSet(one, model.embed, name, space=space, seen=model.seen) for name, one in sets.items()}
  check_space(config, space)
  found = run_suite(model.embed, config, sets.__getitem__, sets=embedded)
  ways = {name.split("/")[1] for name in found if "recall@1" in name}
  pairs = (("image", "text"), ("image", "series"), ("text", "series"))
  assert ways == {f"{a}_to_{b}" for pair in pairs for a, b in (pair, pair[::-1])}
  assert found["s/series_to_text/queries"] == 20 and found["s/series_to_text/candidates"] == 10
  assert found["s/image_to_series/queries"] == 10 and found["s/image_to_series/candidates"] == 20
  assert found["s/knn_of_series/kind_accuracy"] == 1.0 and "s/knn_of_series.tokens/kind_accuracy" in found
  assert {"s/zero_shot/kind_top1", "s/zero_shot_of_series/kind_top1", "s/linear_probe_of_wide/kind_l2"} <= set(found)
  names = metric_names(config, lambda name: sets[name].label_names, (), lambda name: space.ways(), "image")
  assert sorted(names) == sorted(found)
  rows = model.embed("series", sets["s"].things["series"].values)
  texts = model.embed("text", sets["s"].things["text"].values)
  best = (rows @ texts.T).argmax(1) == np.arange(COUNT) // 2
  assert found["s/series_to_text/recall@1"] == pytest.approx(best.mean())
  only = {**config, "evaluators": {"retrieval": {"directions": "text_to_series"}}}
  assert {name.split("/")[1] for name in run_suite(model.embed, only, sets.__getitem__, sets=embedded)} == {
    "text_to_series"
  }


@pytest.mark.parametrize(("evaluators", "message"), [
  (dict(knn=dict(node="serie")), r"knn\.node: no such choice 'serie'; did you mean 'series'"),
  (dict(knn=dict(node="series.map")), "'series' makes no map output; write series.pooled or series.tokens"),
  (dict(linear_probe=dict(node="curves.logits")), "'curves' makes no logits output; write curves.pooled"),
  (dict(retrieval=dict(directions="text_to_serie")), "no such choice 'text_to_serie'; did you mean 'text_to_series'"),
  (dict(zero_shot=dict(of="text")), r"zero_shot\.of: no such choice 'text'"),
])  # fmt: skip
def test_a_node_that_is_not_there_is_named_before_any_data(model, evaluators, message):
  with pytest.raises(UserError, match=message) as caught:
    check_space({"sets": ("s",), "features": "image", "evaluators": evaluators}, model.space)
  assert "\n" not in str(caught.value)


def test_what_is_no_name_of_a_node():
  for evaluators in (dict(knn=dict(node=3)), dict(retrieval=dict(directions=(1,))), dict(zero_shot=dict(of=None))):
    with pytest.raises(UserError, match=r"evaluation\.evaluators\.\w+\.\w+: .* is no name; give one, or a list"):
      check({"sets": ("s",), "evaluators": evaluators})


def test_a_set_without_it_is_left_out_with_a_line_or_said(model, capsys):
  data = an_evaluation_set()
  without = EvaluationSet(**{**vars(data), "things": {one: data.things[one] for one in ("image", "text")}})
  sets = {"s": EmbeddedSet(without, model.embed, "s", space=model.space)}
  config = {"sets": ("s",), "evaluators": {"retrieval": {}}}
  found = run_suite(model.embed, config, None, sets=sets)
  assert {name.split("/")[1] for name in found} == {"image_to_text", "text_to_image"}
  assert "s: retrieval of series is left out: it has none" in capsys.readouterr().err
  for evaluators in ({"retrieval": {"directions": "text_to_series"}}, {"zero_shot": {"of": "series"}}):
    with pytest.raises(UserError, match="evaluation set 's' has no series to embed; it has image and text"):
      run_suite(model.embed, {**config, "evaluators": evaluators}, None, sets=sets)


TRIPLE = dict(triple=dict(query="text[0]/words", key=("image[0]/pictures", "series[0]/curves"), score="gram_volume"))


def test_a_triple_is_searched_by_its_score_from_any_of_its_three(runs, tmp_path):
  model = runs["run"] = make_model(TRIPLE)
  (term,) = model.joined
  others = {"image": "text_and_series", "series": "text_and_image"}
  by_name = [f"triple_{way}" for one, two in others.items() for way in (f"{one}_to_{two}", f"{two}_to_{one}")]
  assert list(term.ways) == ["triple_query_to_keys", "triple_keys_to_query", *by_name]
  (tmp_path / "q.f32").write_bytes(curve(7))
  found = search("run", str(tmp_path / "q.f32"), "curves", count=COUNT)
  source = Curves()
  row = model.encode("series", curve(7))[0]
  others = [
    (model.encode_image(source[n]["images"]["a"])[0], model.encode_text("number " + str(n))[0]) for n in range(COUNT)
  ]
  grams = [np.stack([row, *two]).astype(np.float64) for two in others]
  expected = [-np.sqrt(max(np.linalg.det(g @ g.T), 0) + 1e-6) for g in grams]
  np.testing.assert_allclose([one.score for one in found], np.sort(expected)[::-1], atol=1e-3)


def test_inspect_shows_it(tmp_path, capsys, monkeypatch):
  text = inspection.describe(Curves(20, {3: {"series": {"curve": b"12"}}}))
  assert "series: curve" in text and "20 of 20 records; 32 bytes 19, 2 bytes 1" in text
  assert "bad series" in text and "toy-3: 2 bytes are no series" in text and "curve: 32 bytes" in text
  monkeypatch.setattr("mmcontrast.data.sources.open_source", lambda *given: Curves())
  assert main(["data", "inspect", "curves", "--out", str(tmp_path / "sheet.png")]) == 0
  assert "sheet-3.f32" in capsys.readouterr().out and (tmp_path / "sheet-3.f32").read_bytes() == curve(0)


def test_an_evaluation_set_has_it(monkeypatch, capsys):
  broken = {3: {"series": {}}, 5: {"series": {"curve": b"12"}}, 6: {"captions": {"caption": []}}}
  monkeypatch.setattr("mmcontrast.data.sources.open_source", lambda *given: Curves(COUNT, broken))
  data = dict(dataset="toy", image_size=8, views=dict(image=1, text=2, series=1), on_error=dict(max_share=0.1))
  found = load_configured_set("mine", dict(dataset="toy", split="validation"), data)
  assert {one: len(things.values) for one, things in found.things.items()} == {"image": 18, "text": 34, "series": 18}
  said = capsys.readouterr().err
  assert "1 of 20 records have no series and are left out (data.missing='mask' keeps what else they have)" in said
  assert "1 of 20 records cannot be used, such as toy-5: 2 bytes are no series" in said
  series = found.things["series"]
  assert series.concept.tolist() == found.things["image"].concept.tolist() and 30 not in series.concept
  np.testing.assert_array_equal(series.of_examples(found.labels["parity"], -1), series.concept // 10 % 2)
  assert found.views["series"].index.shape == (1, 18) and (found.views["text"].index[:, 5 - 1] == -1).all()
  masked = load_configured_set("mine", dict(dataset="toy"), {**data, "missing": "mask"})
  assert {one: len(things.values) for one, things in masked.things.items()} == {"image": 19, "text": 36, "series": 18}
  alone = load_configured_set(
    "mine", dict(dataset="toy", style="b"), {**data, "views": dict(series=1, image=0, text=0)}
  )
  assert [*alone.things] == ["series"]
