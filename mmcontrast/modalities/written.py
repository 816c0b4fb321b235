"""Written texts: captions as pictures, for towers that read by sight, without a tokenizer.

written   uint8 [V, H, W], config.data.views.written captions, black on white
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from mmcontrast.data import captions, noise, transforms
from mmcontrast.data.checks import check_counts
from mmcontrast.data.record import Info, Record, Source
from mmcontrast.data.typos import mistyped, shuffled
from mmcontrast.errors import UserError
from mmcontrast.modalities.modality import Modality
from mmcontrast.modalities.text_use import TextInUse
from mmcontrast.modalities.use import Shown
from mmcontrast.modalities.views import Inputs, Preparation, Schema, Settings
from mmcontrast.modalities.written_pictures import drawn, font_file

_NUMBERS = 4  # that a view takes: its caption, font, typing errors, order of words
_STREAM = noise.stream("written")


class Written(TextInUse, Modality):
  """Decoded: what views may show, strings by field. Raw, value and a thing from outside: a string."""

  name, a, nouns, asked = "written", "a written text", "written texts", "words"
  derived, source_option, absent, light = True, "caption", captions.ABSENT, True
  view_sets = ("written",)
  defaults: ClassVar = {
    # Texts as pictures of so many rows and columns of pixels: a strip of one line (PIXEL's is 16 x 8464), or a square
    # of several, as large as images (CLIPPO). `points`: height of the letters, in pixels. `fonts`: a view is written in
    # one of them, evaluation in the first: names ("sans", "serif", ...), or paths of files.
    # `typos`, `shuffles`: of view k such a share of the words is mistyped, or changes places; (): none.
    "written": {"size": (16, 512), "points": 12, "fonts": ("sans",), "typos": (), "shuffles": ()}
  }

  # Settings.

  def check(self, settings: Settings) -> None:
    of, views = settings["written"], settings["views"]["written"]
    size = of["size"]
    whole = isinstance(size, list | tuple) and all(isinstance(n, int) and not isinstance(n, bool) for n in size)
    if not whole or len(size) != 2 or min(size) < 8:
      raise UserError(f"data.written.size: {size!r} is not (rows, columns) of pixels, each 8 or more")
    check_counts(of, {"points": 4}, "data.written")
    if of["points"] > size[0]:
      raise UserError(f"data.written.points: letters of {of['points']} px do not fit {size[0]} rows; set {size[0]} or "
                      "less, or more rows in data.written.size")  # fmt: skip
    if not of["fonts"] or not all(isinstance(font, str) for font in of["fonts"]) or isinstance(of["fonts"], str):
      raise UserError(f"data.written.fonts: {of['fonts']!r} is not a list of fonts, such as ('sans', 'serif')")
    for font in of["fonts"]:
      font_file(font)
    for key in ("typos", "shuffles"):
      shares = of[key]
      are = isinstance(shares, list | tuple) and all(isinstance(n, int | float) and 0 <= n <= 1 for n in shares)
      if not are or len(shares) not in (0, views):
        raise UserError(f"data.written.{key}: {shares!r} is not a list of {views} shares of words, from 0 to 1, one "
                        "for each written view")  # fmt: skip

  def has_in(self, info: Info, settings: Settings) -> Sequence[str]:
    return info.languages if settings["languages"] else info.caption_fields

  def of_class(self, info: Info) -> str:
    labelled = "class" in info.label_names
    return ", or make them of the class: data.source.caption='a photo of a {class}'" if labelled else ""

  def check_source(self, settings: Settings, source: Source, members: Mapping[str, Source]) -> None:
    if isinstance(settings["captions"], Mapping):
      captions.check_fields(settings["captions"], settings["views"]["written"], source)

  # On the host.

  def arrays(self, settings: Settings) -> Schema:
    views = settings["views"]["written"]
    return {"written": ((views, *settings["written"]["size"]), np.uint8)} if views else {}

  def has(self, record: Record, settings: Settings) -> bool:
    return True  # `decode` tells what is not there from what says nothing

  def decode(self, record: Record, settings: Settings) -> dict[str, list[str]]:
    return captions.of_record(record, settings)

  def numbers(self, settings: Settings) -> dict[int, int]:
    return {_STREAM: _NUMBERS * settings["views"]["written"]}

  def view(self, value: Mapping[str, Sequence[str]], numbers: Mapping, settings: Settings, into: Mapping) -> None:
    of = settings["written"]
    which, fonts, typos, orders = numbers[_STREAM].reshape(_NUMBERS, -1)
    every = [text for texts in value.values() for text in texts] if value else [""]
    plain = settings.get("as_evaluated")
    shown = 1 if settings["texts"] == "same" else len(which)
    for view, text in enumerate(transforms.choose_distinct(every, which[:shown]) * (len(which) // max(shown, 1))):
      if of["shuffles"] and not plain:
        text = shuffled(text, of["shuffles"][view], orders[view])
      if of["typos"] and not plain:
        text = mistyped(text, of["typos"][view], typos[view])
      font = of["fonts"][0 if plain else int(fonts[view] * len(of["fonts"]))]
      into["written"][view] = drawn(text, tuple(of["size"]), of["points"], font)

  # On the device.

  def preparation(self, config: Mapping[str, Any]) -> WrittenPreparation:
    if (recipe := config["augment"].get("written", "none")) != "none":
      raise UserError(f"config.augment.written: {recipe!r}; pictures of texts are changed by data.written.typos, "
                      ".shuffles and .fonts alone, leave it out")  # fmt: skip
    normalize = config["normalize"]
    return WrittenPreparation(tuple(self.arrays(config["data"])), tuple(normalize["mean"]), tuple(normalize["std"]))

  def check_shapes(self, error: UserError, view_set: str, inputs: Inputs) -> UserError:
    rows, columns = inputs.values.shape[2:4]
    return UserError(f"config.data.written.size=({rows}, {columns}): {error}")

  # In use.

  def batch(self, values: Sequence, settings: Mapping, tokenizer: Any) -> np.ndarray:
    """Pictures, uint8 [N, H, W]."""
    if isinstance(values, np.ndarray) and values.dtype == np.uint8:
      return values
    of, most = settings["written"], settings["limits"]["caption_characters"]
    pictures = (drawn(captions.clean(text, most), tuple(of["size"]), of["points"], of["fonts"][0]) for text in values)
    return np.stack(list(pictures))

  def without_padding(self, batch: np.ndarray, settings: Mapping) -> np.ndarray:
    return batch

  def size(self, settings: Mapping) -> str:
    return "texts written in {} x {} pixels".format(*settings["written"]["size"])

  def cut_line_of(self, name: str, values: Sequence, settings: Mapping, tokenizer: Any) -> str:
    return ""

  def show(self, thing: str) -> Shown:
    grey = drawn(thing, (96, 192), 16)
    return Shown(np.repeat(grey[..., None], 3, axis=-1), thing)


@dataclasses.dataclass(frozen=True)
class WrittenPreparation(Preparation):
  """Grey pictures [B, V, H, W] in three colours, normalised as images are, so that one tower may read both."""

  mean: tuple[float, ...]
  std: tuple[float, ...]

  def __call__(self, batch: Mapping[str, jax.Array], train: bool) -> dict[str, Inputs]:
    del train
    grey = batch["written"][..., None].astype(jnp.float32) / 255
    return {"written": Inputs((grey - jnp.asarray(self.mean)) / jnp.asarray(self.std))}
