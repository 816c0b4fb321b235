"""From indices to arrays: views of images drawn and cropped, captions drawn and tokenised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mmcontrast.data import image_views, tokenizers, transforms
from mmcontrast.data.reading import Reader
from mmcontrast.data.sources import Record, Source
from mmcontrast.errors import UserError, choose


def open_tokenizer(settings: Mapping, source: Source) -> tokenizers.Tokenizer | None:
  """The tokenizer that resolved `settings` name, its ids checked; None without text views."""
  if not settings["views"]["text"]:
    return None
  info = source.info
  tokenizer = tokenizers.make_tokenizer(settings["tokenizer"], lower=settings["lower"], own=info.tokenizer,
                                        dataset=info.name)
  tokenizer.check(**{f"{name}_id": value for name, value in settings["token_ids"].items()})
  return tokenizer


def check_languages(settings: Mapping, source: Source) -> None:
  """UserError when `source` has no names in one of the languages of resolved `settings`."""
  for language in settings["languages"]:
    if not source.info.languages:
      raise UserError(f"data.languages: dataset {source.info.name} has names in no language; leave it empty")
    choose(language, source.info.languages, "data.languages")


class Loader:
  """Makes the examples of one chunk: (epoch, indices) -> batch arrays of that many rows."""

  def __init__(self, source: Source, settings: Mapping, seed: int):
    check_languages(settings, source)
    self._source, self._settings, self._seed = source, settings, seed
    self._tokenizer = open_tokenizer(settings, source)
    self.reader = Reader(source, settings)

  def __call__(self, chunk: tuple[int, np.ndarray]) -> dict:
    epoch, wanted = chunk
    found = [self.reader.usable(int(index)) for index in wanted]
    index = np.array([where for where, _, _ in found], np.int32)
    records = [record for _, record, _ in found]
    epochs = np.full(len(index), epoch)
    seeds = transforms.hashed(self._seed, index, epochs, transforms.DEVICE) >> np.uint64(32)
    batch = {
      "id": np.array([record["id"] for record in records], np.int32),
      "index": index,
      "seed": seeds.astype(np.uint32),
      "mirror_safe": np.array([record["mirror_safe"] for record in records], bool),
      "valid": np.ones(len(index), bool),
      "skipped": np.array([where != place for where, place in zip(index, wanted)], bool),
    }
    if self._source.info.tag_names:
      batch["tags"] = np.stack([record["tags"] for record in records])
    if names := self._source.info.label_names:
      batch["labels"] = {
        name: np.array([record["labels"][name] for record in records], np.int32) for name in names
      }
    if self._settings["views"]["image"]:
      images = [drawings for _, _, drawings in found]
      batch |= image_views.draw(images, self._settings, self._seed, index, epochs)
    if self._settings["views"]["text"]:
      batch["text"] = self._text_views(records, index, epochs)
    return batch

  def _text_views(self, records: Sequence[Record], index, epochs) -> np.ndarray:
    views, length = self._settings["views"]["text"], self._settings["text_length"]
    languages = self._settings["languages"]
    draws = transforms.noise(self._seed, index, epochs, transforms.TEXT, views)
    if len(languages) == views:
      texts = [record["names"][language] for record in records for language in languages]
    else:
      options = ([record["names"][language] for language in languages] if languages
                 else [caption for field in record["captions"].values() for caption in field]
                 for record in records)  # fmt: skip
      texts = [text for given, row in zip(options, draws) for text in transforms.choose_distinct(given, row)]
    return self._tokenizer.encode(texts, length).reshape(len(records), views, length)
