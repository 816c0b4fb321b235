"""Names spoken: who says what, the same bytes whenever they are made, and speakers that nothing trains on."""

import concurrent.futures
import importlib.util
import io
import multiprocessing
import types

import numpy as np
import pytest
import soundfile

from mmcontrast.data.datasets import emoji_concepts, emoji_spoken, espeak
from mmcontrast.data.datasets.spoken_columns import HELD_OUT, SPEAKERS, columns
from mmcontrast.data.sources import open_source
from mmcontrast.errors import UserError

SAID = [espeak.Utterance("red heart", "en+f3", 150), espeak.Utterance("", "en+m2"), espeak.Utterance("Zug", "de+m3")]


def in_a_process(said):
  context = multiprocessing.get_context("spawn")
  with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
    return pool.submit(emoji_spoken.speak, said).result()


def test_what_is_said_is_the_same_whenever_it_is_made():
  first, second = in_a_process(SAID), in_a_process(SAID)
  assert first == second and first[1] == b""
  samples, rate = soundfile.read(io.BytesIO(first[0]), dtype="int16")
  assert rate == espeak.RATE and samples.ndim == 1 and 0.3 < len(samples) / rate < 2
  assert np.abs(samples).max() > 1000


def test_every_column_says_every_concept_in_its_language():
  concept = next(c for c in emoji_concepts.concepts() if c.name == "red heart")
  said = {column: emoji_spoken.utterance(concept, column) for column in columns(held_out=True)}
  assert len(said) == 10 + 13
  assert said["en-us+m1"].voice == "en-us+m1" and said["en-us+m1"].text == "red heart"
  assert said["de"].text == concept.names["de"] and said["de"].voice.startswith("de+")
  assert said["zh"].voice.startswith("cmn+") and {each.speed for each in said.values()} <= set(emoji_spoken.SPEEDS)
  variants = {column.partition("+")[2] for column in HELD_OUT}
  every = (emoji_spoken.utterance(c, language) for c in emoji_concepts.concepts() for language in ("de", "ja"))
  assert not variants & {each.voice.partition("+")[2] for each in every}


def test_a_name_that_a_voice_cannot_read_is_not_said():
  said = {c.names["ja"]: emoji_spoken.utterance(c, "ja").text for c in emoji_concepts.concepts()}
  assert said["ハンバーガー"] == "ハンバーガー" and said["笑顔"] == ""
  assert sum(not text for text in said.values()) == 1384


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(audio=("en+f3",)), r"data\.source\.audio: 'en\+f3' is held out, for evaluation only; train on en-us\+m1"),
    (dict(audio="den"), r"data\.source\.audio: no such choice 'den'; did you mean 'de'"),
    (dict(sound="de"), r"emoji_spoken: data\.source: no option 'sound'; .*audio"),
  ],
)
def test_speakers_that_are_held_out_are_not_trained_on(options, message, tmp_path):
  with pytest.raises(UserError, match=message):
    open_source(dict(dataset="emoji_spoken", source=options), "train", tmp_path)


def test_the_unseen_side_is_not_trained_on(tmp_path):
  with pytest.raises(UserError, match="emoji_spoken_noto is the unseen style and speakers"):
    open_source(dict(dataset="emoji_spoken_noto", source={}), "train", tmp_path)


def test_without_the_synthesiser_a_line_says_what_to_install(monkeypatch):
  found = types.SimpleNamespace(submodule_search_locations=None)
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
  with pytest.raises(UserError, match=r"needs espeakng-loader, not installed; run: pip install 'mmcontrast\[speech\]'"):
    espeak.library_folder()


def test_every_speaker_is_a_voice_of_the_synthesiser():
  said = [espeak.Utterance("one", voice) for voice in (*SPEAKERS, *HELD_OUT)]
  assert all(in_a_process(said))
