"""The pictures exist, at a sane size, with ink on them; the table says trained on and held out."""

import io

import numpy as np
import PIL.Image
import pytest
from image_text_set import image_text_set

from mmcontrast.errors import UserError
from mmcontrast.evaluation import retrieval
from mmcontrast.evaluation.embedded_set import EmbeddedSet
from mmcontrast.report import canvas, fonts, retrieval_picture, search_picture, table
from mmcontrast.report.picture_path import png_path


def _embedded(images=12, captions=20, noise=0.5, **changes):
  rng = np.random.default_rng(0)
  concepts = rng.normal(size=(captions, 8))
  data = image_text_set(**({
    "name": "emoji_noto", "seen": False,
    "images": rng.integers(0, 256, (images, 16, 16, 3)).astype(np.uint8),
    "image_id": np.arange(images), "caption_id": np.arange(captions),
    "captions": [f"${i} & _{i}^ " + "a long name " * (i % 6) for i in range(captions)],
  } | changes))  # fmt: skip
  return EmbeddedSet(data, lambda kind, values: {
    "image": concepts[:images] + noise * rng.normal(size=(images, 8)), "text": concepts
  }[kind])  # fmt: skip


def _open(path):
  with PIL.Image.open(path) as image:
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB"))


def _greens(pixels):
  return (np.abs(pixels.astype(int) - [0x1A, 0x8F, 0x4C]).max(axis=-1) < 8).sum()


def test_retrieval_picture(tmp_path):
  path = retrieval_picture.draw(tmp_path / "new" / "retrieval.png", _embedded())
  pixels = _open(path)
  assert 1200 < pixels.shape[1] < 2400 and 800 < pixels.shape[0] < 1600
  assert (pixels[0] == 255).all() and (pixels[:, -1] == 255).all()  # nothing runs off the page
  assert _greens(pixels) > 1000


def test_retrieval_picture_of_few_things(tmp_path):
  path = retrieval_picture.draw(tmp_path / "few.png", _embedded(images=2, captions=3), rows=6)
  assert _open(path).shape[0] < 600
  with pytest.raises(UserError, match="nothing to show"):
    retrieval_picture.draw(tmp_path / "none.png", _embedded(image_id=np.arange(12) + 100))
  assert not (tmp_path / "none.png").exists()


def test_frames_are_green_only_where_right(tmp_path):
  """With names that fit no picture in the first place, green is left to the two headings."""
  wrong = _embedded(captions=300, images=300, image_id=(np.arange(300) + 150) % 300)
  right = _embedded(captions=300, images=300, noise=0.0)
  wrong, right = (retrieval_picture.draw(tmp_path / f"{n}.png", e) for n, e in enumerate((wrong, right)))
  assert _greens(_open(right)) > 5 * _greens(_open(wrong))


def test_rank_and_shown_order_are_one_where_scores_are_tied():
  """Captions 0, 2 and 4 are tied, 4 is right: it is found after the other two, as its rank says."""
  queries, gallery = np.eye(2)[:1], np.eye(2)[[0, 1, 0, 1, 0, 1]]
  matches = np.array([[False, False, False, False, True, True]])
  nearest, right, rank = retrieval.best_candidates(queries, gallery, matches, np.array([0]))
  assert nearest[0].tolist()[:3] == [0, 2, 4] and right[0].tolist() == [False, False, True, False, False, True]
  assert rank.tolist() == retrieval.ranks(queries, gallery, matches).tolist() == [3]
  alone = np.ones((20, 3))  # all is tied: the right one is the last
  nearest, right, rank = retrieval.best_candidates(alone, alone, np.eye(20, dtype=bool), np.arange(20))
  assert (rank == 20).all() and (nearest[:, -1] == np.arange(20)).all()


def test_the_right_one_is_shown_in_the_place_of_its_rank_whatever_the_ties():
  rng = np.random.default_rng(0)
  queries, gallery = rng.integers(-1, 2, (60, 3)).astype(float), rng.integers(-1, 2, (40, 3)).astype(float)
  matches = rng.random((60, 40)) < 0.1
  which = np.flatnonzero(matches.any(1))
  _, right, rank = retrieval.best_candidates(queries, gallery, matches, which)
  assert (rank == retrieval.ranks(queries, gallery, matches, which=which)).all()
  assert (right.argmax(1) + 1 == rank).all() and len(set(rank.tolist())) > 5


@pytest.mark.parametrize("query", ["red $heart$ " * 9, np.zeros((8, 12, 3), np.uint8)])
@pytest.mark.parametrize("count", [1, 7])
def test_found_picture(tmp_path, query, count):
  images = [np.zeros((16, 16, 3), np.uint8), *np.zeros((count - 1, 900, 900, 3), np.uint8)]
  labels = [("a caption of many words indeed", "/a/path/that is long/and goes on/0001.jpg"), ("", "b\udc80.png")]
  path = search_picture.draw_results(
    tmp_path / "found.png", query, images, (labels * count)[:count], [0.5] * count, title="emoji_noto",
  )  # fmt: skip
  pixels = _open(path)
  assert 400 < pixels.shape[1] < 1400 and 250 < pixels.shape[0] < 1400
  assert (pixels[:, -1] == 255).all()
  assert (pixels == 0).all(axis=-1).sum() > count * 100 * 100


