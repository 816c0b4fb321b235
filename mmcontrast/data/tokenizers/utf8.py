"""Bytes as tokens: no vocabulary to train, every text has ids (ByT5, Xue et al., arXiv:2105.13626)."""

from __future__ import annotations

from mmcontrast.data.tokenizers.tokenizer import Tokenizer

_SPECIALS = 3  # pad 0, bos 1, eos 2; byte b is b + 3


class ByteTokenizer(Tokenizer):
  """UTF-8 bytes after pad, bos and eos: 259 ids. A cut may fall within a character."""

  def __init__(self, *, lower: bool | str = True):
    super().__init__("bytes", vocab_size=256 + _SPECIALS, pad_id=0, bos_id=1, eos_id=2, lower=lower)

  def _pieces(self, texts: list[str]) -> list[list[int]]:
    return [[byte + _SPECIALS for byte in text.encode()] for text in texts]

  def _text(self, ids: list[int]) -> str:
    return bytes(i - _SPECIALS for i in ids if _SPECIALS <= i < 256 + _SPECIALS).decode(errors="replace")
