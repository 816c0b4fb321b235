"""CLIP's byte-level BPE (Radford et al., arXiv:2103.00020), from its file of merges.

The file, `bpe_simple_vocab_16e6.txt.gz`, is a line of comment and then a merge a line, of which
the first 48,894 count. Ids: 256 bytes, the same bytes at the end of a word, the merges, bos, eos.
"""

from __future__ import annotations

import gzip
import html
import importlib.util
import pathlib
import zlib
from typing import Any

from mmcontrast import folders
from mmcontrast.data.tokenizers.tokenizer import Tokenizer, package
from mmcontrast.errors import MissingData, UserError

FILE = "bpe_simple_vocab_16e6.txt.gz"
VOCABULARY = 49408
MERGES = VOCABULARY - 2 * 256 - 2
_END = "</w>"
_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))  # bytes that stand for themselves
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]  # written as the characters from 256 on
BYTES = {chr(byte): byte for byte in _PRINTABLE} | {chr(256 + n): byte for n, byte in enumerate(_OTHERS)}
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


class ClipTokenizer(Tokenizer):
  """Token for token OpenAI's and open_clip's, with one difference: a caption cannot write bos or eos.

  Texts are mended by ftfy, HTML entities twice resolved, white space made single, letters made
  small. pad is 0, which is "!" too: the mask goes by position (see Tokenizer).

  Args:
    path: the file of merges; "": the one that an installed open_clip brings.
    lower: there is no upper case in this vocabulary, so it must be True.

  Raises:
    UserError: no such file, another file, or a package is missing (without ftfy the ids of curly
      quotes and broken encodings would differ, so there is no way round it).
  """

  def __init__(self, path: str = "", *, lower: bool | str = True):
    if not lower:
      raise UserError("data.lower=False: CLIP's vocabulary has no upper case; leave it True for data.tokenizer='clip'")
    self._ftfy = package("ftfy", "clip")
    file = folders.at(path, "tokenizer") if path else _shipped()
    self._model = _model(_merges(file))
    # The texts are made small after entities are resolved, by `_clean`.
    super().__init__(
      "clip", vocab_size=VOCABULARY, pad_id=0, bos_id=VOCABULARY - 2, eos_id=VOCABULARY - 1, lower=False, file=file
    )

  def json(self) -> str:
    """The model in the JSON format of the `tokenizers` package, without what mends texts, bos and eos."""
    return self._model.to_str()

  def _pieces(self, texts: list[str]) -> list[list[int]]:
    found = self._model.encode_batch([self._clean(text) for text in texts], add_special_tokens=False)
    return [text.ids for text in found]

  def _text(self, ids: list[int]) -> str:
    letters = "".join(self._model.id_to_token(i) for i in ids)
    return bytes(BYTES[letter] for letter in letters).decode(errors="replace").replace(_END, " ").strip()

  def _clean(self, text: str) -> str:
    text = html.unescape(html.unescape(self._ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


def _shipped() -> pathlib.Path:
  """The file within open_clip, which is found, not imported."""
  spec = importlib.util.find_spec("open_clip")
  if spec is None or not (path := pathlib.Path(spec.origin).parent / FILE).is_file():
    raise MissingData(
      f"'clip' has no path, and no open_clip is installed; give 'clip:PATH', the path of {FILE} "
      "(in the archive that `pip download --no-deps open_clip_torch` brings)"
    )
  return path


def _merges(path: folders.Folder) -> list[tuple[str, str]]:
  if not path.is_file():
    raise MissingData(f"tokenizer {path}: no such file; give data.tokenizer='clip:PATH', the path of {FILE}")
  try:
    lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")
  except (OSError, EOFError, zlib.error, UnicodeDecodeError):
    raise UserError(f"tokenizer {path}: not a gzip file of text; CLIP's is {FILE}") from None
  merges = [tuple(line.split()) for line in lines[1 : 1 + MERGES]]
  wrong = next((number for number, merge in enumerate(merges, 2) if len(merge) != 2), None)
  if wrong or len(merges) < MERGES:
    what = f"line {wrong} is not a pair" if wrong else f"{len(merges)} merges, {MERGES} are needed"
    raise UserError(f"tokenizer {path}: {what}; CLIP's is {FILE}")
  return merges


def _model(merges: list[tuple[str, str]]) -> Any:
  library = package("tokenizers", "clip")
  tokens = [*BYTES, *(letter + _END for letter in BYTES), *map("".join, merges)]
  model = library.Tokenizer(library.models.BPE(
    vocab={token: number for number, token in enumerate(tokens)}, merges=merges, end_of_word_suffix=_END))  # fmt: skip
  model.pre_tokenizer = library.pre_tokenizers.Sequence(
    [
      library.pre_tokenizers.Split(library.Regex(_WORDS), behavior="removed", invert=True),
      library.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
  )
  return model
