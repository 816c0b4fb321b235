"""Search of sources, evaluation sets and embeddings: by the cosine, by tokens, by joined keys; labels and pictures."""

import io
import json
import pathlib

import jax
import numpy as np
import pytest
from own_data import picture
from PIL import Image
from tiny import tiny_inference
from toy_source import Toy

from mmcontrast import embed as program
from mmcontrast import search as room
from mmcontrast.data.sources import open_source
from mmcontrast.errors import UserError
from mmcontrast.evaluation import inverted_lists
from mmcontrast.inference import embedding_index
from mmcontrast.modalities import MODALITIES
from mmcontrast.models.model import build_model
from mmcontrast.search import search

COUNT = 20
MODEL = tiny_inference(step=5)
MODELS = {"run": MODEL, "other": tiny_inference(step=5, seed=1), "pictures": tiny_inference(step=5, image="", text="")}


def again(objective=None, model=MODEL, **changes):
  """`MODEL` with another objective or other sections of its config."""
  config = {**model.config, "objective": objective or {}, **changes}
  return type(model)(config, model.model, model.variables, model.tokenizer, 5)


@pytest.fixture(autouse=True)
def toy(monkeypatch):
  """The source "toy" of 20 records, two drawings and two captions each; the models by name."""
  broken: dict[int, dict] = {}

  def opened(config, split, data_dir):
    return Toy(COUNT, broken) if config["dataset"] == "toy" else open_source(config, split, data_dir)

  for module in (program, room):
    monkeypatch.setattr(module, "open_source", opened)
    monkeypatch.setattr(module, "load", lambda workdir, step, data_dir: MODELS[str(workdir)])
  monkeypatch.setattr(program, "RECORDS_A_SHARD", 7)
  return broken


@pytest.fixture
def query(tmp_path):
  """A file that looks like record 17."""
  Image.fromarray(np.full((12, 12, 3), (17, 0, 0), np.uint8)).save(tmp_path / "query.png")
  return str(tmp_path / "query.png")


