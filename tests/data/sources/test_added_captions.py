"""Captions from a file beside those of a source: fields, what is refused, and what a run makes such a file of."""

import json

import numpy as np
import pytest
from tiny import tiny_inference
from toy_source import Toy

from mmcontrast import retrieve as program
from mmcontrast.data.record import BadRecord
from mmcontrast.data.sources import open_source
from mmcontrast.data.sources.added_captions import AddedCaptions
from mmcontrast.data.sources.keys import key_of
from mmcontrast.errors import UserError

COUNT = 20


def written(tmp_path, *rows):
  path = tmp_path / "added.jsonl"
  path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
  return str(path)


def test_a_record_has_both(tmp_path):
  rows = {"index": 3, "name": "toy-3", "concept": ["a", "b"], "negative": "no"}, {"index": 0, "concept": []}
  path = written(tmp_path, *rows)
  source = AddedCaptions(Toy(COUNT), path)
  assert source.info.caption_fields == ("caption", "concept", "negative") and len(source) == COUNT
  assert source[3]["captions"] == {"caption": ["number 3", "the 3 th"], "concept": ["a", "b"], "negative": ["no"]}
  assert source[4]["captions"] == {"caption": ["number 4", "the 4 th"]} == {**Toy(COUNT)[4]["captions"]}
  assert key_of(source, 4) == key_of(Toy(COUNT), 4) and key_of(source, 3) != key_of(Toy(COUNT), 3)


@pytest.mark.parametrize(
  ("rows", "message"),
  [
    ([{"index": 0, "caption": ["x"]}], r"has the field 'caption', which toy has; give it another name"),
    ([{"index": 20, "concept": ["x"]}], r"a line for record 20, and toy has 20 records in this split"),
    ([{"concept": ["x"]}], r"line 1: names no record"),
    ([{"index": True, "concept": ["x"]}], r"line 1: names no record"),
    ([{"index": 1, "concept": ["x"]}, {"index": 1, "other": ["x"]}], r"line 2: a second line for record 1"),
    ([{"index": 1, "concept": [3]}], r"line 1: 'concept' is no text and no list of texts"),
    (["{\n"], r"line 1: no JSON"),
    ([], r"is empty; leave it out, or make it by `mmcontrast data retrieve`"),
  ],
)
def test_what_is_no_such_file(tmp_path, rows, message):
  with pytest.raises(UserError, match=f"data.added_captions: .*{message}"):
    AddedCaptions(Toy(COUNT), written(tmp_path, *rows))


def test_other_data_and_mixtures_are_refused(tmp_path):
  source = AddedCaptions(Toy(COUNT), written(tmp_path, {"index": 2, "name": "cat", "concept": "x"}))
  with pytest.raises(BadRecord, match="was made of other data: record 2 is 'toy-2', not 'cat'"):
    source[2]
  with pytest.raises(UserError, match=r"none\.jsonl cannot be read \(No such file"):
    AddedCaptions(Toy(COUNT), str(tmp_path / "none.jsonl"))
  rows = written(tmp_path, *({"image": "x.png", "caption": "x"},) * 3)
  mixture = {"mixture": {"a": {"dataset": f"jsonl:{rows}"}}, "added_captions": rows}
  with pytest.raises(UserError, match="is of one dataset, and this is a mixture"):
    open_source(mixture, "train")


@pytest.fixture
def model(monkeypatch):
  found = tiny_inference(step=5)
  monkeypatch.setattr(program, "load", lambda workdir, step, data_dir: found)
  monkeypatch.setattr(program, "open_source", lambda config, split, data_dir: Toy(COUNT))
  return found


def test_the_nearest_texts_of_each_record(model, tmp_path):
  """By its images, of all other records' captions, and of a list; one field after the other in one file."""
  out = tmp_path / "found.jsonl"
  assert "2 captions 'negative' of 20 records, of " in program.retrieve("run", "toy", "negative", out, count=2)
  source = AddedCaptions(Toy(COUNT), str(out))
  texts = list(dict.fromkeys(text for i in range(COUNT) for text in Toy(COUNT)[i]["captions"]["caption"]))
  rows = model.encode_text(texts)
  for index in (0, 7, 19):
    images = model.encode_image(list(Toy(COUNT)[index]["images"].values()))
    scores = rows @ images.sum(0)
    own = [texts.index(text) for text in Toy(COUNT)[index]["captions"]["caption"]]
    scores[own] = -np.inf
    found = source[index]["captions"]["negative"]
    assert len(found) == 2 and not set(found) & set(Toy(COUNT)[index]["captions"]["caption"])
    np.testing.assert_allclose(scores[[texts.index(text) for text in found]], np.sort(scores)[::-1][:2], atol=1e-5)
  (tmp_path / "concepts.txt").write_text("one\n\ntwo  words\nthree\none\n")
  program.retrieve("run", "toy", "concept", out, texts=tmp_path / "concepts.txt", count=1, by="text")
  both = AddedCaptions(Toy(COUNT), str(out))
  assert both[0]["captions"]["concept"][0] in ("one", "two words", "three")
  assert both[0]["captions"]["negative"] == source[0]["captions"]["negative"]


def test_what_cannot_be_retrieved(model, tmp_path):
  (tmp_path / "few.txt").write_text("one\n")
  for options, message in (
    (dict(count=0), "--count 0: give 1 or more"),
    (dict(field="caption"), "--field 'caption': is taken in toy"),
    (dict(by="audio"), "--by: no such choice 'audio'|--by: "),
    (dict(texts=tmp_path / "few.txt"), "--texts: 1 different texts, of which 3 are to be found"),
    (dict(texts=tmp_path / "none.txt"), r"none\.txt: cannot be read \(No such file"),
  ):
    with pytest.raises(UserError, match=message):
      program.retrieve("run", "toy", **({"field": "found", "out": tmp_path / "x.jsonl"} | options))
  assert not (tmp_path / "x.jsonl").exists()
