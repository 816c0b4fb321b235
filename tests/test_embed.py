"""Embeddings of a source: shards that survive a kill, bad records, other models, other records."""

import io
import re
import time
from concurrent import futures

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image
from tiny import tiny_inference
from toy_source import Toy

from mmcontrast import embed as program
from mmcontrast.data.transforms import evaluation_view
from mmcontrast.errors import UserError
from mmcontrast.evaluation import nearest
from mmcontrast.inference.embeddings import Embeddings, Rows, begin

COUNT = 20
MODELS = {"run": tiny_inference(step=5), "other": tiny_inference(step=5, seed=1)}


@pytest.fixture(autouse=True)
def toy(monkeypatch):
  """The source "toy" of 20 records, two drawings and two captions each, in shards of 7; the models by name."""
  broken: dict[int, dict] = {}
  monkeypatch.setattr(program, "open_source", lambda config, split, data_dir: Toy(COUNT, broken))
  monkeypatch.setattr(program, "load", lambda workdir, step, data_dir: MODELS[str(workdir)])
  monkeypatch.setattr(program, "RECORDS_A_SHARD", 7)
  return broken


def embed(out, workdir="run", **options):
  return program.embed(workdir, "toy", out, **options)


def files(folder):
  return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("format", ["npy", "parquet"])
def test_each_row_is_of_its_image_or_caption(tmp_path, format):
  assert "40 images and 40 captions of 20 records in 3 shards" in embed(tmp_path, format=format)
  there = Embeddings(tmp_path)
  assert there.counts("image") == [14, 14, 12]
  image, text = (np.concatenate(list(there.rows(kind))) for kind in ("image", "text"))
  model, whole = MODELS["run"], Toy(COUNT)
  pixels = np.asarray(Image.open(io.BytesIO(whole[9]["images"]["b"])))
  np.testing.assert_allclose(image[19:20], model.embed("image", evaluation_view(pixels, model.data)[None]), atol=1e-6)
  np.testing.assert_allclose(text[20:22], model.encode_text(["number 10", "the 10 th"]), atol=1e-6)
  assert there.describe("image", np.array([19, 0])) == [
    {"index": 9, "id": 90, "name": "toy-9", "path": "", "style": "b", "text": "number 9"},
    {"index": 0, "id": 0, "name": "toy-0", "path": "", "style": "a", "text": "number 0"},
  ]
  assert there.describe("text", np.array([20]))[0]["text"] == "number 10"
  if format == "npy":
    assert np.load(tmp_path / "00001.text.npy").dtype == np.float32
  else:
    table = pyarrow.parquet.read_table(tmp_path / "00001.image.parquet")
    assert table.column_names == ["index", "id", "name", "path", "style", "text", "embedding"]
    assert table["embedding"].type.list_size == 4


def test_a_killed_command_goes_on(tmp_path, monkeypatch):
  embed(tmp_path / "whole")
  calls, model = [], MODELS["run"]
  real = model.embed

  def killed(kind, values, name):
    calls.append(kind)
    if len(calls) == 7:
      raise KeyboardInterrupt
    return real(kind, values, name)

  monkeypatch.setattr(model, "embed", killed)
  with pytest.raises(KeyboardInterrupt):
    embed(tmp_path / "cut")
  (tmp_path / "cut" / ".00001.image.npy.1.partial").write_bytes(b"half")
  assert Embeddings(tmp_path / "cut").done == [0]
  before = (tmp_path / "cut" / "00000.image.npy").stat().st_mtime_ns
  calls[:] = []
  monkeypatch.setattr(model, "embed", lambda kind, values, name: calls.append(kind) or real(kind, values, name))
  embed(tmp_path / "cut")
  assert calls.count("image") == 3 + 2  # of the shards that were not done, 14 and 12 images in batches of 6
  assert (tmp_path / "cut" / "00000.image.npy").stat().st_mtime_ns == before
  assert files(tmp_path / "cut") == files(tmp_path / "whole")


