"""A tokenizer in the JSON format of Hugging Face's `tokenizers` package."""

from __future__ import annotations

import pathlib
from typing import Any

from mmcontrast import folders
from mmcontrast.data.tokenizers.tokenizer import MASKS, Tokenizer, package
from mmcontrast.errors import MissingData, UserError, one_line

_NAMES = {  # what files call them; the first that a file has is taken
  "bos": ("[CLS]", "<s>", "<bos>", "[BOS]", "<|startoftext|>", "<start_of_text>"),
  "eos": ("[SEP]", "</s>", "<eos>", "[EOS]", "<|endoftext|>", "<end_of_text>"),
  "pad": ("[PAD]", "<pad>", "<|pad|>"),
  "mask": MASKS,
}


class HuggingFaceTokenizer(Tokenizer):
  """A `tokenizer.json`: its own normaliser and pre-tokenizer; bos, eos, cut and padding are ours.

  pad is that of the file's padding, else a token of a usual name, else eos, which is as good: a
  text ends with its first eos. Texts have a bos unless there is none (T5), or the file's own texts end
  with eos and begin with their first token (SigLIP 2's Gemma).

  Args:
    path: the file.
    lower: lower-case the text first; False where the vocabulary has upper case.
    special_tokens: what "</s>" within a text is. "text": letters as others, so that no caption ends itself (where the
      model knows no letters, the unknown token, or nothing). "read": that token, as the package reads it.

  Raises:
    UserError: no such file, not of the format, without eos, or the package is missing.
  """

  def __init__(self, path: str | pathlib.Path, *, lower: bool | str = True, special_tokens: str = "text"):
    library = package("tokenizers", "huggingface")
    path = folders.at(path, "tokenizer")
    if not path.is_file():
      raise MissingData(f"tokenizer {path}: no such file; give data.tokenizer='huggingface:PATH', the path of a "
                        "tokenizer.json")  # fmt: skip
    try:
      with folders.fetched(path) as file:
        self._model = library.Tokenizer.from_file(str(file))
    except Exception as error:  # the package raises nothing narrower
      raise UserError(f"tokenizer {path}: not a file of the tokenizers package ({one_line(error)})") from None
    ids = {name: _find(self._model, names) for name, names in _NAMES.items()}
    if self._model.padding:
      ids["pad"] = self._model.padding["pad_id"]
    if ids["eos"] is None:
      raise UserError(f"tokenizer {path}: has no eos token; add one of {', '.join(_NAMES['eos'])} to it")
    own = self._model.encode("").ids
    if ids["eos"] in own and ids["bos"] not in own:
      ids["bos"] = None
    self._model.encode_special_tokens = special_tokens == "text"
    unknown = getattr(self._model.model, "unk_token", None)
    self._unknown = self._model.token_to_id(unknown) if unknown else None
    self._reserved = (
      {ids[name] for name in ("bos", "eos", "pad", "mask")} - {None} if special_tokens == "text" else set()
    )
    self._model.no_padding()
    self._model.no_truncation()
    super().__init__(
      str(path), vocab_size=self._model.get_vocab_size(), bos_id=-1 if ids["bos"] is None else ids["bos"],
      eos_id=ids["eos"], pad_id=ids["eos"] if ids["pad"] is None else ids["pad"], lower=lower, file=path,
      mask_id=-1 if ids["mask"] is None else ids["mask"],
    )  # fmt: skip

  def _pieces(self, texts: list[str]) -> list[list[int]]:
    found = [found.ids for found in self._model.encode_batch(texts, add_special_tokens=False)]
    if not self._reserved:
      return found
    instead = [] if self._unknown is None or self._unknown in self._reserved else [self._unknown]
    return [ids if self._reserved.isdisjoint(ids) else
            [one for number in ids for one in (instead if number in self._reserved else [number])]
            for ids in found]  # fmt: skip

  def _text(self, ids: list[int]) -> str:
    return self._model.decode(ids)


def _find(model: Any, names: tuple[str, ...]) -> int | None:
  found = (model.token_to_id(name) for name in names)
  return next((number for number in found if number is not None), None)
