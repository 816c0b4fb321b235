"""How many captions are cut at config.data.text_length, and how many of them a model cannot tell apart by that."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent import futures
from typing import NamedTuple

import numpy as np

from mmcontrast.data import captions, filters
from mmcontrast.data.attempts import Attempts
from mmcontrast.data.record import BadRecord, Record, Source
from mmcontrast.data.tokenizers import Tokenizer

RECORDS = 1_000  # of a source, and
CAPTIONS = 10_000  # of a set, evenly spaced: more would cost time and say the same
_THREADS = 16  # reading is mostly waiting where the data is far away


class Cut(NamedTuple):
  """Numbers of captions."""

  captions: int
  cut: int
  different: int  # by their tokens, before the cut
  alike: int  # of those: equal to another of them after it


def cut_captions(texts: Sequence[str], tokenizer: Tokenizer, length: int) -> Cut:
  """What a cut at `length` tokens, bos and eos among them, does to texts."""
  tokens = tokenizer.tokens(texts)
  different = set(map(tuple, tokens))
  after = Counter(whole if len(whole) <= length else (*whole[: length - 1], tokenizer.eos_id) for whole in different)
  return Cut(len(tokens), sum(len(row) > length for row in tokens), len(different),
             sum(count for count in after.values() if count > 1))  # fmt: skip


def line_of_set(name: str, texts: Sequence[str], tokenizer: Tokenizer, length: int) -> str:
  """A line about the captions of an evaluation set; "" where none is cut."""
  step = -(-len(texts) // CAPTIONS) or 1
  return _line(name, cut_captions(texts[::step], tokenizer, length), length,
               f", by every {step}th of {len(texts):,} captions" if step > 1 else "")  # fmt: skip


def line_of_source(source: Source, settings: Mapping, tokenizer: Tokenizer) -> str:
  """A line about the captions that text views of `source` may show; "" where none is cut.

  Args:
    settings: resolved config.data.
    tokenizer: of the run.
  """
  indices = np.unique(np.linspace(0, len(source) - 1, min(len(source), RECORDS)).astype(np.int64)).tolist()

  with contextlib.closing(Attempts(settings["on_error"])) as attempts:

    def read(index: int) -> list[str]:
      try:
        record: Record = attempts(lambda: source[index])
        found = captions.of_record(record, settings)
      except (BadRecord, OSError, filters.Filtered):  # training will say so
        return []
      return [text for texts in found.values() for text in texts]

    with futures.ThreadPoolExecutor(_THREADS) as pool:
      texts = [text for found in pool.map(read, indices) for text in found]
  of = "" if len(indices) == len(source) else f", by a sample of {len(indices):,} of {len(source):,} examples"
  return _line(source.info.name, cut_captions(texts, tokenizer, settings["text_length"]), settings["text_length"], of)


def _line(name: str, found: Cut, length: int, of: str) -> str:
  if not found.cut:
    return ""
  alike = (
    f"{found.alike:,} of {found.different:,} different ones are then equal to another"
    if found.alike
    else f"all {found.different:,} different ones stay different"
  )
  return (f"{name}: {found.cut:,} of {found.captions:,} captions ({found.cut / found.captions:.1%}) are longer than "
          f"data.text_length={length} tokens and cut; {alike}{of}")  # fmt: skip