@pytest.mark.parametrize("parts", [1, 2, 7])
def test_all_parts_together_are_one_run(tmp_path, parts, monkeypatch):
  monkeypatch.setattr(program, "RECORDS_A_SHARD", 4)
  embed(tmp_path / "whole", kind="text")
  said = [embed(tmp_path / "parts", kind="text", part=f"{one}/{parts}") for one in reversed(range(parts))]
  assert files(tmp_path / "parts") == files(tmp_path / "whole")
  assert "40 captions of 20 records in 5 shards" in said[-1]
  for one, line in zip(reversed(range(parts)), said[:-1]):
    assert re.match(rf"part {one}/{parts} is done: \d of 5 shards of .*; \d of the other parts are not made", line)


def test_two_workers_on_one_part_make_each_shard_once(tmp_path, monkeypatch):
  embed(tmp_path / "whole", kind="text")
  calls, model, meanwhile = [], MODELS["run"], []
  real = model.embed

  def second(kind, values, name):
    calls.append(kind)
    if len(calls) == 1:  # while the first shard is made, another makes the others, and waits for this one
      meanwhile.append(pool.submit(embed, tmp_path / "both", kind="text"))
      while not (tmp_path / "both" / "00002.json").exists():
        time.sleep(0.01)
    return real(kind, values, name)

  monkeypatch.setattr(model, "embed", second)
  with futures.ThreadPoolExecutor(1) as pool:
    said = embed(tmp_path / "both", kind="text")
  assert said == meanwhile[0].result() and len(calls) == 3 + 3 + 2  # 14, 14 and 12 captions in batches of 6
  assert files(tmp_path / "both") == files(tmp_path / "whole")


@pytest.mark.parametrize("part", ["1", "x/2", "-1/2", "0/0", "2/2", "1/2/3", ""])
def test_a_part_that_is_none_is_said(tmp_path, part):
  with pytest.raises(UserError, match=r"--part .*counted from 0"):
    embed(tmp_path / "rows", part=part)
  assert not (tmp_path / "rows").exists()


def test_what_is_another_is_refused(tmp_path, monkeypatch):
  embed(tmp_path / "rows", kind="image")
  for options, message in (
    (dict(workdir="other"), "another model .*step 5"),
    (dict(kind="text"), "another kinds"),
    (dict(kind="image", format="parquet"), r"another format \(npy, now parquet\)"),
    (dict(kind="image", split="test"), "another source .*split train.* now .*split test"),
  ):
    with pytest.raises(UserError, match=message) as caught:
      embed(tmp_path / "rows", **options)
    assert "\n" not in str(caught.value)
  (tmp_path / "full").mkdir()
  (tmp_path / "full" / "mine").write_text("")
  with pytest.raises(UserError, match="not empty"):
    embed(tmp_path / "full")
  alone = tiny_inference(step=5, text="")
  monkeypatch.setitem(MODELS, "alone", alone)
  with pytest.raises(UserError, match=r"--kind both: this run has no head for it: config\.evaluation\.text"):
    embed(tmp_path / "new", "alone", kind="both")
  assert not (tmp_path / "new").exists() and "40 images of 20" in embed(tmp_path / "new", "alone")


def test_bad_records_are_left_out_and_too_many_stop(tmp_path, toy, monkeypatch):
  toy[3] = {"images": {"a": b"no image"}}
  with pytest.raises(UserError, match=r"1 of 7 records are bad, .*max_share=0.01: record 3: toy-3: not a readable"):
    embed(tmp_path)
  assert Embeddings(tmp_path).done == []
  monkeypatch.setitem(MODELS["run"].data, "on_error", {**MODELS["run"].data["on_error"], "max_share": 0.1})
  said = embed(tmp_path)
  assert "38 images and 38 captions of 19 records" in said and "1 bad records left out: record 3: toy-3" in said
  assert embed(tmp_path) == said  # what is done is not done again, and still counted
  assert Embeddings(tmp_path).describe("image", np.array([6]))[0]["name"] == "toy-4"


