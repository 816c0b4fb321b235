"""What `mmcontrast data tokenizer` does: a sentencepiece model of the texts of a source."""

from __future__ import annotations

import pathlib
import re
import sys
from collections.abc import Iterator

import numpy as np

from mmcontrast import folders
from mmcontrast.data import tokenizers
from mmcontrast.data.captions import clean
from mmcontrast.data.settings import defaults
from mmcontrast.data.sources import BadRecord, Source
from mmcontrast.errors import UserError

_MOST = re.compile(r"set it to a value <= (\d+)")
_LEAST = re.compile(r"smaller than required_chars\. \d+ vs (\d+)")
RECORDS = 1_000_000  # read at most, evenly spaced: more change no vocabulary, and all texts read stay in memory


def train_tokenizer(source: Source, out: str | pathlib.Path, vocab_size: int) -> folders.Folder:
  """Trains a model on the captions and names of `source` and writes it to `out`, which it returns.

  A vocabulary that the texts are too few for is made as large as they allow, and records that cannot be read are left
  out; a line says so.
  Raises UserError when there is no text, or the vocabulary is too small for its letters.
  """
  out, bad = folders.at(out, "--out"), []
  folders.make(out.parent, "--out")
  texts = list(_texts(source, bad))
  try:
    model = tokenizers.train(texts, vocab_size)
  except RuntimeError as error:
    most = _MOST.search(str(error))
    if not most:
      left_out = f"; {len(bad)} records left out, such as {bad[0]}" if bad else ""
      raise UserError(f"--vocab_size {vocab_size}, {source.info.name}: {_reason(error)}{left_out}") from None
    model = tokenizers.train(texts, int(most[1]))
    print(f"--vocab_size {vocab_size}: the {len(texts):,} texts give no more than {most[1]} tokens; the tokenizer has "
          f"{most[1]}", file=sys.stderr)  # fmt: skip
  if bad:
    print(f"{len(bad)} records left out, such as {bad[0]}", file=sys.stderr)
  with folders.written(out) as file:
    file.write_bytes(model)
  return out


def _reason(error: RuntimeError) -> str:
  """What sentencepiece says, in the words of this command."""
  if least := _LEAST.search(str(error)):
    return (f"Vocabulary size is smaller than the {least[1]} that the 256 bytes, the special tokens and the "
            f"characters of the texts need; give {least[1]} or more")  # fmt: skip
  return str(error).rpartition("]")[2].strip() or "there is no text in it"


def _texts(source: Source, bad: list[str]) -> Iterator[str]:
  count = len(source)
  for index in np.unique(np.linspace(0, count - 1, min(count, RECORDS)).astype(np.int64)):
    try:
      record = source[int(index)]
    except (BadRecord, OSError) as error:
      bad.append(str(error))
      continue
    for texts in (*record["captions"].values(), list(record["names"].values())):
      yield from filter(None, (clean(text, defaults()["limits"]["caption_characters"]) for text in texts))
