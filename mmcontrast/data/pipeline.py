"""The training pipeline: batches whose order is a pure function of (seed, step).

    source -> order(seed, step) -> grain threads: decode, choose, crop, tokenise -> batch

A batch holds one epoch's examples only (the remainder of an epoch is dropped), so none
appears twice in it. Nothing is carried from step to step: a run may start anywhere, with
any number of threads, and the slices of P processes make up the same global batch.
"""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Iterator, Mapping, Sequence

import grain
import ml_collections
import numpy as np
from grain.experimental import index_shuffle

from mmcontrast.data import tokenizers, transforms
from mmcontrast.data.sources import Record, Source, open_source
from mmcontrast.errors import UserError, choose, nearest

DEFAULTS = {
  "dataset": "emoji_views",
  "split": "train",  # train, validation, test or all
  "image_size": 32,  # pixels
  "views": {"image": 2, "text": 2},  # a modality not named here is left out
  # Image views of one example: distinct styles (more views: the same ones again, in order), the same, or any.
  "drawings": "distinct",
  "crop": transforms.CROP,
  "trim": False,  # see transforms.trim; evaluation does the same
  # Share of the side that evaluation sees. A random crop shows things larger than they are, so the
  # whole image would show them smaller than in training (Touvron et al. 2019, arXiv:1906.06423).
  "centre_crop": 1.0,
  # Text views are names in these languages instead of captions: as many views as languages, view k in
  # language k; fewer, and each example draws distinct ones. Evaluation reads captions all the same.
  "languages": (),
  "text_length": 16,  # tokens, bos and eos included
  "tokenizer": "sentencepiece",  # the dataset's own, or the path of a .model
  "lower": True,
  "token_ids": {"pad": 0, "bos": 1, "eos": 2},  # what the model was told; checked
  "on_error": {"max_share": 0.01},  # of the source's records; above it the run stops
  "cache": "auto",  # decoded images in memory: decoded, none, or auto (up to 512 MiB)
  "read": {"threads": 2, "prefetch": 4},  # prefetch in batches
  "coco": {},  # see data/coco.py
}
_FREE = ("coco",)  # checked by their own reader
_CHUNK = 32  # most examples that one thread prepares at a time
_CACHE_BYTES = 512 * 2**20
_SHUFFLE_ROUNDS = 4
_IMAGE, _TEXT, _STYLE, _ORDER, _DEVICE = range(5)  # streams of noise


def resolve(config: Mapping) -> dict:
  """`config` over DEFAULTS as plain dicts. UserError on an unknown key or a bad value."""
  config = config.to_dict() if isinstance(config, ml_collections.ConfigDict) else dict(config)
  if isinstance(config.get("views"), Mapping):
    config["views"] = {**dict.fromkeys(DEFAULTS["views"], 0), **config["views"]}
  settings = _merge(DEFAULTS, config, "data")
  for modality, count in settings["views"].items():
    if not isinstance(count, int) or count < 0:
      raise UserError(f"data.views.{modality}: {count!r} is not a number of views (0, 1, 2, ...)")
  if not any(settings["views"].values()):
    raise UserError("data.views: no view at all; set data.views.image or data.views.text")
  for key, least in (("image_size", 1), ("text_length", 3)):
    if not isinstance(settings[key], int) or settings[key] < least:
      raise UserError(f"data.{key}: {settings[key]!r}; give a whole number, at least {least}")
  for key in ("scale", "ratio"):
    pair = settings["crop"][key]
    if len(pair) != 2 or not 0 < pair[0] <= pair[1] or (key == "scale" and pair[1] > 1):
      raise UserError(f"data.crop.{key}: {tuple(pair)}; give (low, high) with 0 < low <= high"
                      + (" <= 1" if key == "scale" else ""))  # fmt: skip
  if not 0 < settings["centre_crop"] <= 1:
    raise UserError(f"data.centre_crop: {settings['centre_crop']!r}; give a share of the side, over 0 and at most 1")
  languages, views = settings["languages"], settings["views"]["text"]
  if isinstance(languages, str) or len(set(languages)) < len(languages):
    raise UserError(f"data.languages: {languages!r} is not a list of different languages, such as ('en', 'de')")
  if languages and not 0 < views <= len(languages):
    raise UserError(f"data.views.text: {views} views of {len(languages)} languages; set it to {len(languages)}, "
                    "or to fewer, drawn from them")  # fmt: skip
  choose(settings["drawings"], ("distinct", "same", "any"), "data.drawings")
  choose(settings["cache"], ("auto", "decoded", "none"), "data.cache")
  return settings


