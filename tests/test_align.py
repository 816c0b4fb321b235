"""`mmcontrast align`, and its map in `search` and `embed`: from the space of one run into that of another."""

import numpy as np
import pytest
from PIL import Image
from tiny import tiny_inference
from toy_source import Toy

from mmcontrast import align as room
from mmcontrast import embed as program
from mmcontrast import search as search_room
from mmcontrast.align import align
from mmcontrast.cli import main
from mmcontrast.errors import UserError
from mmcontrast.evaluation.embed import unit
from mmcontrast.inference import space_map
from mmcontrast.inference.embeddings import Embeddings
from mmcontrast.search import search

COUNT = 30
MODELS = {
  "old": tiny_inference(step=5),
  "new": tiny_inference(step=7, seed=1),
  "pictures": tiny_inference(step=3, seed=2, text="", features="image"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  """Embeddings of 30 records by "old" and "new", and the map of images from new to old."""
  folder = tmp_path_factory.mktemp("align")
  with pytest.MonkeyPatch.context() as patch:
    _open(patch)
    for name in MODELS:
      program.embed(name, "toy", folder / name)
  return folder


def _open(patch):
  for module in (program, search_room):
    patch.setattr(module, "open_source", lambda config, split, data_dir: Toy(COUNT))
    patch.setattr(module, "load", lambda workdir, step, data_dir: MODELS[str(workdir)])


@pytest.fixture(autouse=True)
def toy(monkeypatch):
  _open(monkeypatch)


def picture(number, tmp_path):
  Image.fromarray(np.full((12, 12, 3), (number, 0, 0), np.uint8)).save(tmp_path / "query.png")
  return str(tmp_path / "query.png")


def test_a_query_of_the_new_run_is_searched_among_what_the_old_one_embedded(made, tmp_path):
  done = align(made / "new", made / "old", tmp_path / "map.npz", kinds="image,image")
  assert set(done.retrieval) == {"none", "least_squares", "ridge", "procrustes", "robust_procrustes"}
  assert "held out: 12 images and 12 images; fitted to 48 pairs" in done.text
  query = picture(17, tmp_path)
  found = search("new", query, embeddings=made / "old", to_space=tmp_path / "map.npz", kind="image", count=40)
  there, mapped = Embeddings(made / "old"), space_map.read(tmp_path / "map.npz")
  row = MODELS["new"].encode_image(query)
  expected = np.concatenate(list(there.rows("image"))) @ unit(mapped.rows(row))[0]
  np.testing.assert_allclose([one.score for one in found], np.sort(expected)[::-1][:40], atol=1e-5)
  words = search(
    "new", "number 3", embeddings=made / "old", to_space=tmp_path / "map.npz", count=1
  )  # of the same space
  assert words[0].name.startswith("toy-")


def test_held_out_retrieval_is_of_records_that_the_map_was_not_fitted_to(made, tmp_path, monkeypatch):
  fitted = []
  monkeypatch.setattr(room, "fit", lambda x, y, method, l2: fitted.append(len(x)) or _real(x, y, method, l2))
  done = align(made / "new", made / "old", tmp_path / "map.npz", kinds="image,text", held_out=0.5, method="procrustes")
  assert set(fitted) == {15 * 2 * 2}  # two drawings and two captions of each of fifteen records
  assert done.retrieval["procrustes"]["there/queries"] == 30 and "images find captions" in done.text
  assert space_map.read(tmp_path / "map.npz").notes["method"] == "procrustes"


_real = room.fit


def test_more_things_are_put_into_the_space_of_the_old_run(made, tmp_path):
  align(made / "new", made / "old", tmp_path / "map.npz", kinds="image,image")
  program.embed("new", "toy", tmp_path / "more", kind="image", to_space=tmp_path / "map.npz")
  mapped = space_map.read(tmp_path / "map.npz")
  rows = np.concatenate(list(Embeddings(made / "new").rows("image")))
  np.testing.assert_allclose(
    np.concatenate(list(Embeddings(tmp_path / "more").rows("image"))), mapped.rows(rows), atol=1e-6
  )
  found = search("old", "number 4", embeddings=tmp_path / "more", count=2)
  assert found[0].score >= found[1].score and found[0].name.startswith("toy-")
  with pytest.raises(UserError, match=r"mapped into the space of another model \(of old\) than pictures"):
    search("pictures", picture(1, tmp_path), embeddings=tmp_path / "more")
  with pytest.raises(UserError, match="mapped or cut; align those of whole vectors"):
    align(tmp_path / "more", made / "old", tmp_path / "again.npz", kinds="image,image")


def test_spaces_of_other_lengths_have_no_line_without_a_map(made, tmp_path):
  assert (
    main(["align", str(made / "new"), str(made / "old"), "--out", str(tmp_path / "m.npz"), "--kinds", "text,image"])
    == 0
  )
  done = align(made / "pictures", made / "old", tmp_path / "map.npz", kinds=("image", "text"))
  assert ("none" in done.retrieval) == (
    MODELS["pictures"].encode_image(np.zeros((1, 16, 16, 3), np.uint8)).shape[1] == 4
  )


@pytest.mark.parametrize(
  "run, options, message",
  [
    ("old", {}, r"the map leads from the space of another model \(of new\); give that run, or align again"),
    ("new", dict(width=2), "--width is of one run's space; leave it out"),
    ("new", dict(rerank=20), "--rerank is of one run's space; leave it out"),
    ("new", dict(embeddings=None), "a query is mapped to search what another run embedded; give --embeddings DIR"),
    ("new", dict(embeddings="new"), "is of the space of new, and the map leads to that of old"),
    ("new", dict(kind="audio"), "--kind: no such choice 'audio'; .one of: image, text"),
  ],
)
def test_a_map_that_does_not_fit_is_one_line(made, tmp_path, run, options, message):
  align(made / "new", made / "old", tmp_path / "map.npz", kinds="image,image")
  options = dict(embeddings="old", to_space=tmp_path / "map.npz") | options
  if options["embeddings"]:
    options["embeddings"] = made / options["embeddings"]
  with pytest.raises(UserError, match=message):
    search(run, "number 3", **options)


@pytest.mark.parametrize(
  "options, message",
  [
    (dict(kinds=None), "--kinds: .*say which are aligned, such as --kinds image,text"),
    (dict(kinds="image"), "--kinds image: give two"),
    (dict(kinds="image,sound"), "--kinds: of .*no such choice 'sound'"),
    (dict(method="svd"), "--method: no such choice 'svd'"),
    (dict(held_out=1.0), "--held_out 1: a share of the records"),
    (dict(out="map.txt"), "a map is a .npz file; give map.txt.npz"),
  ],
)
def test_what_align_cannot_do_is_one_line(made, tmp_path, options, message):
  options = dict(kinds="image,image", out="map.npz") | options
  with pytest.raises(UserError, match=message):
    align(made / "new", made / "old", tmp_path / options.pop("out"), **options)
  assert not list(tmp_path.iterdir())


def test_too_few_records_to_fit_to_are_said(made, tmp_path, monkeypatch):
  monkeypatch.setattr(room, "held_out_concepts", lambda ids, *_: np.arange(len(ids)) > 0)
  with pytest.raises(
    UserError, match=r"--held_out 0.99: leaves 1 pairs to fit a map to, and it takes two; give a smaller"
  ):
    align(made / "new", made / "old", tmp_path / "map.npz", kinds="image,image", held_out=0.99)


def test_a_file_that_is_no_map_is_said(made, tmp_path):
  (tmp_path / "map.npz").write_bytes(b"PK nothing")
  with pytest.raises(UserError, match="is no map of spaces, which `mmcontrast align` writes"):
    space_map.read(tmp_path / "map.npz")
  with pytest.raises(UserError, match="no such file; make one: mmcontrast align FIRST SECOND --out"):
    space_map.read(tmp_path / "other.npz")
