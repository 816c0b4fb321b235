"""`emoji_spoken`: the concepts of `emoji_views`, and their names spoken by a synthesiser.

English by eight speakers for training and two that are held out for evaluation, thirteen more languages by one of
the eight speakers each, by hash of the concept; at three speeds, by hash too. The sounds are made on this machine by
eSpeak NG (espeak.py), 22,050 Hz, and kept as FLAC: about 1.2 GB, some three minutes on two cores.

`emoji_spoken_noto` is the unseen side: Google's drawings, and the two speakers held out.
"""

from __future__ import annotations

import concurrent.futures
import functools
import hashlib
import io
import multiprocessing
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence

import tensorflow_datasets as tfds

from mmcontrast.data.datasets import emoji_concepts, emoji_noto, emoji_views, espeak
from mmcontrast.data.datasets.spoken_columns import HELD_OUT, SPEAKERS, columns
from mmcontrast.errors import UserError

SPEEDS = (150, 175, 200)  # words a minute
_VOICE_OF = {"zh": "cmn"}  # where eSpeak calls a language otherwise
# What eSpeak cannot read: of each Chinese character in a Japanese name it says "Chinese letter".
_UNREADABLE = {"ja": re.compile(r"[\u3400-\u9fff]")}

ATTRIBUTION = """
- Sounds: names in 14 languages, as above, spoken by eSpeak NG from the package espeakng-loader 0.2.4 (GPL 3: the
  licence of the program, not of what it says).
"""


def utterance(concept: emoji_concepts.Concept, column: str) -> espeak.Utterance:
  """What a column says of a concept: who, what and how fast. Its text is empty where the voice cannot read the name."""
  number = int(hashlib.sha1(f"{concept.key} {column}".encode()).hexdigest(), 16)
  language = column if column in emoji_concepts.LANGUAGES else "en"
  if language == "en":
    voice = column
  else:
    variant = SPEAKERS[number // len(SPEEDS) % len(SPEAKERS)].partition("+")[2]
    voice = f"{_VOICE_OF.get(language, language)}+{variant}"
  text = concept.names[language]
  if language in _UNREADABLE and _UNREADABLE[language].search(text):
    text = ""
  return espeak.Utterance(text, voice, SPEEDS[number % len(SPEEDS)])


def speak(said: Sequence[espeak.Utterance]) -> list[bytes]:
  """FLAC files, in order; b"" where nothing can be said. In a process of its own it is always the same."""
  import soundfile

  synthesiser, found = espeak.Synthesiser(), []
  for each in said:
    samples, file = synthesiser(each), io.BytesIO()
    if len(samples):
      soundfile.write(file, samples, espeak.RATE, format="FLAC", subtype="PCM_16")
    found.append(file.getvalue())
  return found


def spoken(wanted: Sequence[str]) -> dict[str, dict[str, bytes]]:
  """Column -> key of a concept -> FLAC; those of whom nothing can be said are left out.

  Each column by a process that ends: the synthesiser remembers what it said, and so says the next thing otherwise.
  """
  concepts = emoji_concepts.concepts()
  context = multiprocessing.get_context("spawn")
  with concurrent.futures.ProcessPoolExecutor(os.cpu_count(), context, max_tasks_per_child=1) as pool:
    said = {column: pool.submit(speak, [utterance(concept, column) for concept in concepts]) for column in wanted}
    return {
      column: {concept.key: sound for concept, sound in zip(concepts, files.result()) if sound}
      for column, files in said.items()
    }


class _Spoken:
  """The sounds of a builder of drawings."""

  COLUMNS: tuple[str, ...] = ()

  def _info(self) -> tfds.core.DatasetInfo:
    features = emoji_views.features(self.STYLES)
    sounds = {column: tfds.features.Text() for column in self.COLUMNS}
    return tfds.core.DatasetInfo(
      builder=self,
      description="Emoji concepts: drawings, captions, tags, classes, and their names spoken.",
      features=tfds.features.FeaturesDict({**features, "audio": sounds}),
      disable_shuffling=True,
    )

  @functools.cached_property
  def sounds(self) -> dict[str, dict[str, bytes]]:
    check_libraries()
    return spoken(self.COLUMNS)

  def _generate_examples(self, split: str, drawings: Mapping[str, Mapping[str, str | bytes]]) -> Iterator:
    keys = {concept.id: concept.key for concept in emoji_concepts.concepts()}
    for number, made in super()._generate_examples(split, drawings):
      yield number, {**made, "audio": {name: self.sounds[name].get(keys[number], b"") for name in self.COLUMNS}}

  def side_files(self) -> dict[str, bytes | dict]:
    files = super().side_files()
    count = len(emoji_concepts.concepts())
    silent = {column: count - len(found) for column, found in self.sounds.items() if len(found) < count}
    files["metadata.json"] |= {"audio": list(self.COLUMNS), "held_out": list(HELD_OUT), "silent": silent}
    files["ATTRIBUTION.md"] += ATTRIBUTION.encode()
    return files


class EmojiSpoken(_Spoken, emoji_views.EmojiViews):
  """`emoji_views` with speech."""

  VERSION = tfds.core.Version("1.0.0")
  COLUMNS = columns(held_out=True)
  name = "emoji_spoken"


class EmojiSpokenNoto(_Spoken, emoji_noto.EmojiNoto):
  """`emoji_noto` with the speakers that are held out: nothing of it is seen in training."""

  VERSION = tfds.core.Version("1.0.0")
  COLUMNS = HELD_OUT
  name = "emoji_spoken_noto"


def check_libraries() -> pathlib.Path:
  """Where the synthesiser is. Raises UserError where it, or soundfile, is not installed."""
  try:
    import soundfile  # noqa: F401
  except (ImportError, OSError):
    raise UserError("emoji_spoken needs soundfile, not installed; run: pip install 'mmcontrast[speech]'") from None
  return espeak.library_folder()
