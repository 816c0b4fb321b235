"""Texts as pictures: what is drawn, which views there are, what is wrong, and one tower for two modalities."""

import time

import jax
import numpy as np
import pytest

from mmcontrast import errors
from mmcontrast.config import base_config
from mmcontrast.data import noise
from mmcontrast.data.record import BadRecord
from mmcontrast.data.settings import resolve
from mmcontrast.data.typos import mistyped, shuffled
from mmcontrast.errors import UserError
from mmcontrast.modalities import MODALITIES, written_pictures
from mmcontrast.modalities.views import Inputs
from mmcontrast.modalities.written import Written
from mmcontrast.modalities.written_pictures import drawn
from mmcontrast.models.model import build_model

TEXTS = {"caption": ["one two three four", "a red heart on a white ground"]}


def settings(**options):
  views = options.pop("views", 2)
  return resolve({"views": {"written": views}, "texts": options.pop("texts", "distinct"), "written": options})


def drawn_views(numbers, **options):
  of = settings(size=(16, 256), **options)
  into = {"written": np.zeros((2, 16, 256), np.uint8)}
  Written().view(TEXTS, {noise.stream("written"): np.asarray(numbers, float)}, of, into)
  return into["written"]


@pytest.mark.parametrize("text", ["word", "слово", "λέξη", "מילה", "كلمة", "բառ", "სიტყვა"])
def test_letters_of_a_script_are_drawn(text):
  """As ink, and not as the boxes that stand for letters without a glyph."""
  picture = drawn(text, (16, 128), 12)
  assert picture.dtype == np.uint8 and picture.shape == (16, 128) and (picture < 128).sum() > 20
  assert (picture != drawn("\ue000" * len(text), (16, 128), 12)).any()


def test_a_font_lends_letters_and_lines_break_between_words():
  assert (drawn("a λ", (16, 64), 12, "mono") < 128).sum() > 10
  two = drawn("first second", (40, 60), 12)
  ink = (two < 128).any(1)
  assert ink[:16].any() and ink[16:32].any()
  np.testing.assert_array_equal(two[:15], drawn("first", (40, 60), 12)[:15])
  long = drawn("x" * 40, (64, 60), 12)
  assert (long[48:] < 128).any()  # a word that is longer than a line goes on in the next
  assert (drawn("word " * 100, (16, 64), 12) < 128).any() and (drawn("", (16, 64), 12) == 255).all()


def test_long_texts_cost_no_more_than_what_is_seen():
  began = time.monotonic()
  long = drawn("x" * 1_000_000, (32, 128), 12)
  for text in ("word " * 200_000, "\u05d0" * 100_000):
    drawn(text, (32, 128), 12)
  assert time.monotonic() - began < 20  # cutting a long word letter by letter would take hours
  np.testing.assert_array_equal(long, drawn("x" * 60, (32, 128), 12))
  assert (long[:, -1] < 255).any()  # seen up to the edge
  # Of a line that runs to the left the beginning is kept, which stands at the right.
  whole = drawn("\u05d0\u05d1 " + "\u05d2" * 90, (16, 32), 12)
  np.testing.assert_array_equal(whole, drawn("\u05d0\u05d1 " + "\u05d2" * 9, (16, 32), 12))


def test_boxes_are_said_once(capsys):
  written_pictures._say_missing.cache_clear()
  errors.note.cache_clear()
  for _ in range(2):
    drawn("\u65e5\u672c", (16, 64), 12)
    drawn("plain", (16, 64), 12)
  assert capsys.readouterr().err.count("letters that none of their fonts has") == 1


def test_a_caption_of_which_nothing_is_seen_is_a_bad_record():
  of = settings()
  for text in ("\u200b\u200b", "\u200d", "\ufe0f", " \u3000\u2060 ", "\x07"):
    with pytest.raises(BadRecord, match="empty caption"):
      MODALITIES["written"].decode({"captions": {"caption": [text]}, "names": {}}, of)
  assert MODALITIES["written"].decode({"captions": {"caption": ["\u200ba"]}, "names": {}}, of)