def _merge(defaults: Mapping, given: Mapping, where: str) -> dict:
  merged = dict(defaults)
  for key, value in given.items():
    if key not in defaults:
      raise UserError(f"{where}.{key}: unknown key; {nearest(key, defaults)}")
    if isinstance(defaults[key], Mapping):
      if not isinstance(value, Mapping):
        raise UserError(f"{where}.{key}: {value!r} is not a table of {', '.join(defaults[key])}")
      value = dict(value) if key in _FREE else _merge(defaults[key], value, f"{where}.{key}")
    merged[key] = value
  return merged


@dataclasses.dataclass(frozen=True)
class Spec:
  """What the model and the trainer need to know of the data before the first batch."""

  examples: int
  steps_per_epoch: int
  tag_names: tuple[str, ...]
  label_names: Mapping[str, tuple[str, ...]]
  styles: tuple[str, ...]
  vocab_size: int | None  # None without text views
  batch: Mapping[str, tuple[tuple[int, ...], np.dtype]]  # name -> (shape, dtype), global batch


def open_tokenizer(settings: Mapping, source: Source) -> tokenizers.SentencePieceTokenizer | None:
  """The tokenizer that resolved `settings` name, its ids checked; None without text views."""
  if not settings["views"]["text"]:
    return None
  path = settings["tokenizer"]
  if path == "sentencepiece":
    path = source.info.tokenizer
    if path is None:
      raise UserError(f"data.tokenizer: dataset {source.info.name} brings no tokenizer; "
                      "give the path of a sentencepiece .model")  # fmt: skip
  tokenizer = tokenizers.SentencePieceTokenizer(path, lower=settings["lower"])
  tokenizer.check(**{f"{name}_id": value for name, value in settings["token_ids"].items()})
  return tokenizer


def check_languages(settings: Mapping, source: Source) -> None:
  """UserError when `source` has no names in one of the languages of resolved `settings`."""
  for language in settings["languages"]:
    if not source.info.languages:
      raise UserError(f"data.languages: dataset {source.info.name} has names in no language; leave it empty")
    choose(language, source.info.languages, "data.languages")


def spec(config: Mapping, batch_size: int, data_dir: str | os.PathLike | None = None) -> Spec:
  """The `Spec` of `config` at a global batch size. Raises UserError as `train_batches` does."""
  settings = resolve(config)
  source = open_source(settings, settings["split"], data_dir)
  check_languages(settings, source)
  tokenizer = open_tokenizer(settings, source)
  order = Order(len(source), 0, batch_size)
  views, size, info = settings["views"], settings["image_size"], source.info
  shapes = {
    "image": ((views["image"], size, size, 3), np.uint8) if views["image"] else None,
    "text": ((views["text"], settings["text_length"]), np.int32) if views["text"] else None,
    "tags": ((len(info.tag_names),), np.uint8) if info.tag_names else None,
    "id": ((), np.int32), "index": ((), np.int32), "seed": ((), np.uint32),
    "mirror_safe": ((), np.bool_), "valid": ((), np.bool_),
  }  # fmt: skip
  batch = {k: ((batch_size, *v[0]), np.dtype(v[1])) for k, v in shapes.items() if v is not None}
  if info.label_names:
    batch |= {f"labels/{name}": ((batch_size,), np.dtype(np.int32)) for name in info.label_names}
  return Spec(
    examples=len(source), steps_per_epoch=order.steps_per_epoch, tag_names=info.tag_names,
    label_names=info.label_names, styles=info.styles,
    vocab_size=tokenizer.vocab_size if tokenizer else None, batch=batch,
  )  # fmt: skip


