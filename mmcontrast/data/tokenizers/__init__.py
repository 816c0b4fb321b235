"""Tokenizers, by the kind that `data.tokenizer` names. One more is a file here and a line in TOKENIZERS.

"sentencepiece"       the dataset's own model
"PATH.model"          a sentencepiece model; "sentencepiece:PATH" says the same
"clip:PATH"           CLIP's BPE; "clip" takes the file of an installed open_clip
"huggingface:PATH"    a JSON file of the `tokenizers` package
"bytes"               UTF-8 bytes
"word_parts"          words and 3 to 5 of their letters, hashed

What a kind takes, of `path`, `lower` and `special_tokens`, are the parameters of its class.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable

from mmcontrast import folders
from mmcontrast.data.tokenizers.clip import ClipTokenizer
from mmcontrast.data.tokenizers.huggingface import HuggingFaceTokenizer
from mmcontrast.data.tokenizers.sentencepiece import SentencePieceTokenizer, train
from mmcontrast.data.tokenizers.tokenizer import Tokenizer
from mmcontrast.data.tokenizers.utf8 import ByteTokenizer
from mmcontrast.data.tokenizers.word_parts import WordPartsTokenizer
from mmcontrast.errors import UserError, nearest
from mmcontrast.registry import REQUIRED, build, options_of

__all__ = ["TOKENIZERS", "SentencePieceTokenizer", "Tokenizer", "keep_file", "kept_name", "make_tokenizer", "train"]

TOKENIZERS: dict[str, Callable[..., Tokenizer]] = {
  "sentencepiece": SentencePieceTokenizer,
  "clip": ClipTokenizer,
  "huggingface": HuggingFaceTokenizer,
  "bytes": ByteTokenizer,
  "word_parts": WordPartsTokenizer,
}
OF_DATASET = "sentencepiece"  # the kind that without a path means the dataset's own model
FOLDER = "tokenizer"  # within the folder of a run


def make_tokenizer(name: str, *, lower: bool | str, own: pathlib.Path | None = None, dataset: str = "",
                   special_tokens: str = "text") -> Tokenizer:  # fmt: skip
  """The tokenizer that `data.tokenizer` names.

  Args:
    name: KIND, KIND:PATH or PATH.model.
    lower: lower-case the texts first.
    own: the model of the dataset, which "sentencepiece" without a path means.
    dataset: its name, for messages.
    special_tokens: what those are that a text writes: "text", or "read", which only "huggingface" can.

  Raises UserError for no such kind, a path that is missing or not wanted, or a file of another format.
  """
  kind, path = _parse(name)
  if kind not in TOKENIZERS:
    raise UserError(f"data.tokenizer: no kind {kind!r}; {nearest(kind, TOKENIZERS)}, or give the path of a .model")
  takes = options_of(TOKENIZERS[kind])
  if kind == OF_DATASET and not path:
    if own is None:
      raise UserError(f"data.tokenizer: dataset {dataset} has no tokenizer; give the path of a sentencepiece .model")
    path = str(own)
  if path and "path" not in takes:
    raise UserError(f"data.tokenizer: {kind!r} takes no path, not {path!r}")
  if not path and takes.get("path") is REQUIRED:
    raise UserError(f"data.tokenizer: {kind!r} needs a file; write '{kind}:PATH'")
  if special_tokens != "text" and "special_tokens" not in takes:
    able = " or ".join(f"'{one}:PATH'" for one, of in TOKENIZERS.items() if "special_tokens" in options_of(of))
    raise UserError(f"data.special_tokens: {special_tokens!r} is for {able}; for {kind!r} leave it 'text'")
  options = {"lower": lower, "special_tokens": special_tokens} | ({"path": path} if path else {})
  wanted = {key: value for key, value in options.items() if key in takes}
  return build(TOKENIZERS, {"name": kind, **wanted}, "data.tokenizer")


def keep_file(tokenizer: Tokenizer, workdir: str | pathlib.Path) -> None:
  """Copies the file of `tokenizer` to `workdir`/tokenizer, so that a run can be moved without its data.

  Raises UserError when another file is kept there.
  """
  if tokenizer.file is None:
    return
  content = tokenizer.file.read_bytes()
  for kept in _kept(workdir):
    if kept.read_bytes() != content:
      raise UserError(
        f"{kept}: the run began with this tokenizer, and {tokenizer.file} is different; restore it, or "
        "give another --workdir"
      )
    return
  folder = folders.at(workdir, "--workdir") / FOLDER
  folder.mkdir(parents=True, exist_ok=True)
  with folders.written(folder / tokenizer.file.name) as file:
    file.write_bytes(content)


def kept_name(name: str, workdir: str | pathlib.Path) -> str:
  """`data.tokenizer` with the path of the copy in the folder of a run; `name` itself where there is none."""
  kept = _kept(workdir)
  return f"{_parse(name)[0]}:{kept[0]}" if kept else name


def _kept(workdir: str | pathlib.Path) -> list[folders.Folder]:
  """The files of tokenizers in the folder of a run: none or one, as far as it was written whole."""
  return [path for path in (folders.at(workdir, "--workdir") / FOLDER).glob("*") if path.suffix != ".partial"]


def _parse(name: str) -> tuple[str, str]:
  kind, _, path = name.partition(":")
  if kind not in TOKENIZERS and name.endswith(".model"):
    kind, path = OF_DATASET, name
  return kind, os.path.expanduser(path)
