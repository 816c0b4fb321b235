"""A modality in training: its views as arrays of a batch, read on the host and prepared on the device.

A view of an example goes this way, and each step is a method here:

    record  -> decode   once an example, on the host; kept in memory where it fits
            -> view     each epoch, on the host: what is drawn (a crop, a caption) by uniform numbers that are handed in
            -> prepare  on the device, jitted with the step: augmentation, normalisation, spectrograms, masks
            -> tower    `Inputs(values, mask)`
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np

from mmcontrast.data.record import Info, Record, Source
from mmcontrast.data.tokenizers import Tokenizer
from mmcontrast.errors import UserError

Schema = dict[str, tuple[tuple[int, ...], Any]]
"""Name of an array -> (its shape without the batch axis, its dtype)."""
Settings = Mapping[str, Any]
"""The resolved config.data."""


class Inputs(NamedTuple):
  """What towers read, of one view [B, ...] or of a set of views [B, V, ...].

  Attributes:
    values: pixels, ids, spectrograms.
    mask: bool, of one view [B, L]: which of its L positions are real; None: all are.
    grid: int, of one view [B, 2]: in how many rows and columns the positions of each example are, of images that keep
      their ratio; None: those of all examples are alike.
    edges: int32, of one view [B, E, 3]: from which of its positions to which, and of which kind, of graphs; one that
      is padding names none, -1. None of anything else.
    boxes: of one view [B, R, 4]: where regions of the image are in it (boxes.py), zeros for one that is not; None: not
      known. Towers of views do not see them; those that read these find them in `Encoded.boxes`.
  """

  values: jax.Array
  mask: jax.Array | None = None
  grid: jax.Array | None = None
  edges: jax.Array | None = None
  boxes: jax.Array | None = None

  def view(self, number: int) -> Inputs:
    """One view of a set of them."""
    return Inputs(*(None if array is None else array[:, number] for array in self))

  @property
  def arguments(self) -> tuple[jax.Array | None, ...]:
    """What a tower is called with: the values and their mask; the grids or edges only where there are any, for few
    towers take them."""
    return (self.values, self.mask, *(array for array in (self.grid, self.edges) if array is not None))


@dataclasses.dataclass(frozen=True)
class Preparation:
  """What happens to a modality's arrays on the device; static under jit.

  A pure function of an example's arrays and its seed, so that a view is the same in any part of the batch. One that
  `reads_others`, other examples of the batch, is refused with microbatches.

  Attributes:
    arrays: those of the batch that it reads.
  """

  arrays: tuple[str, ...]

  @property
  def reads_others(self) -> bool:
    return False

  def of_words(self, vocab_size: int | None, mask_id: int | None) -> Preparation:
    """The same for a tokenizer of so many ids (None without texts), with a mask token of this one (None without)."""
    return self

  def __call__(self, batch: Mapping[str, jax.Array], train: bool) -> dict[str, Inputs]:
    """Set of views -> [B, V, ...].

    Args:
      batch: `arrays` and "seed", uint32 [B], with the batch axis in front.
      train: whether views are augmented.
    """
    raise NotImplementedError

  def facts(self, batch: Mapping[str, jax.Array], train: bool) -> dict[str, dict[str, jax.Array]]:
    """Set of views -> fact -> [B, V, ...], true of the views that a call with the same arguments makes."""
    return {}


class Views:
  """What training asks of a modality. Beside `InUse`, a base of `Modality`.

  Attributes:
    source_option: of config.data.source, which names its column: "image", "caption", "audio".
    absent: what a record without it is, in messages and counts: "no image".
    view_sets: the sets of views that a config may have, the first called as the modality: ("image", "image_small").
      Paths of embeddings name them: "image_small[0]/image_ssl".
    versions: the sets of which view k is view k of another set, changed on the device: {"image_masked": "image"}.
    facts: what config.data.facts may ask of a view, and terms read: name -> what it is.
    defaults: its keys of config.data and their defaults. usual_views: the default of config.data.views.
    filters: its keys of config.data.filter, numbers, and their defaults. limits: those of config.data.limits.
    sections: its sections of a config beside `data`, and their defaults. recipe: the default of config.augment; "":
      none.
    free: those of them whose inner keys are not checked by name.
    identity: the choice of config.data.identity that compares examples by what `identity_of` says; "" for none.
    light: whether `decode` costs next to nothing, so that it comes before that of others, which it may spare.
  """

  name: ClassVar[str]
  source_option: ClassVar[str] = ""
  absent: ClassVar[str] = ""
  view_sets: ClassVar[tuple[str, ...]] = ()
  versions: ClassVar[Mapping[str, str]] = {}
  facts: ClassVar[Mapping[str, str]] = {}
  defaults: ClassVar[Mapping[str, Any]] = {}
  usual_views: ClassVar[int] = 0
  filters: ClassVar[Mapping[str, float]] = {}
  limits: ClassVar[Mapping[str, int]] = {}
  sections: ClassVar[Mapping[str, Any]] = {}
  recipe: ClassVar[str] = ""
  free: ClassVar[tuple[str, ...]] = ()
  identity: ClassVar[str] = ""
  light: ClassVar[bool] = False

  # Settings.

  def check(self, settings: Settings) -> None:
    """UserError for a bad value of the keys of `defaults` and `filters`, and for a library that is missing where there
    are views."""

  def counts(self, settings: Settings) -> dict[str, int]:
    """Set of views -> how many."""
    return {self.name: settings["views"][self.name]}

  @property
  def drawn_sets(self) -> tuple[str, ...]:
    """The sets that are drawn and augmented, and no versions of others."""
    return tuple(name for name in self.view_sets if name not in self.versions)

  def facts_of(self, view_set: str) -> tuple[str, ...]:
    """The `facts` of the views of one of its sets."""
    return tuple(self.facts)

  def count_key(self, view_set: str) -> str:
    """The key of the config that says how many views a set has."""
    return f"data.views.{view_set}"

  def has_in(self, info: Info, settings: Settings) -> Sequence[str]:
    """What a source has for its views: styles, fields, columns; none where it has nothing."""
    return self.columns(info)

  def check_source(self, settings: Settings, source: Source, members: Mapping[str, Source]) -> None:
    """UserError where a source, or a member of a mixture, lacks what the settings name."""

  def buckets(self, settings: Settings, batch_size: int) -> Sequence[tuple[int, Mapping[str, Any]]]:
    """Of views whose shapes differ from batch to batch: (examples, what config.data says otherwise) of each shape that
    batches may have; none where all are alike."""
    return ()

  def of_class(self, info: Info) -> str:
    """How a source that shows nothing of it could: made of its labels, a column named; "" where it cannot."""
    return ""

  def open_tokenizer(self, settings: Settings, source: Source | None) -> Tokenizer | None:
    """The tokenizer of what is words, its ids checked; None of what is not, or without views.

    `source` may be None where the tokenizer is not the dataset's own.
    """
    return None

  def tower_options(self, settings: Settings) -> dict[str, Any]:
    """Options of its towers whose default is what config.data says."""
    return {}

  def check_tower(self, options: dict[str, Any], settings: Settings, vocab_size: int | None, where: str) -> None:
    """UserError for options of a tower that do not go with the data; may set those that follow from them."""

  def recipe_options(self, base: str) -> Mapping[str, Any]:
    """The options of a recipe of config.augment, and their defaults: those of the recipe `base`."""
    return {}

  # On the host.

  def arrays(self, settings: Settings) -> Schema:
    """The arrays of an example in batches: {} without views. Those of views begin with the number of views."""
    raise UserError(f"config.data.views.{self.name}: {self.name} has no views to train on")

  def has(self, record: Record, settings: Settings) -> bool:
    """Whether a record has any of it; what is there and damaged counts."""
    return bool(record.get(self.field))

  def decode(self, record: Record, settings: Settings) -> Any:
    """What views are made of: decoded, cleaned and filtered; something false where there is none.

    Raises:
      BadRecord: it is damaged.
      Filtered: a filter takes out all of it.
    """
    raise NotImplementedError

  def nbytes(self, value: Any) -> int:
    """The memory that a decoded value takes, about; what is small counts as nothing."""
    return 0

  def identity_of(self, value: Any) -> int:
    """A number in [0, 2**31) of a decoded value, equal where `identity` says that two show the same thing."""
    raise NotImplementedError

  def numbers(self, settings: Settings) -> dict[int, int]:
    """Stream of uniform numbers (data/noise.py) -> how many of them `view` takes for an example."""
    return {}

  def view(self, value: Any, numbers: Mapping[int, np.ndarray], settings: Settings, into: Mapping[str, Any]) -> Any:
    """Draws the views of one example into its rows of `arrays`; what it returns goes to `finish`.

    Args:
      value: as `decode` gave it; something false of an example that lacks the modality, whose rows are zeros.
      numbers: stream -> uniform numbers in [0, 1), as many as `numbers` says; the views are a function of them.
      into: name of an array -> this example's row of it.
    """
    raise NotImplementedError

  def finish(
    self, drawn: Sequence[Any], settings: Settings, tokenizer: Tokenizer | None, arrays: Mapping[str, np.ndarray]
  ) -> None:
    """Completes the arrays of several examples from what `view` returned of each: text is tokenised at once."""

  def cut_line(self, source: Source, settings: Settings, tokenizer: Tokenizer | None) -> str:
    """What is lost of it by a limit on its length, in a line; "" where nothing is."""
    return ""

  # On the device.

  def preparation(self, config: Mapping[str, Any]) -> Preparation:
    """How its views are prepared: config.data, config.augment and what else concerns it, checked. Raises UserError."""
    raise NotImplementedError

  def check_shapes(self, error: UserError, view_set: str, inputs: Inputs) -> UserError:
    """What is said where a tower cannot take the views of a set, by their shapes."""
    return error