class Order(Sequence):
  """Item j: (epoch, indices) of the j-th chunk of one process's share of the batches.

  Constant time and memory for every j: a keyed permutation of the examples per epoch,
  not a shuffled list.
  """

  def __init__(self, examples: int, seed: int, batch_size: int, start_step: int = 0,
               process_index: int = 0, process_count: int = 1):  # fmt: skip
    if batch_size < 1 or batch_size % process_count:
      raise UserError(f"batch_size {batch_size} does not divide over {process_count} processes")
    if batch_size > examples:
      raise UserError(f"batch_size {batch_size} is more than the {examples} examples of the split; "
                      f"set it to {examples} or less")  # fmt: skip
    self.steps_per_epoch = examples // batch_size
    local = batch_size // process_count
    self._chunk = max(size for size in range(1, _CHUNK + 1) if local % size == 0)
    self.chunks_per_batch = local // self._chunk
    self._examples, self._seed, self._batch_size = examples, seed, batch_size
    self._start_step, self._first_row = start_step, process_index * local

  def __len__(self) -> int:
    return 2**31 * self.chunks_per_batch  # steps without end

  def __getitem__(self, item: int) -> tuple[int, np.ndarray]:
    step, part = divmod(item, self.chunks_per_batch)
    epoch, step = divmod(self._start_step + step, self.steps_per_epoch)
    first = step * self._batch_size + self._first_row + part * self._chunk
    key = int(transforms.hashed(self._seed, epoch, _ORDER) >> np.uint64(33))
    permuted = [
      index_shuffle(index=place, max_index=self._examples - 1, seed=key, rounds=_SHUFFLE_ROUNDS)
      for place in range(first, first + self._chunk)
    ]
    return epoch, np.array(permuted, np.int64)


class Loader:
  """Makes the examples of one chunk: (epoch, indices) -> batch arrays of that many rows.

  A record that cannot be used is replaced by the next index that can, and counted. When
  more than `max_share` of the source's records turn out bad, UserError names the last one.
  """

  def __init__(self, source: Source, settings: Mapping, seed: int):
    check_languages(settings, source)
    self._source, self._settings, self._seed = source, settings, seed
    self._tokenizer = open_tokenizer(settings, source)
    self._most_bad = settings["on_error"]["max_share"] * len(source)
    self._bad: dict[int, str] = {}
    self._cache: dict[int, tuple[Record, dict]] = {}
    self._caching = settings["cache"] == "decoded"
    self._lock = threading.Lock()
    if settings["cache"] == "auto":
      images = self._read(0)[1] if len(source) else {}
      each = sum(4 * image.width * image.height for image in images.values())
      self._caching = each * len(source) <= _CACHE_BYTES

  def __call__(self, chunk: tuple[int, np.ndarray]) -> dict:
    epoch, wanted = chunk
    found = [self._usable(int(index)) for index in wanted]
    index = np.array([where for where, _, _ in found], np.int32)
    records = [record for _, record, _ in found]
    epochs = np.full(len(index), epoch)
    seeds = transforms.hashed(self._seed, index, epochs, _DEVICE) >> np.uint64(32)
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
      batch["image"] = self._image_views([images for _, _, images in found], index, epochs)
    if self._settings["views"]["text"]:
      batch["text"] = self._text_views(records, index, epochs)
    return batch

  def _image_views(self, examples: Sequence[Mapping], index, epochs) -> np.ndarray:
    settings, views = self._settings, self._settings["views"]["image"]
    styles = transforms.noise(self._seed, index, epochs, _STYLE, views)
    draws = transforms.noise(self._seed, index, epochs, _IMAGE, views * transforms.DRAWS)
    draws = draws.reshape(len(index), views, transforms.DRAWS)
    size = settings["image_size"]
    out = np.empty((len(index), views, size, size, 3), np.uint8)
    for row, images in enumerate(examples):
      drawings = list(images.values())
      if settings["drawings"] == "distinct":
        chosen = transforms.choose_distinct(drawings, styles[row])
      elif settings["drawings"] == "same":
        chosen = [drawings[int(styles[row, 0] * len(drawings))]] * views
      else:
        chosen = [drawings[int(draw * len(drawings))] for draw in styles[row]]
      for view, image in enumerate(chosen):
        out[row, view] = transforms.random_crop(image, size, draws[row, view], settings["crop"])
    return out

  def _text_views(self, records: Sequence[Record], index, epochs) -> np.ndarray:
    views, length = self._settings["views"]["text"], self._settings["text_length"]
    languages = self._settings["languages"]
    draws = transforms.noise(self._seed, index, epochs, _TEXT, views)
    if len(languages) == views:
      texts = [record["names"][language] for record in records for language in languages]
    else:
      options = ([record["names"][language] for language in languages] if languages else record["captions"]
                 for record in records)  # fmt: skip
      texts = [text for given, row in zip(options, draws) for text in transforms.choose_distinct(given, row)]
    return self._tokenizer.encode(texts, length).reshape(len(records), views, length)

  def _usable(self, index: int) -> tuple[int, Record, dict]:
    for place in range(index, index + len(self._source)):
      place %= len(self._source)
      if place in self._bad:
        continue
      try:
        return place, *self._read(place)
      except transforms.BadRecord as error:
        self._note_bad(place, str(error))
    raise UserError(f"dataset {self._source.info.name}: no usable record")

  def _note_bad(self, index: int, reason: str) -> None:
    with self._lock:
      self._bad[index] = reason
      count = len(self._bad)
    if count > self._most_bad:
      share = self._settings["on_error"]["max_share"]
      raise UserError(
        f"dataset {self._source.info.name}, record {index}: {reason}; {count} of "
        f"{len(self._source)} records are bad, more than data.on_error.max_share={share:g}: "
        "mend the data or raise it"
      )

  def _read(self, index: int) -> tuple[Record, dict]:
    """The record and its decoded drawings; raises BadRecord, naming the record."""
    if index in self._cache:
      return self._cache[index]
    name = ""
    try:
      record = self._source[index]
      name = record["name"]
      images = {}
      if self._settings["views"]["text"]:
        record = {**record, "captions": transforms.usable_captions(record["captions"])}
        for language in self._settings["languages"]:
          if not record["names"][language].strip():
            raise transforms.BadRecord(f"no name in language {language!r}")
      if self._settings["views"]["image"]:
        if not record["images"]:
          raise transforms.BadRecord("no image")
        for style, data in record["images"].items():
          image = transforms.decode(data)
          images[style] = transforms.trim(image) if self._settings["trim"] else image
    except (transforms.BadRecord, OSError) as error:
      raise transforms.BadRecord(f"{name}: {error}" if name else str(error)) from None
    result = {**record, "images": {}}, images
    if self._caching:
      self._cache[index] = result
    return result

  @property
  def bad(self) -> dict[int, str]:
    """Index -> reason of the bad records met so far, those read ahead included."""
    return dict(self._bad)


