"""`mmcontrast data filter`, `dedup` and `balance`: what they keep, parts, what is asked wrongly."""

import functools
import json
import pathlib

import numpy as np
import pytest
from tiny import tiny_inference
from toy_source import Toy

from mmcontrast import curate
from mmcontrast import embed as embed_room
from mmcontrast.cli import main
from mmcontrast.curate import Asked, balance, dedup, filter_records
from mmcontrast.data.curation.rules import Rules
from mmcontrast.data.sources.kept import KeptRecords, read_kept
from mmcontrast.errors import UserError
from mmcontrast.inference.embeddings import Embeddings

COUNT = 20


@functools.cache
def model():
  return tiny_inference(step=5)


@pytest.fixture(autouse=True)
def toy(monkeypatch):
  """The source "toy" of 20 records in shards of 4, of which some are changed; the model "run"."""
  broken: dict[int, dict] = {}

  def opened(config, split, data_dir):
    source = Toy(COUNT, broken)
    return KeptRecords(source, config["kept"], split) if config["kept"] else source

  for room in (curate, embed_room):
    monkeypatch.setattr(room, "open_source", opened)
    monkeypatch.setattr(room, "RECORDS_A_SHARD", 4)
    monkeypatch.setattr(room, "load", lambda workdir, step, data_dir: model())
  return broken


def asked(out, **more):
  return Asked("toy", str(out), **more)


def kept(out):
  return read_kept(str(out))[1].tolist()


def files(folder):
  return {path.name: path.read_bytes() for path in pathlib.Path(folder).iterdir()}


def entries(tmp_path):
  path = tmp_path / "entries.txt"
  path.write_text("number\n3\nnobody\n")
  return str(path)


