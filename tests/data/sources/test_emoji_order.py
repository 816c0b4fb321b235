"""Pairs of emoji in both orders: what a record holds, who is paired, one order a record, and sounds."""

import io

import numpy as np
import pytest
from PIL import Image

from mmcontrast.data.image_views import _choose
from mmcontrast.data.record import Info
from mmcontrast.data.sources import open_source
from mmcontrast.data.sources.emoji_order import PAUSE, RATE, EmojiOrder
from mmcontrast.errors import UserError
from mmcontrast.modalities.audio_reading import decode, to_wav


def png(colour):
  out = io.BytesIO()
  Image.new("RGBA", (8, 8), colour).save(out, "png")
  return out.getvalue()


class Base:
  """Five concepts, of one colour and one number of samples each."""

  def __init__(self, spoken=False):
    self.info = Info("base", ("a", "b"), ("tag",), {"kind": ("x",)}, keys={"audio": ("m", "f")} if spoken else {})

  def __len__(self):
    return 5

  def __getitem__(self, index):
    wave = np.linspace(0.1, 0.2 + 0.1 * index, 100 * (index + 1), dtype=np.float32)
    return {
      "images": {style: png((50 * index, 0, 0, 255)) for style in "ab"},
      "captions": {"caption": [f"thing {index}"]},
      "audio": {voice: to_wav(wave, RATE) for voice in ("m", "f")},
      "id": index,
      "name": f"t{index}",
    }


def halves(data):
  pixels = np.asarray(Image.open(io.BytesIO(data)))
  return pixels[32, 16, 0], pixels[32, 48, 0]


def test_a_record_has_both_orders_and_the_first_alone():
  source = EmojiOrder(Base(), pairs=3, orders="both")
  assert len(source) == 15 and source.info.styles == source.info.caption_fields == ("forward", "reversed", "single")
  partners = {}
  for index in range(15):
    record = source[index]
    first, second = halves(record["images"]["forward"])
    assert first == 50 * (index % 5) != second and halves(record["images"]["reversed"]) == (second, first)
    assert halves(record["images"]["single"]) == (first, first)
    one, other = f"thing {first // 50}", f"thing {second // 50}"
    assert record["captions"] == {
      "forward": [f"{one} before {other}", f"{other} after {one}"],
      "reversed": [f"{other} before {one}", f"{one} after {other}"],
      "single": [one],
    }
    assert record["id"] == index and not record["mirror_safe"] and record["labels"] == {}
    partners.setdefault(index % 5, set()).add(int(second))
  assert sum(map(len, partners.values())) > 7  # of 20: not the same partner in every round
  with pytest.raises(IndexError):
    source[15]


def test_each_order_as_a_record_of_its_own():
  source = EmojiOrder(Base(), pairs=1, orders="one")
  assert len(source) == 10 and source.info.styles == ("one",)
  forward, backward = source[4], source[5]
  assert halves(forward["images"]["one"]) == halves(backward["images"]["one"])[::-1]
  assert forward["captions"]["one"][0].split(" before ") == backward["captions"]["one"][0].split(" before ")[::-1]
  assert forward["id"] != backward["id"] and backward["name"] == f"{forward['name']}-reversed"


def test_sounds_one_after_the_other():
  record = EmojiOrder(Base(spoken=True), pairs=1, orders="both")[2]
  forward, backward, single = (decode(record["audio"][form], RATE) for form in ("forward", "reversed", "single"))
  pause = round(PAUSE * RATE)
  np.testing.assert_allclose(forward[:300], np.linspace(0.1, 0.4, 300), atol=1e-6)
  assert record["images"] == {} and len(single) == 300 and len(forward) == len(backward) > 300 + pause
  assert not forward[300 : 300 + pause].any()
  np.testing.assert_array_equal(backward[-300:], single)


def test_views_in_order():
  assert _choose(["a", "b", "c"], np.array([0.9, 0.1]), "in_order") == ["a", "b"]
  assert _choose(["a"], np.array([0.9, 0.1]), "in_order") == ["a", "a"]


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(of="emoji_noto"), r"data\.source\.of: no such choice 'emoji_noto'"),
    (dict(order="one"), r"data\.source: no option 'order'; did you mean 'orders'"),
    (dict(pairs=0), r"data\.source\.pairs: 0 is not a number of pairs"),
    (dict(orders="three"), r"data\.source\.orders: no such choice 'three'"),
  ],
)
def test_wrong_options(options, message):
  with pytest.raises(UserError, match=message):
    open_source({"dataset": "emoji_order", "source": options}, "train")
  with pytest.raises(UserError, match="emoji_order takes no path, not 'x'"):
    open_source({"dataset": "emoji_order:x"}, "train")