class Batches(Iterator):
  """Endless batches; `step` is that of the next one, `skipped` counts replaced examples so far."""

  def __init__(self, loader: Loader, order: Order, start_step: int, threads: int, prefetch: int):
    self._loader, self.step, self.skipped = loader, start_step, 0
    read = grain.ReadOptions(num_threads=threads,
                             prefetch_buffer_size=prefetch * order.chunks_per_batch)  # fmt: skip
    chunks = grain.MapDataset.source(order).map(loader).to_iter_dataset(read)
    self._batches = iter(chunks.batch(order.chunks_per_batch, batch_fn=_concatenate))

  def __next__(self) -> dict:
    batch = next(self._batches)
    self.skipped += int(batch.pop("skipped").sum())
    self.step += 1
    return batch

  @property
  def bad_records(self) -> dict[int, str]:
    """Index -> reason of the records that could not be used."""
    return self._loader.bad

  def close(self) -> None:
    """Stops the reading threads."""
    self._batches.close()


def _concatenate(chunks: Sequence[Mapping]) -> dict:
  return {
    key: _concatenate([chunk[key] for chunk in chunks]) if isinstance(value, Mapping)
    else np.concatenate([chunk[key] for chunk in chunks])
    for key, value in chunks[0].items()
  }  # fmt: skip


def train_batches(
  config: Mapping, *, seed: int, batch_size: int, start_step: int = 0, process_index: int = 0,
  process_count: int = 1, data_dir: str | os.PathLike | None = None, source: Source | None = None,
) -> Batches:  # fmt: skip
  """Batches from `start_step` on: this process's rows of each global batch.

  Args:
    config: the config's `data`, over DEFAULTS.
    batch_size: examples in the global batch.
    source: read from this instead of what `config` names.

  Raises:
    UserError: bad config, missing dataset, ids that differ from the tokenizer's; from the
      iterator when too many records are bad.
  """
  settings = resolve(config)
  source = source or open_source(settings, settings["split"], data_dir)
  order = Order(len(source), seed, batch_size, start_step, process_index, process_count)
  return Batches(Loader(source, settings, seed), order, start_step, **settings["read"])
