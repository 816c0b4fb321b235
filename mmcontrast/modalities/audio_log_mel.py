"""Log-mel spectrograms on the device: waveforms in, librosa's numbers out, jitted with the step.

The short-time Fourier transform, the filters (Slaney's and HTK's) and decibels are those of librosa 0.11
(`melspectrogram`, `power_to_db`); tests/golden/make_log_mel.py wrote what the tests compare with. Each sound of a batch
is as long as it is, and padded to the length of the batch: padding changes nothing of a sound's frames. Kaldi's filter
banks, Whisper's and CLAP's spectrograms, of which padding is a part, are settings too: `KALDI`, `WHISPER`, `CLAP`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from mmcontrast.errors import UserError, choose, nearest

# a - b cos, and whether it is symmetric, as Kaldi's is; else periodic, as for an FFT
_WINDOWS = {
  "hann": (0.5, 0.5, False),
  "hamming": (0.54, 0.46, False),
  "hann_symmetric": (0.5, 0.5, True),
  "none": (1.0, 0.0, False),
}
_REPEATS = ("repeat", "repeat_whole")


@dataclasses.dataclass(frozen=True)
class LogMel:
  """How a waveform becomes a spectrogram. Hashable, so jit-static.

  Attributes:
    window: samples of each frame, tapered by `taper` ("hann", "hamming", "none", "hann_symmetric", as Kaldi's is).
    hop: samples from one frame to the next.
    fft: length of the transform, `window` or more; zeros on both sides fill it.
    mels: triangular filters from `low` to `high` Hz (None: half the rate), spaced by `scale`: "slaney" (linear to
      1 kHz, then logarithmic), "htk", or "kaldi", whose places are HTK's and whose sides are straight in mels.
    norm: "slaney" divides each filter by half its width in Hz, "none" leaves its peak at 1.
    power: of the magnitudes; 2 is power, 1 is magnitude.
    log: "db" (10 log10 of power, 20 log10 of magnitude), "ln", "none"; of values below `floor` that of `floor`.
    top_db: decibels below a sound's loudest cell at which it is cut; None: nowhere. Only of log="db".
    edges: "zeros" and "reflect": frame f is centred at sample f * hop, and this lies beyond the ends; "reflect_within":
      as "reflect", without a frame that is centred behind the last sample; "none": frame f begins there, and its
      transform ends within the sound; "snip": so does its window, as Kaldi has it.
    centred: each frame has its mean taken away first.
    preemphasis: share of the sample before that each sample of a frame has taken away then; 0: none.
    frames: how many frames there are, whatever the length of a view: more are cut off, fewer are padded. None: as many
      as a view has.
    padding: what follows a sound: "masked": nothing that a tower reads; "silence": samples of zero, which are heard as
      a part of it; "zeros": frames whose logarithm is zero, which are read as others are; "repeat": the sound again,
      until the view ends; "repeat_whole": the same as often as it fits whole, then silence.
    mean, std: the result is (x - mean) / std.
  """

  CHOICES: ClassVar = {
    "taper": tuple(_WINDOWS),
    "scale": ("slaney", "htk", "kaldi"),
    "norm": ("slaney", "none"),
    "log": ("db", "ln", "none"),
    "edges": ("zeros", "reflect", "reflect_within", "none", "snip"),
    "padding": ("masked", "silence", "zeros", *_REPEATS),
  }

  window: int = 400
  hop: int = 160
  fft: int = 512
  mels: int = 64
  low: float = 0.0
  high: float | None = None
  taper: str = "hann"
  scale: str = "slaney"
  norm: str = "slaney"
  power: float = 2.0
  log: str = "db"
  floor: float = 1e-10
  top_db: float | None = 80.0
  edges: str = "zeros"
  centred: bool = False
  preemphasis: float = 0.0
  frames: int | None = None
  padding: str = "masked"
  mean: float = -30.0
  std: float = 30.0


# Radford et al., arXiv:2212.04356, for sounds of 16 kHz; data.audio.seconds=30 is its length.
WHISPER = LogMel(window=400, hop=160, fft=400, mels=80, edges="reflect_within", padding="silence", mean=-40.0, std=40.0)
# LAION's CLAP without fusion (arXiv:2211.06687), for sounds of 48 kHz; data.audio.seconds=10 is its length.
CLAP = LogMel(
  window=1024, hop=480, fft=1024, mels=64, low=50.0, high=14_000.0, edges="reflect", top_db=None,
  padding="repeat_whole", mean=0.0, std=1.0,
)  # fmt: skip
# Filter banks by Kaldi's settings as AST has them (arXiv:2104.01778), for sounds of 16 kHz.
KALDI = LogMel(
  window=400, hop=160, fft=512, mels=128, low=20.0, taper="hann_symmetric", scale="kaldi", norm="none", log="ln",
  floor=2.0**-23, top_db=None, edges="snip", centred=True, preemphasis=0.97, frames=1024, padding="zeros",
  mean=-4.2677393, std=9.1379948,
)  # fmt: skip


def parse(options: Mapping[str, Any], rate: int, where: str = "data.audio.log_mel") -> LogMel:
  """The settings of a mapping of LogMel's fields, for waveforms of `rate` samples a second.

  Raises:
    UserError: an unknown key, a value out of range, or more filters than the transform can tell apart.
  """
  names = [field.name for field in dataclasses.fields(LogMel)]
  for key in options:
    if key not in names:
      raise UserError(f"{where}.{key}: unknown key; {nearest(key, names)}")
  made = LogMel(**options)
  for key, choices in LogMel.CHOICES.items():
    choose(getattr(made, key), choices, f"{where}.{key}")
  for key in ("window", "hop", "fft", "mels"):
    _check_number(made, key, where, whole=True)
  for key in ("power", "floor", "std"):
    _check_number(made, key, where)
  for key in ("top_db", "high", "frames"):
    if getattr(made, key) is not None:
      _check_number(made, key, where, whole=key == "frames")
  if not isinstance(made.centred, bool):
    raise UserError(f"{where}.centred: {made.centred!r}; give True or False")
  preemphasis = made.preemphasis
  if isinstance(preemphasis, bool) or not isinstance(preemphasis, int | float) or not 0 <= preemphasis <= 1:
    raise UserError(f"{where}.preemphasis: {preemphasis!r}; give a share from 0 to 1, such as 0.97")
  for key in ("low", "mean"):
    _check_number(made, key, where, least=-math.inf)
  if made.window > made.fft:
    raise UserError(f"{where}.window: {made.window} samples do not fit fft={made.fft}; raise fft to {made.window}")
  high = rate / 2 if made.high is None else made.high
  if not 0 <= made.low < high <= rate / 2:
    raise UserError(
      f"{where}: filters from low={made.low:g} to high={high:g} Hz; give 0 <= low < high <= {rate / 2:g}, half the rate"
    )
  empty = int((mel_filters(made, rate).max(axis=1) == 0).sum())
  if empty and made.scale != "kaldi":  # which AST has it of, and was trained so
    raise UserError(
      f"{where}.mels: {empty} of {made.mels} filters lie between the {made.fft // 2 + 1} bins of fft={made.fft} and "
      "would always be empty; set fewer mels or a longer fft"
    )
  return made


def frame_count(settings: LogMel, samples: int) -> int:
  """How many frames a spectrogram of so many samples has: librosa's number, but at least 1 of one that has samples; or
  `settings.frames`."""
  if not samples:
    return 0
  return settings.frames or 1 + int(_span(settings, np.int64(samples))) // settings.hop


def _span(settings: LogMel, samples: Any) -> Any:
  """How far, in samples, the last frame of a sound stands from its first."""
  beyond = {"none": settings.fft, "snip": settings.window, "reflect_within": 1}.get(settings.edges, 0)
  return (samples - beyond) * (samples > beyond)


@jax.named_scope("log_mel")
def log_mel(settings: LogMel, rate: int, waves: jax.Array, lengths: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Spectrograms of a batch.

  Args:
    waves: [B, S] float; what lies beyond a sound's length is not read.
    lengths: int [B], samples of each sound, 0 (none) to S.

  Returns:
    ([B, F, mels] in the type of `waves`, zero in frames beyond the sound; bool [B, F], which frames are real, padding
    that is read among them), for F = `frame_count(settings, S)`.
  """
  size = waves.shape[1]
  count = frame_count(settings, size)
  waves, present = jnp.where(jnp.arange(size) < lengths[:, None], waves, 0), lengths[:, None] > 0
  if settings.padding in _REPEATS:
    waves = _repeated(waves, lengths, whole=settings.padding == "repeat_whole")
  if settings.padding in ("silence", *_REPEATS):
    lengths = jnp.where(lengths > 0, size, 0)
  spectrum = jnp.fft.rfft(_tapered(settings, _frames(settings, waves, lengths, count)))
  magnitude = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
  if settings.power != 2:
    tiny = jnp.finfo(magnitude.dtype).tiny  # a root has no gradient at zero
    magnitude = jnp.maximum(magnitude, tiny) ** (settings.power / 2)
  filters = jnp.asarray(mel_filters(settings, rate).T, waves.dtype)
  mels = jnp.matmul(magnitude, filters, precision="highest")
  real = (jnp.arange(count) <= _span(settings, lengths)[:, None] // settings.hop) & present
  values = _logarithm(settings, mels, real)
  if settings.padding == "zeros":
    values, real = jnp.where(real[..., None], values, 0), jnp.broadcast_to(present, real.shape)
  return jnp.where(real[..., None], (values - settings.mean) / settings.std, 0), real


def _repeated(waves: jax.Array, lengths: jax.Array, whole: bool) -> jax.Array:
  """[B, S] with each sound [B] again and again behind itself; `whole`: only as often as it fits, then zeros."""
  lengths, at = jnp.maximum(lengths, 1)[:, None], jnp.arange(waves.shape[1])
  again = jnp.take_along_axis(waves, at % lengths, axis=1)
  return jnp.where(at < waves.shape[1] // lengths * lengths, again, 0) if whole else again


def _frames(settings: LogMel, waves: jax.Array, lengths: jax.Array, count: int) -> jax.Array:
  """[B, S] -> [B, count, fft]."""
  fft, hop, size = settings.fft, settings.hop, waves.shape[1]
  before = {"none": 0, "snip": (fft - settings.window) // 2}.get(settings.edges, fft // 2)
  if settings.edges.startswith("reflect"):
    at, last = jnp.arange(-before, size + before), jnp.maximum(lengths - 1, 1)[:, None]
    at = at % (2 * last)  # there and back, as often as the edge is longer than the sound
    waves, before = jnp.take_along_axis(waves, jnp.minimum(at, 2 * last - at), axis=1), 0
  waves = jnp.pad(waves, ((0, 0), (before, max(0, (count - 1) * hop + fft - before - waves.shape[1]))))
  # Slices, of which a CPU makes a tenth of the time that indices or concatenated parts take.
  frame = functools.partial(jax.lax.dynamic_slice_in_dim, waves, slice_size=fft, axis=1)
  return jax.vmap(frame, out_axes=1)(jnp.arange(count) * hop)


def _tapered(settings: LogMel, frames: jax.Array) -> jax.Array:
  """[..., fft] -> [..., fft], zero beside the window. Before that, as Kaldi does, the window's samples without their
  mean, and without a share of the one before; the first is its own."""
  if settings.centred or settings.preemphasis:
    before = (settings.fft - settings.window) // 2
    inside = frames[..., before : before + settings.window]
    if settings.centred:
      inside = inside - inside.mean(-1, keepdims=True)
    if settings.preemphasis:
      earlier = jnp.concatenate([inside[..., :1], inside[..., :-1]], axis=-1)
      inside = inside - settings.preemphasis * earlier
    after = settings.fft - settings.window - before
    frames = jnp.pad(inside, (*[(0, 0)] * (frames.ndim - 1), (before, after)))
  return frames * _taper(settings).astype(frames.dtype)


def _logarithm(settings: LogMel, mels: jax.Array, real: jax.Array) -> jax.Array:
  if settings.log == "none":
    return mels
  values = jnp.log(jnp.maximum(mels, settings.floor))
  if settings.log == "ln":
    return values
  decibels = values * (20 / settings.power / math.log(10))
  if settings.top_db is None:
    return decibels
  loudest = jnp.where(real[..., None], decibels, -jnp.inf).max(axis=(1, 2), keepdims=True)
  return jnp.maximum(decibels, loudest - settings.top_db)


def _taper(settings: LogMel) -> np.ndarray:
  """[fft]: the window in the middle of zeros."""
  a, b, symmetric = _WINDOWS[settings.taper]
  window = a - b * np.cos(2 * np.pi * np.arange(settings.window) / max(settings.window - symmetric, 1))
  before = (settings.fft - settings.window) // 2
  return np.pad(window, (before, settings.fft - settings.window - before))


@functools.lru_cache
def mel_filters(settings: LogMel, rate: int) -> np.ndarray:
  """[mels, fft // 2 + 1] float64: triangles over the bins of the transform.

  Source: Slaney, Auditory Toolbox (1998), and the HTK book, as librosa has them.
  """
  bins = np.fft.rfftfreq(settings.fft, 1 / rate)
  high = rate / 2 if settings.high is None else settings.high
  to_mel, to_hertz = (_to_slaney, _from_slaney) if settings.scale == "slaney" else (_to_htk, _from_htk)
  mels = np.linspace(to_mel(settings.low), to_mel(high), settings.mels + 2)
  hertz = edges = to_hertz(mels)
  if settings.scale == "kaldi":
    bins, edges = to_mel(bins), mels
  up = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
  down = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
  triangles = np.maximum(0, np.minimum(up, down))
  return triangles * (2 / (hertz[2:] - hertz[:-2]))[:, None] if settings.norm == "slaney" else triangles


_LINEAR, _STEP = 200 / 3, math.log(6.4) / 27  # Hz a mel up to 1 kHz, which is 15 mel; then 27 steps for a factor of 6.4


def _to_slaney(hertz: float) -> float:
  return hertz / _LINEAR if hertz < 1000 else 15 + math.log(hertz / 1000) / _STEP


def _from_slaney(mels: np.ndarray) -> np.ndarray:
  return np.where(mels < 15, mels * _LINEAR, 1000 * np.exp((mels - 15) * _STEP))


def _to_htk(hertz: Any) -> Any:
  return 2595 * np.log10(1 + hertz / 700)


def _from_htk(mels: np.ndarray) -> np.ndarray:
  return 700 * (10 ** (mels / 2595) - 1)


def _check_number(made: LogMel, key: str, where: str, whole: bool = False, least: float = 0.0) -> None:
  value = getattr(made, key)
  kind = int if whole else (int, float)
  if not isinstance(value, kind) or isinstance(value, bool) or not least < value < math.inf:
    over = "" if least < 0 else " over 0"
    raise UserError(f"{where}.{key}: {value!r}; give a {'whole ' if whole else ''}number{over}")
