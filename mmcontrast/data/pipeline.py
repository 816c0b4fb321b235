"""The training pipeline: batches whose order is a pure function of (seed, step).

    source -> order(seed, step) -> grain threads: decode, choose, crop, tokenise -> batch

A batch holds one epoch's examples only (the remainder of an epoch is dropped), so none
appears twice in it. Nothing is carried from step to step: a run may start anywhere, with
any number of threads, and the slices of P processes make up the same global batch.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence

import grain
import numpy as np

from mmcontrast.data import image_views
from mmcontrast.data.loader import Loader, check_languages, open_tokenizer
from mmcontrast.data.order import Order
from mmcontrast.data.settings import resolve
from mmcontrast.data.sources import Source, open_source


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


def spec(config: Mapping, batch_size: int, data_dir: str | os.PathLike | None = None) -> Spec:
  """The `Spec` of `config` at a global batch size. Raises UserError as `train_batches` does."""
  settings = resolve(config)
  source = open_source(settings, settings["split"], data_dir)
  check_languages(settings, source)
  tokenizer = open_tokenizer(settings, source)
  order = Order(len(source), 0, batch_size)
  views, info = settings["views"], source.info
  shapes = {
    **(image_views.shapes(settings) if views["image"] else {}),
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
    return self._loader.reader.bad

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
