"""Weights of examples: a column of every source that has columns, in the batch where an option names it."""

import json

import numpy as np
import pytest
from coco_fixture import make_coco, read, write
from own_data import encode, picture
from own_data import write as write_file
from shard_fixture import jpeg, write_tar, write_tfrecord

from mmcontrast.cost import dry_run
from mmcontrast.data import convert, pipeline
from mmcontrast.data.index_shards import index_shards
from mmcontrast.data.sources import BadRecord, open_source
from mmcontrast.errors import UserError
from mmcontrast.training.step import _info

WEIGHTS = (0.5, None, 2, 0)
EXPECTED = [0.5, 1.0, 2.0, 0.0]


def made(kind, folder):
  """`data.dataset` of four examples with WEIGHTS."""
  if kind in ("webdataset", "tfrecord"):
    names = [json.dumps({} if weight is None else {"score": weight}) for weight in WEIGHTS]
    if kind == "webdataset":
      write_tar(folder / "0.tar", [(f"{n}.{end}", data) for n, name in enumerate(names)
                                   for end, data in (("jpg", jpeg(n)), ("json", name.encode()))])  # fmt: skip
    else:
      write_tfrecord(folder / "0.tar", [{"jpg": jpeg(n), "json": name} for n, name in enumerate(names)])
    index_shards(f"{folder}/0.tar", workers=1)
    return f"{kind}:{folder}/0.tar"
  rows = [{"image": f"{n}.png", "score": weight} for n, weight in enumerate(WEIGHTS)]
  for n in range(4):
    write_file(f"{folder}/{n}.png", picture(n))
  write_file(f"{folder}/rows.{kind}", encode(kind, rows))
  return f"{kind}:{folder}/rows.{kind}"


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "webdataset", "tfrecord"])
def test_weights_come_from_a_column_and_are_one_where_it_is_empty(kind, tmp_path):
  dataset, options = made(kind, tmp_path), dict(weight="score", caption=None)
  source = open_source({"dataset": dataset, "source": options}, "train")
  assert [source[n]["weight"] for n in range(4)] == EXPECTED and source.info.weighted
  config = dict(dataset=dataset, source=options, views=dict(image=1), image_size=8)
  assert pipeline.spec(config, 4).batch["weight"] == ((4,), np.dtype(np.float32))
  for changes, weighted in (({}, True), (dict(source=dict(caption=None)), False)):
    iterator = pipeline.train_batches({**config, **changes}, seed=0, batch_size=4)
    batch = next(iterator)
    iterator.close()
    assert ("weight" in batch) == weighted == ("weight" in _info(batch))
    if weighted:
      np.testing.assert_array_equal(batch["weight"], np.array(EXPECTED, np.float32)[batch["index"]])
  convert.convert(dataset, options, "train", tmp_path / "converted", workers=1)
  converted = open_source({"dataset": f"array_record:{tmp_path}/converted"}, "train")
  assert [converted[n]["weight"] for n in range(4)] == EXPECTED and converted.info.weighted


def test_weights_of_cocos_format(tmp_path, data_dir):
  root = make_coco(tmp_path, data_dir, "val")
  table = read(root, "captions")
  for n, image in enumerate(table["images"]):
    image |= {"clip_score": n / 2} if n % 3 else {}
  write(root, "captions", **table)
  options = {"dataset": f"coco:{root}", "source": {"weight": "clip_score"}}
  source = open_source(options, "val")
  found = [source[n]["weight"] for n in range(len(source))]
  assert found == [n / 2 if n % 3 else 1.0 for n in reversed(range(24))]  # in the order of ids
  with pytest.raises(UserError, match=r"data\.source\.weight: no image has a key 'clipscore'"):
    open_source({**options, "source": {"weight": "clipscore"}}, "val")


def test_a_mixture_has_weights_where_one_of_its_sources_has(tmp_path):
  dataset = made("jsonl", tmp_path)
  mixture = dict(a=dict(dataset=dataset, source=dict(weight="score", caption=None)),
                 b=dict(dataset=dataset, source=dict(caption=None)))  # fmt: skip
  iterator = pipeline.train_batches(dict(mixture=mixture, views=dict(image=1), image_size=8), seed=0, batch_size=8)
  batch = next(iterator)
  iterator.close()
  np.testing.assert_array_equal(batch["weight"][np.argsort(batch["index"])], [*EXPECTED, 1, 1, 1, 1])


@pytest.mark.parametrize(("weight", "message"), [
  (float("nan"), "column 'score' is nan; a weight is a finite number, 0 or more"), (-0.5, "is -0.5; a weight"),
  (float("inf"), "is inf; a weight"), ("heavy", "is 'heavy', which is not a weight"), ("nan", "is nan; a weight"),
  ([1.0], "is a list, not a weight"),
])  # fmt: skip
def test_what_is_no_weight_is_a_bad_record(weight, message, tmp_path):
  write_file(f"{tmp_path}/rows.jsonl", json.dumps({"caption": "a", "score": weight}).encode())
  source = open_source({"dataset": f"jsonl:{tmp_path}/rows.jsonl", "source": dict(weight="score", image=None)}, "train")
  with pytest.raises(BadRecord, match=message):
    source[0]


def test_texts_that_are_weights_or_missing(tmp_path):
  rows = "caption,score\na,0.25\na, 3 \na,\na,1e-3\na,-\n"
  write_file(f"{tmp_path}/rows.csv", rows.encode())
  options = dict(weight="score", image=None, missing=["-"])
  source = open_source({"dataset": f"csv:{tmp_path}/rows.csv", "source": options}, "train")
  assert [source[n]["weight"] for n in range(5)] == [0.25, 3.0, 1.0, 0.001, 1.0]
  with pytest.raises(UserError, match=r"no column 'scor', which data\.source\.weight names; did you mean 'score'"):
    open_source({"dataset": f"csv:{tmp_path}/rows.csv", "source": dict(options, weight="scor")}, "train")


def test_the_dry_run_knows_of_weights_without_the_data(tmp_path):
  from tiny import tiny_config

  config = tiny_config()
  config["data"] = {**config["data"], "dataset": "emoji_views"}
  assert "weight" not in dry_run.find_spec(config, tmp_path)[0].batch
  config["data"] = {**config["data"], "dataset": "coco:nowhere", "source": {"weight": "clip_score"}}
  assert dry_run.find_spec(config, tmp_path)[0].batch["weight"] == ((16,), np.dtype(np.float32))