def test_views_are_functions_of_their_numbers():
  numbers = [0.1, 0.6, 0.0, 0.0, 0.3, 0.4, 0.5, 0.6]
  plain = drawn_views(numbers)
  np.testing.assert_array_equal(plain, drawn_views(numbers))
  assert (plain[0] != plain[1]).any()  # two captions
  same = drawn_views(numbers, texts="same")
  np.testing.assert_array_equal(same[0], same[1])
  changed = drawn_views(numbers, texts="same", typos=(0, 1.0))
  np.testing.assert_array_equal(changed[0], same[0])
  assert (changed[1] != same[1]).any()
  fonts = drawn_views([0, 0, 0.0, 0.9, 0, 0, 0, 0], texts="same", fonts=("sans", "serif"))
  assert (fonts[0] != fonts[1]).any()


def test_typing_errors_and_orders():
  text = "the quick brown fox jumps over the lazy dog"
  assert mistyped(text, 0.0, 0.3) == text == shuffled(text, 0.0, 0.3)
  wrong = mistyped(text, 1.0, 0.3)
  assert all(a != b or len(set(a[1:])) == 1 for a, b in zip(text.split(), wrong.split()))
  assert all(a[0] == b[0] and abs(len(a) - len(b)) <= 1 for a, b in zip(text.split(), wrong.split()))
  moved = shuffled(text, 1.0, 0.3)
  assert moved != text and sorted(moved.split()) == sorted(text.split())
  assert mistyped("", 1.0, 0.1) == "" == shuffled("", 1.0, 0.1)


@pytest.mark.parametrize(("options", "message"), [
  (dict(size=(16,)), r"written\.size: \(16,\) is not \(rows, columns\)"), (dict(points=40), "do not fit 16 rows"),
  (dict(fonts="sans"), "not a list of fonts"), (dict(fonts=(3,)), "not a list of fonts"),
  (dict(fonts=("sanz",)), "'sanz': .*; give the path.*mean 'sans'"),
  (dict(typos=(0.5,)), r"typos: \(0\.5,\) is not a list of 2 shares"), (dict(shuffles=(0, 2)), "shuffles"),
  (dict(typo=()), r"data\.written\.typo: unknown key; did you mean 'typos'"),
])  # fmt: skip
def test_wrong_settings_are_one_line(options, message):
  with pytest.raises(UserError, match=message) as caught:
    settings(**options)
  assert "\n" not in str(caught.value)


def test_in_use_a_text_is_its_picture():
  of = settings(size=(16, 64))
  (one,) = MODALITIES["written"].many("heart", "encode")
  batch = MODALITIES["written"].batch([one, "star"], of, None)
  assert batch.shape == (2, 16, 64) and (batch[0] != batch[1]).any()
  assert MODALITIES["written"].show("heart").picture.shape == (96, 192, 3)


def both(**written):
  c = base_config()
  c.data.update(image_size=16, views=dict(image=1, written=1))
  c.data.written.size = (16, 16)
  c.towers = dict(image=dict(name="vit", width=8, depth=1, heads=2, patch=8, pool="gap"), written=dict(written))
  c.heads = dict(image_joint=dict(tower="image", name="identity"), written_joint=dict(tower="written", name="identity"))
  return c.to_dict()


def test_one_tower_reads_two_modalities():
  model = build_model(both(same_as="image"))
  picture = np.random.default_rng(0).normal(size=(2, 1, 16, 16, 3)).astype(np.float32)
  views = {"image": Inputs(picture), "written": Inputs(picture)}
  variables = model.init(jax.random.key(0), {name: one.view(0) for name, one in views.items()})
  assert set(variables["params"]["towers"]) == {"image"}
  names = ("image[0]/image_joint", "written[0]/written_joint")
  made, _ = jax.jit(lambda: model.embed(variables, views, names, train=False))()
  np.testing.assert_array_equal(made[names[0]].pooled, made[names[1]].pooled)
  assert set(model.branch(variables, names[1:])["params"]["towers"]) == {"image"}


@pytest.mark.parametrize(("tower", "message"), [
  (dict(same_as="imge"), r"towers\.written\.same_as: no such choice 'imge'; did you mean 'image'"),
  (dict(same_as="image", width=3), r"towers\.written\.width: same_as='image' has the options of that tower"),
])  # fmt: skip
def test_a_tower_that_is_none_is_one_line(tower, message):
  with pytest.raises(UserError, match=message):
    build_model(both(**tower))