def test_records_that_were_exchanged_are_embedded_again(tmp_path, toy, capsys, monkeypatch):
  embed(tmp_path)
  kept = (tmp_path / "00000.image.npy").stat().st_mtime_ns
  toy[9] = {"captions": {"caption": ["another thing"]}}
  calls, model = [], MODELS["run"]
  real = model.embed
  monkeypatch.setattr(model, "embed", lambda kind, values, name: calls.append(kind) or real(kind, values, name))
  assert "40 images and 39 captions of 20 records" in embed(tmp_path)
  assert "the records of 1 shards have changed since they were embedded (1)" in capsys.readouterr().err
  assert calls.count("image") == 3 and (tmp_path / "00000.image.npy").stat().st_mtime_ns == kept
  assert Embeddings(tmp_path).describe("text", np.array([18]))[0]["text"] == "another thing"
  calls.clear()
  embed(tmp_path)
  assert not calls and "changed" not in capsys.readouterr().err


def test_a_bad_record_that_was_mended_is_embedded(tmp_path, toy, monkeypatch):
  monkeypatch.setitem(MODELS["run"].data, "on_error", {**MODELS["run"].data["on_error"], "max_share": 0.1})
  toy[3] = {"images": {"a": b"no image"}}
  assert "of 19 records" in embed(tmp_path)
  del toy[3]
  assert "40 images and 40 captions of 20 records" in embed(tmp_path)


def test_embeddings_that_are_not_finite_end_it(tmp_path, monkeypatch):
  model = MODELS["run"]
  real = model._embed
  monkeypatch.setattr(
    model,
    "_embed",
    lambda kind, values, prepare: (
      real(kind, values, prepare) * (np.where(np.arange(len(values)) == 2, np.nan, 1)[:, None] if kind == "text" else 1)
    ),
  )
  with pytest.raises(UserError, match="the embedding of 'toy-1' is not finite"):
    embed(tmp_path)
  assert Embeddings(tmp_path).done == []


def test_nearest_is_that_of_all_rows_at_once():
  draw = np.random.default_rng(0)
  rows, query = draw.normal(size=(50, 6)).astype(np.float32), draw.normal(size=6).astype(np.float32)
  rows[31] = rows[7]  # of equals the first is first
  found = nearest.exact(query, np.split(rows, [3, 20, 20]), 50)
  np.testing.assert_array_equal(found.index, np.argsort(-(rows @ query), kind="stable"))
  np.testing.assert_allclose(found.cosine, (rows @ query)[found.index], atol=1e-6)


@pytest.mark.parametrize("format", ["npy", "parquet"])
def test_files_that_were_cut_off_say_how_they_are_made_anew(tmp_path, format):
  manifest = {"records": 4, "records_a_shard": 4, "kinds": ["image"], "format": format, "source": {}, "model": {}}
  rows = Rows(np.eye(4, dtype=np.float32), {"index": [0, 1, 2, 3], "name": list("abcd")})
  begin(tmp_path, manifest).write(0, {"image": rows}, {}, "")
  assert next(Embeddings(tmp_path).rows("image")).shape == (4, 4)
  file = tmp_path / f"00000.image.{format}"
  file.write_bytes(file.read_bytes()[:-60])
  anew = r"cannot be read, it is cut off or damaged .*; remove 00000.json beside it and run mmcontrast embed again"
  with pytest.raises(UserError, match=rf"00000.image.{format}: {anew}"):
    next(Embeddings(tmp_path).rows("image"))
  file.unlink()
  with pytest.raises(UserError, match=rf"00000.image.{format}: {anew}"):
    Embeddings(tmp_path).rows_at("image", np.array([1]))
  (tmp_path / "00000.json").write_text('{"rows": ')
  with pytest.raises(
    UserError, match=r"00000.json: does not say what its shard holds .*; remove it and run the command"
  ):
    Embeddings(tmp_path).counts("image")
  (tmp_path / "manifest.json").write_text("[")
  with pytest.raises(UserError, match=r"manifest.json: is no table of JSON .*; make the embeddings again"):
    Embeddings(tmp_path)
