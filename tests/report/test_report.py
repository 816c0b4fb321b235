"""The pictures exist, at a sane size, with ink on them; the table says seen and unseen."""

import io
import types

import numpy as np
import PIL.Image
import pytest

from mmcontrast.errors import UserError
from mmcontrast.evaluation.embedded_set import EmbeddedSet
from mmcontrast.report import found_picture, retrieval_picture, table


def _embedded(images=12, captions=20, noise=0.5, **changes):
  rng = np.random.default_rng(0)
  concepts = rng.normal(size=(captions, 8))
  data = types.SimpleNamespace(**({
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
  wrong, right = (
    retrieval_picture.draw(tmp_path / f"{n}.png", e) for n, e in enumerate((wrong, right))
  )
  assert _greens(_open(right)) > 5 * _greens(_open(wrong))


@pytest.mark.parametrize("query", ["red $heart$ " * 9, np.zeros((8, 12, 3), np.uint8)])
@pytest.mark.parametrize("count", [1, 7])
def test_found_picture(tmp_path, query, count):
  images = np.zeros((count, 16, 16, 3), np.uint8)
  path = found_picture.draw_found(
    tmp_path / "found.png", query, images, ["a name of many words indeed"] * count, [0.5] * count,
    title="emoji_noto",
  )  # fmt: skip
  pixels = _open(path)
  assert 400 < pixels.shape[1] < 1400 and 250 < pixels.shape[0] < 1400
  assert (pixels[:, -1] == 255).all()
  assert (pixels == 0).all(axis=-1).sum() > count * 100 * 100


RESULTS = {
  "seen_one/image_to_text/recall@1": 0.8912,
  "seen_one/image_to_text/median_rank": 1.0,
  "emoji_noto/image_to_text/recall@1": 0.3104,
  "emoji_noto/image_to_text/median_rank": 12.5,
  "emoji_noto/image_to_text/queries": 1637.0,
  "emoji_noto/linear_probe/group_l2": 0.1,
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
  assert "seen style" in text and "UNSEEN style" in text
  assert "1637" not in text and "l2" not in text


def test_table_on_a_terminal_and_a_set_without_a_metric():
  terminal = _Terminal()
  text = table.show(RESULTS | {"emoji_noto/knn/x_accuracy": 0.5}, {"seen_one": True}, terminal)
  assert "emoji_noto" in terminal.getvalue() and "\u2501" in terminal.getvalue()
  assert "-" in next(line for line in text.splitlines() if "x accuracy" in line)
