"""An index of many shards of embeddings: what it finds, parts of it, what is asked wrongly."""

import numpy as np
import pytest
from tiny import tiny_inference
from toy_source import Toy

from mmcontrast import embed as embed_room
from mmcontrast import search as search_room
from mmcontrast.errors import UserError
from mmcontrast.evaluation import inverted_lists, nearest
from mmcontrast.evaluation.embed import unit
from mmcontrast.index import index
from mmcontrast.inference import embedding_index
from mmcontrast.inference.embedding_index import EmbeddingIndex, Indexer, nearest_rows
from mmcontrast.inference.embeddings import Embeddings, Rows, begin
from mmcontrast.search import search

SHARDS, ROWS, DIM = 7, 400, 16
MODELS = {"run": tiny_inference(step=5), "other": tiny_inference(step=5, seed=1)}


@pytest.fixture(autouse=True)
def toy(monkeypatch):
  """The source "toy" of 20 records in shards of 7; the models by name; two shards of embeddings a file."""
  for room in (embed_room, search_room):
    monkeypatch.setattr(room, "open_source", lambda config, split, data_dir: Toy(20))
    monkeypatch.setattr(room, "load", lambda workdir, step, data_dir: MODELS[str(workdir)])
  monkeypatch.setattr(embed_room, "RECORDS_A_SHARD", 7)
  monkeypatch.setattr(embedding_index, "SHARDS_A_FILE", 2)


def scattered(shard):
  """Unit rows about forty middles; a shard holds fewer than another, and one none."""
  draw = np.random.default_rng((1, shard))
  middles = np.random.default_rng(0).standard_normal((40, DIM))
  count = 0 if shard == 2 else ROWS - shard
  return unit((middles[draw.integers(0, 40, count)] + draw.standard_normal((count, DIM))).astype(np.float32))


def written(folder, model="a", rows=scattered):
  """Embeddings of made-up images, without a run."""
  manifest = {"records": SHARDS * ROWS, "records_a_shard": ROWS, "kinds": ["image"], "format": "npy"}
  manifest |= {"source": {}, "model": {"workdir": "runs/x", "step": 5, "digest": model}}
  there = begin(folder, manifest)
  for shard in range(SHARDS):
    its = rows(shard)
    there.write(shard, {"image": Rows(its, {"name": [f"{shard}-{n}" for n in range(len(its))]})}, {}, f"digest {shard}")
  return there


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  """(embeddings, the folder of an index of them)"""
  folder = tmp_path_factory.mktemp("index")
  with pytest.MonkeyPatch.context() as patched:
    patched.setattr(embedding_index, "SHARDS_A_FILE", 2)
    there = written(folder / "rows")
    said = index(folder / "rows", folder / "made")
  assert said == (
    f"2381 images of {folder / 'rows'} in 61 lists, 4 files of {folder / 'made'}; search them with --index "
    f"{folder / 'made'}"
  )
  return there, folder / "made"


def test_it_finds_what_all_rows_give(whole):
  there, folder = whole
  made, hits = EmbeddingIndex(folder), 0
  queries = [scattered(shard)[place] for shard in (0, 1, 3, 6) for place in range(0, 350, 35)]
  for query in queries:
    found, true = made.nearest(there, query, 10), nearest.exact(query, there.rows("image"), 10)
    ids = there.ids("image", true.index)
    hits += len(set(found.index) & set(ids))
    assert found.index[0] == ids[0] and (np.diff(found.cosine) <= 0).all()
    np.testing.assert_allclose(found.cosine, there.rows_of("image", found.index) @ query, atol=1e-6)
    np.testing.assert_array_equal(there.places("image", ids), true.index)
  assert hits >= 0.95 * 10 * len(queries)
  every = made.nearest(there, queries[0], 10, probes=1000)  # all lists, of which there are fewer
  np.testing.assert_array_equal(
    every.index, there.ids("image", nearest.exact(queries[0], there.rows("image"), 10).index)
  )
  assert [one["name"] for one in there.describe_ids("image", every.index[:1])] == ["0-0"]
  assert len(made.nearest(there, queries[0], 3000, probes=1000).index) == 2381


def test_only_what_is_near_is_read(whole, monkeypatch):
  """A query reads the rows of its candidates: no other shard is opened, no table but for the markers of the results."""
  there, folder = Embeddings(whole[0].folder), whole[1]
  opened, real = [], Embeddings.shard_rows
  monkeypatch.setattr(
    Embeddings, "shard_rows", lambda self, shard, kind: opened.append(shard) or real(self, shard, kind)
  )
  monkeypatch.setattr(embedding_index, "_FEWEST", 1)
  monkeypatch.setattr(embedding_index, "_CANDIDATES", 1)
  found = EmbeddingIndex(folder).nearest(there, scattered(3)[5], 1)
  assert opened == [3] and list(there._known) == [3] and found.index.tolist() == [3 * 2**32 + 5]


@pytest.mark.parametrize("parts", [1, 2, 7])
def test_all_parts_together_are_one_run(whole, tmp_path, parts):
  there, folder = whole
  said = [index(there.folder, tmp_path / "parts", part=f"{one}/{parts}") for one in reversed(range(parts))]
  assert {file.name: file.read_bytes() for file in (tmp_path / "parts").iterdir()} == {
    file.name: file.read_bytes() for file in folder.iterdir()
  }
  assert "in 61 lists, 4 files of" in said[-1]
  if parts == 2:
    assert said[0].startswith("part 1/2 is done: 2 of 4 shards of") and "2 of the other parts are not made" in said[0]


