"""Speech by eSpeak NG, the synthesiser that the wheel `espeakng-loader` carries: text and voice to samples.

The library is GPL 3. It is loaded here alone, by a process that builds data and ends; nothing else imports it.
"""

from __future__ import annotations

import ctypes
import importlib.util
import pathlib
from typing import NamedTuple

import numpy as np

from mmcontrast.errors import UserError

PACKAGE, VERSION = "espeakng-loader", "0.2.4"
RATE = 22_050  # Hz
_SYNCHRONOUS, _NO_OPTIONS, _UTF8, _CHARACTERS = 2, 0, 1, 1
_SPEED = 1  # espeakRATE


class Utterance(NamedTuple):
  """What to say: words, a voice of eSpeak such as "en-us+m1", and words a minute."""

  text: str
  voice: str
  speed: int = 175


def library_folder() -> pathlib.Path:
  """Where the wheel keeps its library and its voices. Raises UserError when it is not installed."""
  spec = importlib.util.find_spec("espeakng_loader")
  if spec is None or not spec.submodule_search_locations:
    raise UserError(f"emoji_spoken needs {PACKAGE}, not installed; run: pip install 'mmcontrast[speech]'")
  return pathlib.Path(spec.submodule_search_locations[0])


class Synthesiser:
  """One of a process: the library has one state."""

  def __init__(self):
    folder = library_folder()
    names = [path for path in sorted(folder.iterdir()) if "espeak-ng." in path.name and path.suffix != ".py"]
    if not names:
      raise UserError(f"{folder}: no library of {PACKAGE}; run: pip install --force-reinstall {PACKAGE}=={VERSION}")
    self._library = ctypes.CDLL(str(names[0]))
    if self._library.espeak_Initialize(_SYNCHRONOUS, 0, str(folder).encode(), 0) != RATE:
      raise UserError(f"{folder}: {PACKAGE} does not speak at {RATE} Hz; pip install {PACKAGE}=={VERSION}")
    self._parts: list[np.ndarray] = []
    self._callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)(
      self._keep
    )
    self._library.espeak_SetSynthCallback(self._callback)

  def __call__(self, said: Utterance) -> np.ndarray:
    """int16 [S] at `RATE`; empty where nothing can be said. The same whatever was said before."""
    self._parts.clear()
    self._library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # of the breath in a voice
    if self._library.espeak_SetVoiceByName(said.voice.encode()):
      raise UserError(f"{PACKAGE} has no voice {said.voice!r}")
    self._library.espeak_SetParameter(_SPEED, said.speed, 0)
    text = said.text.encode() + b"\0"
    self._library.espeak_Synth(text, len(text), 0, _CHARACTERS, 0, _UTF8, None, None)
    samples = np.concatenate(self._parts) if self._parts else np.zeros(0, np.int16)
    return samples if np.any(samples) else samples[:0]

  def _keep(self, samples, count: int, events) -> int:
    if samples and count > 0:
      self._parts.append(np.ctypeslib.as_array(samples, (count,)).copy())
    return 0
