"""What `mmcontrast data tokenizer` does: a sentencepiece model of the texts of a source."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterator

import numpy as np

from mmcontrast.data import tokenizers
from mmcontrast.data.sources import BadRecord, Source
from mmcontrast.errors import UserError

RECORDS = 1_000_000  # read at most, evenly spaced: more change no vocabulary, and all texts read stay in memory


def train_tokenizer(source: Source, out: str | pathlib.Path, vocab_size: int) -> pathlib.Path:
  """Trains a model on the captions and names of `source` and writes it to `out`, which it returns.

  Records that cannot be read are left out, with a line that says how many.
  Raises UserError when there is no text, or not enough for the vocabulary.
  """
  bad: list[str] = []
  try:
    model = tokenizers.train(_texts(source, bad), vocab_size)
  except RuntimeError as error:
    reason = str(error).rpartition("]")[2].strip() or "there is no text in it"
    raise UserError(f"--vocab_size {vocab_size}, {source.info.name}: {reason}") from None
  if bad:
    print(f"{len(bad)} records left out, such as {bad[0]}", file=sys.stderr)
  out = pathlib.Path(out)
  out.parent.mkdir(parents=True, exist_ok=True)
  out.write_bytes(model)
  return out


def _texts(source: Source, bad: list[str]) -> Iterator[str]:
  count = len(source)
  for index in np.unique(np.linspace(0, count - 1, min(count, RECORDS)).astype(np.int64)):
    try:
      record = source[int(index)]
    except (BadRecord, OSError) as error:
      bad.append(str(error))
      continue
    for texts in (*record["captions"].values(), list(record["names"].values())):
      yield from (text.encode(errors="replace").decode() for text in texts if text.strip())  # half a surrogate pair: ?