COMMANDS = {
  "filter": lambda tmp_path, its: filter_records(its, bounds=Rules(min_characters=9)),
  "dedup": lambda tmp_path, its: dedup(its, exact="text", perceptual=0),
  "balance": lambda tmp_path, its: balance(its, entries=entries(tmp_path), most=8),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_all_parts_together_are_one_run(tmp_path, toy, command):
  toy[5] = {"captions": {"caption": ["number 3", "the 3 th"]}}
  run = functools.partial(COMMANDS[command], tmp_path)
  said = run(asked(tmp_path / "whole"))
  assert 0 < len(kept(tmp_path / "whole")) < COUNT and "--config.data.kept=" in said
  for parts in (2, 7):
    out = tmp_path / str(parts)
    lines = [run(asked(out, part=f"{one}/{parts}")) for one in reversed(range(parts))]
    assert lines[0].startswith(f"part {parts - 1}/{parts} is done") and "writes the index" in lines[0]
    assert files(out) == files(tmp_path / "whole")
  before = (tmp_path / "whole" / "00000.json").stat().st_mtime_ns
  assert run(asked(tmp_path / "whole")) == said and before == (tmp_path / "whole" / "00000.json").stat().st_mtime_ns
  toy[6] = {"captions": {"caption": ["nobody"]}}  # the shard of a record that has changed is made anew, and the index
  run(asked(tmp_path / "whole"))
  run(asked(tmp_path / "anew"))
  assert files(tmp_path / "whole") == files(tmp_path / "anew") != files(tmp_path / "7")


def test_the_score_is_the_cosine_of_the_best_pair(tmp_path, toy):
  toy[2] = {"images": {"a": b"no image"}}
  said = filter_records(asked(tmp_path / "out"), workdir="run", top=0.4)
  filter_records(asked(tmp_path / "parts", part="1/2"), workdir="run", top=0.4)
  filter_records(asked(tmp_path / "parts", part="0/2"), workdir="run", top=0.4)
  assert files(tmp_path / "parts") == files(tmp_path / "out")
  scores = np.concatenate([np.load(tmp_path / "out" / f"{shard:05d}.score.npy") for shard in range(5)])
  record = Toy(COUNT)[7]
  image, texts = model().encode_image([record["images"]["a"]]), model().encode_text(record["captions"]["caption"])
  np.testing.assert_allclose(scores[7], (image @ texts.T).max(), atol=1e-6)
  assert np.isnan(scores[2]) and "1 bad records left out: record 2" not in said
  least = -np.sort(-scores[~np.isnan(scores)])[int(19 * 0.4)]
  assert kept(tmp_path / "out") == np.flatnonzero(scores >= least).tolist()
  assert json.loads((tmp_path / "out" / "kept.json").read_text())["min_score"] == pytest.approx(least)


def test_near_rows_of_records_that_are_kept(tmp_path, toy):
  first = tmp_path / "first"
  filter_records(asked(first), bounds=Rules(min_characters=9))  # those of two digits have "number 10"
  assert kept(first) == list(range(10, 20))
  embed_room.embed("run", "toy", tmp_path / "rows", kind="text", kept=str(first))
  rows = Embeddings(tmp_path / "rows")
  for shard in rows.done:  # rows that are further apart than those of the tiny model
    path = tmp_path / "rows" / f"{shard:05d}.text.npy"
    made = np.random.default_rng(shard).standard_normal(np.load(path).shape).astype(np.float32)
    np.save(path, made / np.linalg.norm(made, axis=1, keepdims=True))
  flat = np.concatenate(list(rows.rows("text")))
  index = np.concatenate([rows.column(shard, "text", "index") for shard in rows.done])
  cosines = flat @ flat.T
  threshold = float(np.quantile(cosines[np.triu_indices(len(flat), 1)], 0.9))
  expected, out = [], []
  for record in range(10):
    its = cosines[np.ix_(index == record, np.isin(index, expected))]
    (out if its.size and its.max() >= threshold else expected).append(record)
  dedup(asked(tmp_path / "out", kept=str(first)), embeddings=tmp_path / "rows", near_from=threshold, kind="text")
  assert kept(tmp_path / "out") == [10 + record for record in expected] and out
  with pytest.raises(UserError, match=r"--embeddings .*: is of toy, split 'train', kept .*; embed the same records"):
    dedup(asked(tmp_path / "other"), embeddings=tmp_path / "rows", near_from=0.9, kind="text")
  (tmp_path / "rows" / "00001.json").unlink()
  with pytest.raises(UserError, match=r"1 of 3 shards are not made yet; run mmcontrast embed again"):
    dedup(asked(tmp_path / "other", kept=str(first)), embeddings=tmp_path / "rows", near_from=0.9, kind="text")
  with pytest.raises(UserError, match=r"first: holds data filter, no embeddings"):
    dedup(asked(tmp_path / "other"), embeddings=first, near_from=0.9)
  assert not (tmp_path / "other").exists()


def test_bad_records_are_left_out_and_named(tmp_path, toy):
  toy[3] = {"images": {"a": b"no image", "b": b"none"}}
  said = dedup(asked(tmp_path / "out"), perceptual=0)
  assert "1 bad" in said and "1 bad records left out: record 3: toy-3: not a readable image" in said
  assert kept(tmp_path / "out") == [0, 2]  # of flat pictures there are two prints: black, and others


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda its, _: filter_records(its), "nothing to filter by; give --rules datacomp"),
    (lambda its, _: filter_records(its, workdir="run"), "--workdir: the run scores; give it with one of --min_score"),
    (lambda its, _: filter_records(its, top=0.3), "--workdir: the run scores"),
    (lambda its, _: filter_records(its, workdir="run", top=3.0), "--top 3: is a share of all records"),
    (lambda its, _: filter_records(its, bounds=Rules(min_side=-1)), "--min_side -1: give a number of 0 or more"),
    (lambda its, _: filter_records(its, bounds=Rules(max_aspect=0.5)), r"--max_aspect 0\.5: .* is 1 or more"),
    (lambda its, _: filter_records(its, bounds=Rules(min_words=99)), r"none of 20 records is kept \(20 min_words\)"),
    (lambda its, _: dedup(its), "nothing to compare; give --exact image"),
    (lambda its, _: dedup(its, near_from=0.9), "--near: compares rows .* give both"),
    (lambda its, _: dedup(its, perceptual=40), "--perceptual 40: is a number of bits from 0 to 16"),
    (lambda its, _: dedup(its, exact="imag"), "--exact: no such choice 'imag'; did you mean 'image'"),
    (lambda its, _: dedup(its, exact="audio"), "--exact: toy has no sounds"),
    (lambda its, _: dedup(its, embeddings="nowhere", near_from=0.9), "nowhere: no embeddings there"),
    (lambda its, path: balance(its, entries=entries(path), most=0), "--most 0: give 1 or more"),
    (lambda its, path: balance(its, entries=str(path / "none")), "--entries .*none: cannot be read"),
    (
      lambda its, path: dedup(Asked("toy", str(path / "out"), part="3/3"), exact="image"),
      "--part 3/3: .*last of 3 is 2/3",
    ),
  ],
)
def test_what_is_asked_wrongly_is_said(tmp_path, call, message):
  with pytest.raises(UserError, match=message) as caught:
    call(asked(tmp_path / "out"), tmp_path)
  assert "\n" not in str(caught.value)


def test_a_folder_of_another_command_or_set_is_refused(tmp_path):
  dedup(asked(tmp_path / "out"), exact="image")
  with pytest.raises(UserError, match="holds data dedup; give an empty folder"):
    filter_records(asked(tmp_path / "out"), bounds=Rules(min_words=1))
  with pytest.raises(UserError, match="holds data dedup of another asked"):
    dedup(asked(tmp_path / "out"), exact="text")
  with pytest.raises(UserError, match="holds data dedup of another source"):
    dedup(asked(tmp_path / "out", split="test"), exact="image")


def test_the_command_line(tmp_path, capsys):
  assert main(["data", "dedup", "toy", "--exact", "text", "--out", str(tmp_path / "out")]) == 0
  assert "20 of 20 records are kept" in capsys.readouterr().out
  assert main(["data", "filter", "toy", "--rules", "datacmp", "--out", str(tmp_path / "out")]) == 2
  assert "--rules: no such choice 'datacmp'; did you mean 'datacomp'" in capsys.readouterr().err
  assert main(["data", "filter", "toy", "--min_characters", "9", "--out", str(tmp_path / "two")]) == 0
  assert "10 of 20 records are kept" in capsys.readouterr().out
  assert main(["data", "balance", "toy", "--entries", entries(tmp_path), "--out", str(tmp_path / "three")]) == 0
  assert kept(tmp_path / "three") == list(range(20))
