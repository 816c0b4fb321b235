"""Tokenizers, by the kind that `data.tokenizer` names. One more is a file here and a line in TOKENIZERS.

    "sentencepiece"       the dataset's own model
    "PATH.model"          a sentencepiece model; "sentencepiece:PATH" says the same
    "clip:PATH"           CLIP's BPE; "clip" takes the file of an installed open_clip
    "huggingface:PATH"    a JSON file of the `tokenizers` package
    "bytes"               UTF-8 bytes
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable

from mmcontrast.data.tokenizers.clip import ClipTokenizer
from mmcontrast.data.tokenizers.huggingface import HuggingFaceTokenizer
from mmcontrast.data.tokenizers.sentencepiece import SentencePieceTokenizer, train
from mmcontrast.data.tokenizers.tokenizer import Tokenizer
from mmcontrast.data.tokenizers.utf8 import ByteTokenizer
from mmcontrast.errors import UserError, nearest

__all__ = ["TOKENIZERS", "SentencePieceTokenizer", "Tokenizer", "make_tokenizer", "train"]

TOKENIZERS: dict[str, Callable[..., Tokenizer]] = {
  "sentencepiece": SentencePieceTokenizer,
  "clip": ClipTokenizer,
  "huggingface": HuggingFaceTokenizer,
  "bytes": ByteTokenizer,
}


def make_tokenizer(name: str, *, lower: bool, own: pathlib.Path | None = None, dataset: str = "") -> Tokenizer:
  """The tokenizer that `data.tokenizer` names.

  Args:
    name: KIND, KIND:PATH or PATH.model.
    lower: lower-case the texts first.
    own: the model of the dataset, which "sentencepiece" without a path means.
    dataset: its name, for messages.

  Raises UserError for no such kind, a path that is missing or not wanted, or a file of another format.
  """
  kind, _, path = name.partition(":")
  if kind not in TOKENIZERS and name.endswith(".model"):
    kind, path = "sentencepiece", name
  if kind not in TOKENIZERS:
    raise UserError(f"data.tokenizer: no kind {kind!r}; {nearest(kind, TOKENIZERS)}, or give the path of a .model")
  if kind == "bytes" and path:
    raise UserError(f"data.tokenizer: 'bytes' takes no path, not {path!r}")
  if kind == "huggingface" and not path:
    raise UserError("data.tokenizer: 'huggingface' needs a file; write 'huggingface:PATH' of a tokenizer.json")
  if kind == "sentencepiece" and not path:
    if own is None:
      raise UserError(f"data.tokenizer: dataset {dataset} brings no tokenizer; give the path of a sentencepiece .model")
    path = str(own)
  return TOKENIZERS[kind](*([path] if path else []), lower=lower)
