"""Text to token ids: sentencepiece, with bos and eos, padded to a fixed length."""

from __future__ import annotations

import io
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np
import sentencepiece

from mmcontrast.errors import MissingData, UserError

IDS = {"pad": 0, "bos": 1, "eos": 2, "unk": 3}


def train(captions: Iterable[str], vocab_size: int) -> bytes:
  """Trains a BPE model with byte fallback and case folding; the same captions, the same bytes."""
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(captions), model_writer=model, vocab_size=vocab_size, model_type="bpe",
    byte_fallback=True, character_coverage=1.0, normalization_rule_name="nmt_nfkc_cf",
    num_threads=1, minloglevel=2, **{f"{name}_id": number for name, number in IDS.items()},
  )  # fmt: skip
  return model.getvalue()


class SentencePieceTokenizer:
  """A trained sentencepiece model.

  Args:
    path: the `.model` file.
    lower: lower-case the text first (a model trained by `train` folds case by itself).

  Raises:
    UserError: no such file, not a sentencepiece model, or one without pad, bos or eos.
  """

  def __init__(self, path: str | pathlib.Path, *, lower: bool = True):
    self.path, self.lower = pathlib.Path(path), lower
    if not self.path.is_file():
      raise MissingData(f"tokenizer {path}: no such file; give data.tokenizer the path of a "
                        "sentencepiece .model, or 'sentencepiece' for the dataset's own")  # fmt: skip
    self._model = sentencepiece.SentencePieceProcessor()
    try:
      self._model.LoadFromSerializedProto(self.path.read_bytes())
    except RuntimeError:
      raise UserError(f"tokenizer {path}: not a sentencepiece model") from None
    self.vocab_size: int = self._model.vocab_size()
    self.pad_id, self.bos_id, self.eos_id, self.unk_id = (
      self._model.pad_id(), self._model.bos_id(), self._model.eos_id(), self._model.unk_id()
    )  # fmt: skip
    for name in ("pad", "bos", "eos"):
      if getattr(self, f"{name}_id") < 0:
        raise UserError(f"tokenizer {path}: has no {name} id; train it with {name}_id >= 0")

  def encode(self, texts: Sequence[str], length: int) -> np.ndarray:
    """Token ids, int32 [N, length]: bos, tokens, eos, pad; a long text keeps its eos."""
    rows = self._model.encode([t.lower() if self.lower else t for t in texts])
    out = np.full((len(rows), length), self.pad_id, np.int32)
    for row, tokens in zip(out, rows):
      tokens = [self.bos_id, *tokens[: length - 2], self.eos_id]
      row[: len(tokens)] = tokens
    return out

  def decode(self, ids: np.ndarray) -> list[str]:
    """Texts of int [N, L]; pad, bos and eos are dropped."""
    special = {self.pad_id, self.bos_id, self.eos_id}
    return [self._model.decode([int(i) for i in row if i not in special]) for row in ids]

  def check(self, **expected: int) -> None:
    """Raises UserError when a named property (`pad_id=0`, `vocab_size=2000`) is another."""
    for name, value in expected.items():
      if (found := getattr(self, name)) != value:
        raise UserError(
          f"tokenizer {self.path}: {name} is {found}, the config says {value}; set it to {found} "
          f"or train the tokenizer with {name}={value}"
        )
