"""What every kind of tokenizer does: bos, tokens, eos, padding; a cut that keeps eos; the check of ids."""

from __future__ import annotations

import abc
import importlib
import string
from collections.abc import Sequence
from types import ModuleType

import numpy as np

from mmcontrast.errors import UserError
from mmcontrast.folders import Folder

MASKS = ("[MASK]", "<mask>")
"""What vocabularies call the token that stands for a word to be guessed."""
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Tokenizer(abc.ABC):
  """Texts to ids and back. A kind gives `_pieces` and `_text`.

  A text ends with its first eos: what follows is padding, whatever its id (CLIP pads with 0, which is "!" too).

  Args:
    name: for messages.
    vocab_size: ids are below it.
    bos_id: -1 when texts begin with their first token.
    eos_id: another than bos.
    pad_id: any id.
    lower: what is done to texts first: True makes them small; "canonicalize" also takes out ASCII punctuation and
      makes white space single, as SigLIP's were.
    file: what it was read from, on this machine or in an object store; None where there is nothing to read.
    mask_id: that of the token which stands for a word to be guessed; -1: it has none.

  Raises UserError when bos and eos are the same, since the first eos would be at the start.
  """

  def __init__(
    self,
    name: str,
    *,
    vocab_size: int,
    pad_id: int,
    bos_id: int,
    eos_id: int,
    lower: bool | str,
    file: Folder | None = None,
    mask_id: int = -1,
  ):
    self.name, self.vocab_size, self.file, self._lower = name, vocab_size, file, lower
    self.pad_id, self.bos_id, self.eos_id, self.mask_id = pad_id, bos_id, eos_id, mask_id
    if bos_id == eos_id:
      raise UserError(f"tokenizer {name}: bos and eos are both {eos_id}; give one where they differ")

  def encode(self, texts: Sequence[str], length: int) -> np.ndarray:
    """Token ids, int32 [N, length]: bos, tokens, eos, pad; a long text is cut and keeps its eos."""
    rows = self.tokens(texts)
    out = np.full((len(rows), length), self.pad_id, np.int32)
    for row, tokens in zip(out, rows):
      row[: len(tokens)] = tokens if len(tokens) <= length else [*tokens[: length - 1], self.eos_id]
    return out

  def tokens(self, texts: Sequence[str]) -> list[list[int]]:
    """The ids of each text, bos and eos among them, whatever their number."""
    # What UTF-8 cannot hold (half of a surrogate pair, as JSON may bring) becomes "?".
    texts = [text.encode("utf-8", "replace").decode() for text in texts]
    start = [self.bos_id] if self.bos_id >= 0 else []
    rows = self._pieces(
      [_canonical(text) if self._lower == "canonicalize" else text.lower() for text in texts] if self._lower else texts
    )
    return [[*start, *row, self.eos_id] for row in rows]

  def decode(self, ids: np.ndarray) -> list[str]:
    """Texts of int [N, L], without bos, eos and what follows eos."""
    return [self._text(self._inner([int(i) for i in row])) for row in ids]

  def check(self, **expected: int) -> None:
    """Raises UserError when a named property (`pad_id=0`, `vocab_size=2000`) is another."""
    for name, value in expected.items():
      if (found := getattr(self, name)) != value:
        raise UserError(
          f"tokenizer {self.name}: {name} is {found}, the config says {value}; set data.token_ids="
          f"dict(pad={self.pad_id}, bos={self.bos_id}, eos={self.eos_id}), or give another tokenizer"
        )

  def _inner(self, row: list[int]) -> list[int]:
    if self.eos_id in row:
      row = row[: row.index(self.eos_id)]
    else:
      while row and row[-1] == self.pad_id:
        row.pop()
    return row[1:] if row[:1] == [self.bos_id] else row

  @abc.abstractmethod
  def _pieces(self, texts: list[str]) -> list[list[int]]:
    """The ids of each text, without bos and eos."""

  @abc.abstractmethod
  def _text(self, ids: list[int]) -> str:
    """The text of ids without bos and eos."""


def _canonical(text: str) -> str:
  return " ".join(text.replace("_", " ").translate(_NO_PUNCTUATION).lower().split())


def package(name: str, kind: str) -> ModuleType:
  """The imported package that a kind of tokenizer needs; UserError that says how to install it."""
  try:
    return importlib.import_module(name)
  except ImportError:
    raise UserError(f"'{kind}' needs the package {name}; pip install 'mmcontrast[text]'") from None
