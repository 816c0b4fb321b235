"""sentencepiece: training a model, and using one."""

from __future__ import annotations

import io
import pathlib
from collections.abc import Iterable

import sentencepiece

from mmcontrast import folders
from mmcontrast.data.tokenizers.tokenizer import MASKS, Tokenizer
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


class SentencePieceTokenizer(Tokenizer):
  """A trained sentencepiece model. Without a pad of its own eos pads; without bos texts have none (T5, SigLIP).

  The mask token is the piece of a usual name; in a model that falls back to bytes the unknown piece, which no text has.

  Args:
    path: the `.model` file.
    lower: lower-case the text first (a model trained by `train` folds case by itself).

  Raises:
    UserError: no such file, not a sentencepiece model, or one without eos.
  """

  def __init__(self, path: str | pathlib.Path, *, lower: bool | str = True):
    path = folders.at(path, "tokenizer")
    if not path.is_file():
      raise MissingData(f"tokenizer {path}: no such file; give data.tokenizer the path of a "
                        "sentencepiece .model, or 'sentencepiece' for the dataset's own")  # fmt: skip
    self._model = sentencepiece.SentencePieceProcessor()
    try:
      self._model.LoadFromSerializedProto(path.read_bytes())
    except RuntimeError:
      raise UserError(f"tokenizer {path}: not a sentencepiece model") from None
    ids = {f"{name}_id": getattr(self._model, f"{name}_id")() for name in ("pad", "bos", "eos")}
    if ids["eos_id"] < 0:
      raise UserError(f"tokenizer {path}: has no eos; train it with eos_id >= 0")
    if ids["pad_id"] < 0:
      ids["pad_id"] = ids["eos_id"]
    self.unk_id: int = self._model.unk_id()
    super().__init__(
      str(path), vocab_size=self._model.vocab_size(), lower=lower, file=path, mask_id=self._mask_id(), **ids
    )

  def _mask_id(self) -> int:
    named = next((one for name in MASKS if (one := self._model.piece_to_id(name)) != self.unk_id), -1)
    has_bytes = any(self._model.is_byte(piece) for piece in range(min(300, self._model.vocab_size())))
    return self.unk_id if named < 0 and has_bytes else named

  def _pieces(self, texts: list[str]) -> list[list[int]]:
    return self._model.encode(texts)

  def _text(self, ids: list[int]) -> str:
    return self._model.decode(ids)
