"""The training pipeline: batches whose order is a pure function of (seed, step).

    source -> order(seed, step) -> grain threads: decode, choose, crop, tokenise -> batch

A batch of one source holds one epoch's examples only (the remainder of an epoch is dropped), so none
appears twice in it; of a mixture, see order.py. Nothing is carried from step to step: a run may start anywhere, with
any number of threads, and the slices of P processes make up the same global batch.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grain
import numpy as np

from mmcontrast.data.balance import groups_of
from mmcontrast.data.batch_schema import batch_schema, of_size
from mmcontrast.data.buckets import Bucket, EpochsOfRounds, Rounds, buckets_of, check_one_size, widest
from mmcontrast.data.fingerprint import fingerprint
from mmcontrast.data.loader import Loader, check_views, open_tokenizer
from mmcontrast.data.order import Balanced, Draws, Epochs, InOrder, OneGroup, Order, Shares
from mmcontrast.data.reading import FOR_BAD, FOR_FILTERED
from mmcontrast.data.settings import resolve
from mmcontrast.data.sources import Mixture, Source, open_source
from mmcontrast.data.tokenizers import Tokenizer


@dataclasses.dataclass(frozen=True)
class Spec:
  """What the model and the trainer need to know of the data before the first batch."""

  examples: int
  steps_per_epoch: int
  tag_names: tuple[str, ...]
  label_names: Mapping[str, tuple[str, ...]]
  styles: tuple[str, ...]
  vocab_size: int | None  # None without text views
  batch: Mapping[str, tuple[tuple[int, ...], np.dtype]]  # name -> (shape, dtype), global batch, of `buckets.widest`
  mask_id: int | None = None  # the token that stands for a word to be guessed; None without
  fingerprint: Mapping[str, Any] | None = None  # tells these data from others; None of made-up ones
  sizes: tuple[int, ...] = ()  # examples of a batch of each bucket; () where all batches are alike


def spec(config: Mapping, batch_size: int, data_dir: str | os.PathLike | None = None) -> Spec:
  """The `Spec` of `config` at a global batch size. Raises UserError as `train_batches` does."""
  settings = resolve(config)
  source = open_source(settings, settings["split"], data_dir)
  check_views(settings, source)
  tokenizer = open_tokenizer(settings, source)
  info = source.info
  buckets = buckets_of(settings, batch_size)
  of_batch = widest(buckets, batch_size).settings
  schema = batch_schema(of_batch, tags=len(info.tag_names), labels=info.label_names, weighted=info.weighted)
  return Spec(
    examples=len(source), steps_per_epoch=draws(source, 0, batch_size, settings["balance"], buckets).steps_per_epoch,
    sizes=tuple(bucket.size for bucket in buckets) if len(buckets) > 1 else (),
    tag_names=info.tag_names,
    label_names=info.label_names, styles=info.styles,
    vocab_size=tokenizer.vocab_size if tokenizer else None,
    mask_id=tokenizer.mask_id if tokenizer and tokenizer.mask_id >= 0 else None, batch=of_size(schema, batch_size),
    fingerprint=fingerprint(source, tokenizer, settings["on_error"]),
  )  # fmt: skip


def draws(
  source: Source, seed: int, batch_size: int, balance: Mapping[str, Any] | None = None, buckets: tuple[Bucket, ...] = ()
) -> Draws:
  """What stands in the rows of the batches of `source`. UserError where a batch would hold an example twice.

  `balance`: config.data.balance, a label and of how many examples of a class an epoch is at most. `buckets`: of
  batches of several shapes.
  """
  sizes = tuple(bucket.size for bucket in buckets)
  if len(set(sizes)) > 1:
    check_one_size(buckets if balance and balance["label"] else (), "data.balance")
    check_one_size(buckets if isinstance(source, Mixture) else (), "data.mixture")
    return EpochsOfRounds(len(source), seed, Rounds(sizes, seed))
  if balance and balance["label"]:
    return Balanced(groups_of(source, balance["label"]), balance["most"], seed, batch_size)
  if not isinstance(source, Mixture):
    return Epochs(len(source), seed, batch_size)
  lengths = tuple(len(member) for member in source.members.values())
  return Shares(tuple(source.members), lengths, tuple(source.weights.values()), seed, batch_size)


class Batches(Iterator):
  """Endless batches, of this process's rows.

  Attributes:
    step: that of the next batch.
    examples: given so far; each is the one its row asked for, or else replaces
    for_bad: a bad record, or
    for_filtered: one that a filter took out.
  """

  def __init__(self, loader: Loader, order: Order, start_step: int, threads: int, prefetch: int):
    self._loader, self.step = loader, start_step
    self.examples = self.for_bad = self.for_filtered = 0
    read = grain.ReadOptions(num_threads=threads,
                             prefetch_buffer_size=prefetch * order.chunks_per_batch)  # fmt: skip
    chunks = grain.MapDataset.source(order).map(loader).to_iter_dataset(read)
    self._batches = iter(chunks.batch(order.chunks_per_batch, batch_fn=_concatenate))

  def __next__(self) -> dict:
    batch = next(self._batches)
    why = batch.pop("why")
    self.examples += len(why)
    self.for_bad += int((why == FOR_BAD).sum())
    self.for_filtered += int((why == FOR_FILTERED).sum())
    self.step += 1
    return batch

  @property
  def tokenizer(self) -> Tokenizer | None:
    """That of the texts; None without text views."""
    return self._loader.tokenizer

  @property
  def bad_records(self) -> dict[int, str]:
    """Index -> reason of the records that could not be used, those read ahead included."""
    return self._loader.bad

  @property
  def filtered(self) -> dict[str, int]:
    """Filter -> how many records it took out, those read ahead included."""
    return self._loader.filtered

  @property
  def counts(self) -> dict[str, int]:
    """Metrics: examples that were replaced, different records that were bad or filtered, repeated reads."""
    return {
      "data/skipped": self.for_bad + self.for_filtered,
      "data/bad_records": len(self.bad_records),
      "data/filtered": sum(self.filtered.values()),
      "data/retries": self._loader.attempts.repeated,
    }

  def cut_line(self) -> str:
    """What cutting captions does, in a line that some records are read for; "" where none is cut."""
    return self._loader.cut_line()

  def summary(self, most: int = 3) -> str:
    """One line: the counts, and up to `most` bad records by name."""
    bad, filtered = self.bad_records, self.filtered
    took = f" ({', '.join(f'{name} {count:,}' for name, count in sorted(filtered.items()))})" if filtered else ""
    named = [*list(bad.values())[:most], *["..."] * (len(bad) > most)]
    return (
      f"data: {self.examples:,} examples, {self.for_bad + self.for_filtered:,} of them replacements; "
      f"{len(bad):,} bad records, {sum(filtered.values()):,} filtered{took}, "
      f"{self._loader.attempts.repeated:,} reads tried again" + (f"; bad: {'; '.join(named)}" if bad else "")
    )

  def close(self) -> None:
    """Stops the reading threads; a read that hangs is left to itself."""
    self._batches.close()
    self._loader.attempts.close()


def _concatenate(chunks: Sequence[Mapping]) -> dict:
  return {
    key: _concatenate([chunk[key] for chunk in chunks]) if isinstance(value, Mapping)
    else np.concatenate([chunk[key] for chunk in chunks])
    for key, value in chunks[0].items()
  }  # fmt: skip


def train_batches(
  config: Mapping, *, seed: int, batch_size: int, start_step: int = 0, process_index: int = 0,
  process_count: int = 1, data_dir: str | os.PathLike | None = None, source: Source | None = None,
  groups: np.ndarray | None = None,
) -> Batches:  # fmt: skip
  """Batches from `start_step` on: this process's rows of each global batch.

  Args:
    config: the config's `data`, over DEFAULTS.
    batch_size: examples in the global batch.
    source: read from this instead of what `config` names.
    groups: int [E], the group of each example, below 0 of none: each batch is then of one (`order.OneGroup`).

  Raises:
    UserError: bad config, missing dataset, ids that differ from the tokenizer's; from the
      iterator when too many records are bad.
  """
  settings = resolve(config)
  source, buckets = source or open_source(settings, settings["split"], data_dir), buckets_of(settings, batch_size)
  if groups is None:
    drawn = draws(source, seed, batch_size, settings["balance"], buckets)
  else:
    check_one_size(buckets, "config.epoch_hooks, which make batches of one group,")
    drawn = OneGroup(groups, seed, batch_size)
  rounds = Rounds(tuple(bucket.size for bucket in buckets), seed) if len(buckets) > 1 else None
  order = Order(drawn, batch_size, start_step, process_index, process_count, rounds)
  loader = Loader(source, settings, seed, [bucket.settings for bucket in buckets])
  return Batches(loader, order, start_step, **settings["read"])


def batches_in_order(
  config: Mapping, source: Source, *, seed: int, batch_size: int, process_index: int = 0, process_count: int = 1
) -> Batches:
  """Batches of every example of `source` once, in its order, as evaluation crops images: what is embedded between
  epochs. After ceil(examples / batch_size) of them the first comes again.

  Args: as of `train_batches`; an example whose record cannot be used is replaced by another, as "index" says.
  """
  settings = {**resolve(config), "as_evaluated": True}
  order = Order(InOrder(len(source), batch_size), batch_size, 0, process_index, process_count)
  return Batches(Loader(source, settings, seed), order, 0, **settings["read"])