def test_letters_that_no_font_has_are_code_points(monkeypatch, tmp_path, recwarn, caplog):
  has = {"/dejavu": "abc d", "/noto": "红心", "/plain": "\u4e2d", "/bold": ""}  # without bold, a title's would be a box
  monkeypatch.setattr(
    fonts,
    "_installed",
    lambda: [("DejaVu Sans", ("/dejavu",)), ("Half Bold", ("/bold", "/plain")), ("Noto Sans CJK", ("/noto",))],
  )
  monkeypatch.setattr(fonts, "_letters_of", lambda path: frozenset(map(ord, has[path])))
  fonts._family_of.cache_clear()
  assert fonts.drawable("a 红\u4e2d\ufe0f\n") == ("a 红\\u4e2d ", ["DejaVu Sans", "Noto Sans CJK"])
  assert fonts.columns("ab红") == 4 and fonts.clip("红红红红", 6) == "红红…"
  assert fonts.wrap("红" * 5 + " d", 6) == ["红红红", "红红 d"]
  monkeypatch.undo()
  fonts._family_of.cache_clear()
  query = "红心 \U0001f469\u200d\U0001f680 \ud800 ❤️ " + "ᚠ" * 30  # whatever fonts there are: no box, nothing said
  search_picture.draw_results(
    tmp_path / "f.png", query, [np.zeros((4, 4, 3), np.uint8)], [(query, query)], [0.5], title=query
  )
  assert not recwarn.list and not caplog.records


def test_fonts_that_only_show_boxes_are_not_used():
  paths = [path.lower() for _, paths in fonts._installed() for path in paths]
  assert not any("lastresort" in path or "color" in path for path in paths)
  assert fonts._installed()[0][0] == "DejaVu Sans" and ord("a") in fonts._letters_of(fonts._installed()[0][1][0])


@pytest.mark.parametrize(("words", "lines"), [
  ("a caption of many words indeed", ["a caption of many", "words indeed"]),
  ("one two three four five six seven eight", ["one two three four", "five six seven …"]),
  ("p/anunbreakablywronglylongname.jpg of", ["p/anunbreakablywro…", "of"]),
  ("well-known co-operation is-kept", ["well-known", "co-operation …"]),
  ("", []),
])  # fmt: skip
def test_words_are_not_broken(words, lines):
  assert fonts.wrap(words, 19, 2) == lines


def test_of_a_long_name_the_end_is_shown():
  assert fonts.clip_left("/a/long folder/0001.jpg", 12) == "…er/0001.jpg"
  assert fonts.clip_left("0001.jpg", 12) == "0001.jpg"


def test_where_a_picture_goes(tmp_path):
  assert png_path(tmp_path / "found", "--out") == tmp_path / "found.png"
  assert png_path(tmp_path / "v1.5 found.PNG", "--out") == tmp_path / "v1.5 found.PNG"
  for name, message in (("found.txt", "such as .*/found.png"), ("a.jpeg", "ends in .png"), ("", "is a folder")):
    with pytest.raises(UserError, match=message):
      png_path(tmp_path / name, "--out")
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match="cannot be written"):
    canvas.Canvas(1, 1).save(tmp_path / "file" / "found.png")


RESULTS = {
  "seen_one/image_to_text/recall@1": 0.8912,
  "seen_one/image_to_text/median_rank": 1.0,
  "emoji_noto/image_to_text/recall@1": 0.3104,
  "emoji_noto/image_to_text/median_rank": 12.5,
  "emoji_noto/image_to_text/queries": 1637.0,
  "emoji_noto/linear_probe/group_l2": 0.1,
  "emoji_noto/linear_probe/group_classes": 9.0,
}


class _Terminal(io.StringIO):
  def isatty(self):
    return True


def test_table_as_plain_text():
  file = io.StringIO()
  text = table.show(RESULTS, {"seen_one": True, "emoji_noto": False}, file)
  assert file.getvalue() == text and text.isascii()
  lines = {line.split("|")[2].strip(): line for line in text.splitlines() if line.count("|") > 3}
  assert "89.1" in lines["recall@1"] and "31.0" in lines["recall@1"]
  assert "12.5" in lines["median rank"]
  assert [line.split("|")[3].strip() for line in text.splitlines()[2:4]] == ["seen_one", "trained on"]
  assert [line.split("|")[4].strip() for line in text.splitlines()[2:4]] == ["emoji_noto", "held out"]
  assert "1637" not in text and "l2" not in text and "classes" not in text


def test_table_on_a_terminal_and_a_set_without_a_metric():
  terminal = _Terminal()
  text = table.show(RESULTS | {"emoji_noto/knn/x_accuracy": 0.5}, {"seen_one": True}, terminal)
  assert "emoji_noto" in terminal.getvalue() and "\u2501" in terminal.getvalue()
  assert "-" in next(line for line in text.splitlines() if "x accuracy" in line)