def test_what_has_changed_is_made_again(tmp_path):
  there = written(tmp_path / "rows")
  index(tmp_path / "rows", tmp_path / "made")
  kept = (tmp_path / "made" / "00000.faiss").stat().st_mtime_ns
  rows = scattered(3)
  rows[5] = 0
  rows[5, 0] = 1
  there.write(3, {"image": Rows(rows, {"name": ["new"] * len(rows)})}, {}, "other records")
  with pytest.raises(
    UserError, match=r"made: shard 3 of .*rows has been embedded again since; run mmcontrast index ag"
  ):
    EmbeddingIndex(tmp_path / "made").nearest(Embeddings(tmp_path / "rows"), scattered(3)[0], 1)
  index(tmp_path / "rows", tmp_path / "made")
  assert (tmp_path / "made" / "00000.faiss").stat().st_mtime_ns == kept
  found = EmbeddingIndex(tmp_path / "made").nearest(Embeddings(tmp_path / "rows"), rows[5], 1)
  assert found.index.tolist() == [3 * 2**32 + 5]


def test_many_rows_are_searched_by_an_index_beside_them(tmp_path, monkeypatch):
  there, query = written(tmp_path), scattered(4)[7]
  true = nearest_rows(there, "image", query, 3)
  assert not (tmp_path / "image.index").exists()
  monkeypatch.setattr(embedding_index, "LARGE", 100)
  for width in (0, 5):
    found = nearest_rows(there, "image", unit(query[None, : width or DIM])[0], 3, width)
    assert found.index[0] == true.index[0] and found.cosine[0] == pytest.approx(1, abs=1e-5)
    assert (tmp_path / ("image-5.index" if width else "image.index") / "manifest.json").is_file()


def test_search_by_the_command(tmp_path, capsys):
  embed_room.embed("run", "toy", tmp_path / "rows")
  index(tmp_path / "rows", tmp_path / "images")
  index(tmp_path / "rows", tmp_path / "texts", kind="text")
  assert search("run", "number 7", index=tmp_path / "images", count=4) == search(
    "run", "number 7", embeddings=tmp_path / "rows", count=4
  )
  assert search("run", "number 7", index=tmp_path / "texts", probes=1)[0].score == pytest.approx(1, abs=1e-5)
  (tmp_path / "rows").rename(tmp_path / "moved")
  with pytest.raises(UserError, match="rows: no embeddings there"):
    search("run", "number 7", index=tmp_path / "images")
  assert len(search("run", "number 7", index=tmp_path / "images", embeddings=tmp_path / "moved", count=5)) == 5


def test_what_is_asked_wrongly(whole, tmp_path):
  folder = whole[1]
  embed_room.embed("run", "toy", tmp_path / "rows")
  index(tmp_path / "rows", tmp_path / "made")
  embed_room.embed("other", "toy", tmp_path / "others")
  wrong = (
    (dict(index=tmp_path / "none"), r"--index .*none: no index there; make one: mmcontrast index EMBEDDINGS --out"),
    (dict(index=tmp_path / "rows"), r"holds embeddings, no index; search embeddings with --embeddings, or index"),
    (dict(index="gs://bucket/made"), "--index gs://bucket/made: is a URL, and an index is mapped from a disk"),
    (dict(index=tmp_path / "made", embeddings=tmp_path / "others"), "made: is of embeddings of another model"),
    (dict(index=folder), "rows: made by another model"),
    (dict(index=tmp_path / "made", kind="text"), "--kind text: .*made is an index of images; leave it out"),
    (dict(index=tmp_path / "made", width=2), "--width 2: .* is an index of all numbers; leave it out, or index with"),
    (dict(index=tmp_path / "made", probes=-1), "--probes -1: give 1 or more"),
    (dict(embeddings=tmp_path / "rows", probes=3), "--probes 3: is of an index; give --index DIR"),
    (dict(index=tmp_path / "made", dataset="emoji"), "all but one of SOURCE, --dataset and --index"),
  )
  for options, message in wrong:
    with pytest.raises(UserError, match=message):
      search("run", "x", **options)
  for change, message in (
    (dict(kind="audio"), "--kind: no such choice 'audio'"),
    (dict(width=5), "--width 5: .*rows holds vectors of 4 numbers; give 1 to 4"),
    (dict(embeddings=tmp_path / "none"), "none: no embeddings there"),
    (dict(out=tmp_path / "rows"), "rows: holds embeddings; give an empty folder"),
    (dict(kind="text"), "--out .*made: holds an index of another kind"),
    (dict(embeddings=tmp_path / "others"), "--out .*made: holds an index of embeddings of another model"),
    (dict(part="2/2"), "--part 2/2"),
  ):
    asked = dict(embeddings=tmp_path / "rows", out=tmp_path / "made") | change
    with pytest.raises(UserError, match=message):
      index(**asked)
  (tmp_path / "made" / "00001.json").unlink()
  with pytest.raises(UserError, match="1 of 2 files of the index are not made yet; run the rest of mmcontrast index"):
    search("run", "x", index=tmp_path / "made")
  (tmp_path / "rows" / "00001.json").unlink()
  with pytest.raises(UserError, match="1 of 3 shards are not made yet; run mmcontrast embed again"):
    index(tmp_path / "rows", tmp_path / "made")


def test_nothing_to_index_and_no_faiss(tmp_path, monkeypatch):
  written(tmp_path / "empty", rows=lambda shard: np.zeros((0, DIM), np.float32))
  with pytest.raises(UserError, match="empty: holds no image embeddings, there is nothing to index"):
    index(tmp_path / "empty", tmp_path / "made")
  assert not (tmp_path / "made").exists()
  monkeypatch.setattr(inverted_lists, "has_faiss", lambda: False)
  with pytest.raises(UserError, match=r"needs the package faiss; pip install 'mmcontrast\[search\]'"):
    Indexer(tmp_path / "empty", tmp_path / "made")