@pytest.fixture
def own(tmp_path):
  """A JSONL of three images in a folder with a long name, with captions."""
  folder = tmp_path / "a folder of which the name is long" / "p"
  folder.mkdir(parents=True)
  for number in range(3):
    (folder / f"{number}.png").write_bytes(picture(number))
  rows = [{"image": f"p/{number}.png", "caption": f"thing number {number}"} for number in range(3)]
  (folder.parent / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  return folder.parent


def test_an_image_finds_itself_in_a_source_and_in_embeddings_alike(tmp_path, query):
  found = search("run", query, "toy", count=2)
  assert [one.name for one in found[:2]] == ["toy-17", "toy-17"] and [one.style for one in found[:2]] == ["a", "b"]
  assert found[0].score == pytest.approx(1, abs=1e-5) and found[0].text == "number 17"
  assert found[0].line == "1.000  toy-17  number 17"
  program.embed("run", "toy", tmp_path / "rows")
  of_rows = search("run", query, embeddings=tmp_path / "rows", count=2)
  assert [one[1:] for one in of_rows] == [one[1:] for one in found]
  np.testing.assert_allclose([one.score for one in of_rows], [one.score for one in found], atol=1e-6)


@pytest.mark.parametrize("kind", ["image", "text"])
def test_words_find_the_nearest_by_cosine(kind, monkeypatch):
  monkeypatch.setattr(room, "_AT_A_TIME", 8)
  found = search("run", "the 4 th", "toy", kind=kind, count=5)
  source = Toy(COUNT)
  values = [np.asarray(Image.open(io.BytesIO(source[i]["images"]["a"]))) for i in range(COUNT)]
  texts = [text for i in range(COUNT) for text in source[i]["captions"]["caption"]]
  rows = np.repeat(MODEL.encode_image(values), 2, 0) if kind == "image" else MODEL.encode_text(texts)
  cosines = rows @ MODEL.encode_text("the 4 th")[0]
  np.testing.assert_allclose([one.score for one in found], np.sort(cosines)[::-1][:5], atol=1e-5)
  assert all(np.diff([one.score for one in found]) <= 0)


def test_bad_records_are_left_out_with_a_line(toy, query, capsys):
  toy[17] = {"images": {"a": b"no image"}}
  assert search("run", query, "toy", count=1)[0].name != "toy-17"
  assert "1 of 20 records are left out of the search: record 17: toy-17" in capsys.readouterr().err
  toy.update({index: {"images": {"a": b""}} for index in range(COUNT)})
  with pytest.raises(UserError, match="nothing in it can be searched"):
    search("run", query, "toy")


def test_an_image_itself_is_a_query(query):
  pixels = np.asarray(Image.open(query))
  for one in (Image.open(query), pathlib.Path(query), pathlib.Path(query).read_bytes(), pixels):
    asked = room.read_query(one)
    assert asked.words == "" and asked.modality == "image" and np.array_equal(asked.thing, pixels)
  for one, message in ((3, "the query: 3 is not an image"), (pathlib.Path("none.png"), "none.png: No such file")):
    with pytest.raises(UserError, match=message):
      room.read_query(one)


@pytest.mark.parametrize("words", ["w" * 256, "ä" * 128, "a\0b", "w/" * 5000, "a cat, e.g. a.b"])
def test_words_that_are_no_path_are_words(words):
  assert room.read_query(words) == room.Query(words)


def test_what_cannot_be_searched_is_said(tmp_path, query, monkeypatch):
  (tmp_path / "not.png").write_text("no image")
  program.embed("run", "toy", tmp_path / "rows")
  for workdir, asked, options, message in (
    ("run", "  ", dict(source="toy"), "the query is empty"),
    ("run", str(tmp_path / "not.png"), dict(source="toy"), "not.png: not a readable image"),
    ("run", "absent.JPG", dict(source="toy"), "no such image file"),
    ("run", "x", dict(source="toy", count=0), "--count 0"),
    ("run", "x", dict(source="toy", dataset="a"), "one thing is searched at a time"),
    ("run", "x", dict(source="toy", kind="text", out="a.png"), "--out draws images"),
    ("run", "x", dict(split="val"), "--split is an option of a source"),
    ("run", "x", dict(options={"caption": None}, dataset="a"), "--source is an option of a source"),
    ("run", "x", {}, r"config\.evaluation\.sets is empty.*mmcontrast search QUERY folder:/pictures --workdir run"),
    ("run", "x", dict(dataset="a"), "--dataset: no such choice 'a'"),
    ("other", "x", dict(embeddings=tmp_path / "rows"), "made by another model"),
    ("run", "x", dict(embeddings=tmp_path), "mmcontrast embed SOURCE"),
  ):
    with pytest.raises(UserError, match=message) as caught:
      search(workdir, asked, **options)
    assert "\n" not in str(caught.value)


def test_a_run_of_images_alone(tmp_path, query, monkeypatch):
  alone = again(model=MODELS["pictures"])
  alone.model = type(alone.model)({"image": alone.model.towers["image"]}, {}, {}, {"image": "image"})
  monkeypatch.setitem(MODELS, "pictures", alone)
  assert search("pictures", query, "toy", count=1)[0].name == "toy-17"  # by the features of its tower
  with pytest.raises(UserError, match="this run has no text tower; search by the path of an image"):
    search("pictures", "words", "toy")
  with pytest.raises(UserError, match="this run has no text tower"):
    search("pictures", query, "toy", kind="text")


def test_a_run_whose_towers_meet_in_no_space(query):
  assert search("pictures", query, "toy", count=1)[0].name == "toy-17"
  with pytest.raises(UserError, match=r"compares no images with words: config\.evaluation\.text names"):
    search("pictures", "words", "toy")


@pytest.mark.parametrize("where", ["source", "embeddings"])
def test_results_are_named_by_the_path_of_the_picture_and_its_caption(own, tmp_path, where, monkeypatch):
  drawn = []
  from mmcontrast.report import search_picture

  monkeypatch.setattr(search_picture, "draw_results", lambda *values, **options: drawn.append((values, options)))
  dataset = f"jsonl:{own}/rows.jsonl"
  if where == "embeddings":
    program.embed("run", dataset, tmp_path / "rows", format="parquet")
  options = dict(source=dataset) if where == "source" else dict(embeddings=tmp_path / "rows")
  found = search("run", str(own / "p" / "2.png"), **options, out=tmp_path / "found", count=2)
  assert found[0].name == f"{own}/p/2.png" and found[0].text == "thing number 2"
  (path, asked, images, labels, scores), _ = drawn[0]
  assert path == tmp_path / "found.png" and labels[0] == ("thing number 2", found[0].name)
  pixels = np.asarray(Image.open(own / "p" / "2.png"))
  np.testing.assert_array_equal(images[0], pixels)  # of the source, not what the model sees
  np.testing.assert_array_equal(asked, pixels)
  assert scores == [one.score for one in found]


def test_a_source_that_changed_is_not_drawn(own, tmp_path):
  program.embed("run", f"jsonl:{own}/rows.jsonl", tmp_path / "rows")
  (own / "p" / "1.png").unlink()
  with pytest.raises(UserError, match=r"--out: .*p/1.png cannot be drawn .* embed it again"):
    search("run", "x", embeddings=tmp_path / "rows", out=tmp_path / "found.png")


@pytest.mark.parametrize(
  ("out", "message"), [("found.txt", r"found\.png"), ("a.jpg", r"ends in \.png"), (".", "is a folder")]
)
def test_out_is_refused_before_work(out, message, monkeypatch):
  monkeypatch.setattr(room, "load", None)
  with pytest.raises(UserError, match=message):
    search("run", "x", "toy", out=out)


def test_the_last_evaluation_set_that_is_there_is_searched(own, query, monkeypatch):
  evaluation = {
    **MODEL.config["evaluation"],
    "sets": ("mine", "emoji_noto"),
    "optional_sets": ("emoji_noto",),
    "data": {"mine": dict(dataset=f"jsonl:{own}/rows.jsonl", split="all")},
  }
  monkeypatch.setitem(MODELS, "run", again(evaluation=evaluation))
  assert search("run", str(own / "p" / "1.png"), count=1, data_dir=str(own))[0].text == "thing number 1"
  with pytest.raises(UserError, match="mmcontrast data build emoji_noto"):
    search("run", "x", dataset="emoji_noto", data_dir=str(own))


def test_shards_that_are_missing_are_said(tmp_path, capsys):
  program.embed("run", "toy", tmp_path)
  (tmp_path / "00002.json").unlink()
  assert len(search("run", "x", embeddings=tmp_path, count=99)) == 28
  assert "1 of 3 shards are not made yet" in capsys.readouterr().err


def test_many_rows_without_faiss_are_all_read(tmp_path, capsys, monkeypatch):
  program.embed("run", "toy", tmp_path, kind="image")
  small = search("run", "x", embeddings=tmp_path)
  monkeypatch.setattr(embedding_index, "LARGE", 10)
  monkeypatch.setattr(inverted_lists, "has_faiss", lambda: False)
  assert search("run", "x", embeddings=tmp_path) == small and "mmcontrast[search]" in capsys.readouterr().err


def test_a_prefix_of_embeddings(tmp_path, query, monkeypatch):
  """Of what is searched in a source, of what was embedded whole, and of what was embedded so: one and the same."""
  terms = {"pair": dict(PAIR, matryoshka=(2, 3, 4))}
  monkeypatch.setitem(MODELS, "short", again(terms))
  program.embed("short", "toy", tmp_path / "whole")
  program.embed("short", "toy", tmp_path / "three", width=3)
  assert np.load(tmp_path / "three" / "00000.image.npy").shape == (14, 3)
  found = search("short", query, "toy", width=3, count=6)
  for folder, width in (("whole", 3), ("three", None), ("three", 3)):
    same = search("short", query, embeddings=tmp_path / folder, width=width, count=6)
    np.testing.assert_allclose([one.score for one in same], [one.score for one in found], atol=1e-6)
  narrower = [search("short", query, embeddings=tmp_path / folder, width=2, count=6) for folder in ("whole", "three")]
  np.testing.assert_allclose(*([one.score for one in some] for some in narrower), atol=1e-6)
  assert [one.score for one in found] != [one.score for one in search("short", query, "toy", count=6)]
  with pytest.raises(UserError, match=r"--width 4: .*three holds vectors of 3 numbers; give 3 or less"):
    search("short", query, embeddings=tmp_path / "three", width=4)
  for run, message in (
    ("pictures", "width 1: config.evaluation names no head of a joint space"),
    ("short", "width 1: head 'pictures' was not trained at that width; it was at 2, 3, 4"),
    ("run", "width 1: head 'pictures' was not trained at that width; it was trained whole"),
  ):
    with pytest.raises(UserError, match=message):
      search(run, query, "toy", width=1)


VOLUME = dict(query="image[0]/pictures", key=("text[0]/words", "text[1]/words"), score="gram_volume")
PAIR = dict(query="image[0]/pictures", key="text[0]/words")


def joined_run(monkeypatch, **terms):
  monkeypatch.setitem(MODELS, "joined", again(terms))


def test_a_run_of_joined_keys_is_searched_by_its_score(monkeypatch, query):
  joined_run(monkeypatch, volume=VOLUME)
  source = Toy(COUNT)
  pixels = [np.asarray(Image.open(io.BytesIO(source[i]["images"]["a"]))) for i in range(COUNT)]
  captions = [source[i]["captions"]["caption"] for i in range(COUNT)]
  image, second = MODEL.encode_image(pixels), MODEL.encode_text([two for _, two in captions])

  def volumes(row, *others):
    grams = [np.stack([row, *(other[i] for other in others)]).astype(np.float64) for i in range(COUNT)]
    return np.array([-np.sqrt(max(np.linalg.det(g @ g.T), 0) + 1e-6) for g in grams])

  expected = volumes(MODEL.encode_text("the 4 th")[0], image, second)
  found = search("joined", "the 4 th", "toy", count=COUNT)
  np.testing.assert_allclose([one.score for one in found], np.sort(expected)[::-1], atol=1e-3)
  first = MODEL.encode_text([one for one, _ in captions])
  expected = volumes(MODEL.encode_image(pixels[17])[0], first, second)
  found = search("joined", query, "toy", count=COUNT)
  np.testing.assert_allclose([one.score for one in found], np.sort(expected)[::-1], atol=1e-3)


def test_a_pair_beside_it_keeps_the_cosine_and_what_lacks_a_view_is_said(monkeypatch, tmp_path, capsys, own):
  joined_run(monkeypatch, volume=VOLUME, pair=PAIR)
  assert search("joined", "x", "toy") == search("run", "x", "toy")
  joined_run(monkeypatch, volume=VOLUME)
  program.embed("joined", "toy", tmp_path / "rows")
  assert search("joined", "x", embeddings=tmp_path / "rows") == search("run", "x", embeddings=tmp_path / "rows")
  assert "objective.volume compares image[0] with text[0] and text[1] together" in capsys.readouterr().err
  found = search("joined", "x", f"folder:{own / 'p'}")
  assert len(found) == 3 and "has no captions, which objective.volume compares" in capsys.readouterr().err


def test_a_run_of_tokens_is_searched_as_its_terms_compare_them(monkeypatch, query):
  heads = {name: {**head, "name": "token_linear"} for name, head in MODEL.config["heads"].items()}
  there = dict(query="image[0]/pictures", key="text[0]/words", score="token_max")
  back = dict(query="text[0]/words", key="image[0]/pictures", score="token_max")
  config = {**MODEL.config, "heads": heads, "objective": dict(there=there, back=back)}
  built = build_model(config, 30)
  zeros = {name: MODALITIES[name].zeros(2, config) for name in ("image", "text")}
  shapes = jax.eval_shape(built.init, jax.random.key(0), zeros)
  draw = np.random.default_rng(0)
  variables = jax.tree.map(lambda leaf: draw.normal(0, 0.3, leaf.shape).astype(np.float32), shapes)
  model = type(MODEL)(config, built, variables, MODEL.tokenizer, 5)
  monkeypatch.setitem(MODELS, "tokens", model)
  source = Toy(COUNT)
  views = np.stack([model.view(np.asarray(Image.open(io.BytesIO(source[i]["images"]["a"])))) for i in range(COUNT)])
  images, words = model.embed("image", views), model.embed("text", ["the 4 th"])
  # The mean, over the words of the query, of the nearest patch's cosine; padding is no word.
  real = words.mask[0]
  expected = np.einsum("ld,npd->nlp", words.vectors[0][real], images.vectors).max(-1).mean(-1)
  found = search("tokens", "the 4 th", "toy", count=2 * COUNT)  # two drawings of each
  np.testing.assert_allclose([one.score for one in found], np.sort(np.repeat(expected, 2))[::-1], atol=1e-5)
  with pytest.raises(UserError, match="search images by words"):
    search("tokens", query, "toy")
