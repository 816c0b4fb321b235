"""Who speaks in `emoji_spoken` and `tux_stamps`: the names of their columns of sound."""

from __future__ import annotations

from mmcontrast.data.datasets.emoji_concepts import LANGUAGES

SPEAKERS = ("en-us+m1", "en+m2", "en-us+m3", "en+m4", "en+f1", "en-us+f2", "en+f4", "en-us+f5")
"""Voices of eSpeak NG: English or American, and a variant of a man's or a woman's voice."""
HELD_OUT = ("en+f3", "en-us+m7")
"""Those that nothing is trained on."""


def columns(held_out: bool) -> tuple[str, ...]:
  """The sounds of a concept: by each English speaker, and in each other language."""
  return (*SPEAKERS, *(HELD_OUT if held_out else ()), *LANGUAGES[1:])


VOICES = ("en", "be", "bg", "ca", "da", "el", "es", "fr", "lt", "ml", "nl", "ro", "ru")
"""Languages in which people speak in `tux_stamps`."""
EFFECT = "sound"
"""The column of `tux_stamps` that holds the sound of the thing itself."""
