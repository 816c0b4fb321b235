"""The files of a tokenizer next to weights: a tokenizer.json of Hugging Face's, or a model of sentencepiece."""

from __future__ import annotations

import json
import pathlib
import re
import string
from collections.abc import Mapping
from types import MappingProxyType, ModuleType
from typing import Any

from mmcontrast.data.tokenizers import make_tokenizer
from mmcontrast.data.tokenizers.clip import FILE, ClipTokenizer
from mmcontrast.data.tokenizers.tokenizer import package
from mmcontrast.errors import UserError
from mmcontrast.folders import at
from mmcontrast.interop import sentencepiece_json
from mmcontrast.interop.json_files import read_json
from mmcontrast.interop.pretrained import TextInput

_NAMES = {
  "tokenizer.json": "huggingface",
  "spiece.model": "sentencepiece",
  "tokenizer.model": "sentencepiece",
  "sentencepiece.model": "sentencepiece",
}


def find(folder: pathlib.Path, lower: bool | str) -> tuple[str, dict[str, int]]:
  """The tokenizer in `folder`, as config.data.tokenizer, and its ids of pad, bos and eos.

  Without one: "" and ids that fit none, which is enough to start a tower from the weights, and no more.
  """
  for name, kind in _NAMES.items():
    if (folder / name).is_file():
      tokenizer = make_tokenizer(f"{kind}:{folder / name}", lower=lower)
      ids = {key: getattr(tokenizer, f"{key}_id") for key in ("pad", "bos", "eos")}
      if kind == "huggingface":
        ids["pad"] = _pad(folder, ids["pad"])
      return f"{kind}:{folder / name}", ids
  return "", {"pad": -1, "bos": -1, "eos": -1}


def clip(folder: pathlib.Path) -> str:
  """CLIP's own tokenizer, as config.data.tokenizer: its file in `folder`, else that of an installed open_clip."""
  return f"clip:{folder / FILE}" if (folder / FILE).is_file() else "clip"


def with_padding(text: TextInput) -> bytes:
  """The tokenizer.json of `text` that says its pad too, so that one file is enough."""
  file = json.loads(at(text.tokenizer.partition(":")[2], "tokenizer").read_text())
  number = text.token_ids["pad"]
  file["padding"] = {
    "strategy": "BatchLongest",
    "direction": "Right",
    "pad_to_multiple_of": None,
    "pad_id": number,
    "pad_type_id": 0,
    "pad_token": _token(file, number),
  }
  return json.dumps(file, ensure_ascii=False).encode()


def contents(
  text: TextInput,
  bos: str = "bos_token",
  eos: str = "eos_token",
  with_clip: bool = False,
  moved: Mapping[int, int] = MappingProxyType({}),
) -> dict[str, bytes]:
  """File name -> content of what transformers' AutoTokenizer reads in a folder.

  Args:
    bos, eos: what the model calls them there (BERT: "cls_token", "sep_token").
    with_clip: CLIP's own tokenizer too, which open_clip has without a file. There it mends texts with ftfy first,
      and transformers does not.
    moved: id of ours -> id there, of two that change places.
  A model of sentencepiece, and bytes, become a tokenizer.json too.
  Raises UserError for a tokenizer that it cannot read, or whose texts do not end as ours.
  """
  kind, _, path = text.tokenizer.partition(":")
  if kind == "clip" and not with_clip:
    return {}
  if kind == "word_parts":
    raise UserError("data.tokenizer: 'word_parts' hashes, which no tokenizer.json can; export --to stablehlo")
  own = make_tokenizer(text.tokenizer, lower=text.lower)
  if kind == "clip":
    return _files(_clip(own), text, {bos: own.bos_id, eos: own.eos_id, "pad_token": own.eos_id})
  if kind == "huggingface":
    file = json.loads(at(path, "tokenizer").read_text())
  else:
    file = sentencepiece_json.bytes_json(own) if kind == "bytes" else sentencepiece_json.convert(own)
  whole = _library().Tokenizer.from_str(json.dumps(file | {"padding": None})).encode("").ids
  if whole != [number for number in (own.bos_id, own.eos_id) if number >= 0]:
    raise UserError(
      f"{path}: transformers would give texts the ids {whole} around them, and the model had bos "
      f"{own.bos_id} and eos {own.eos_id}; give the file a post_processor that adds them"
    )
  if text.lower:
    steps = [*_NORMALISERS[text.lower], *([file["normalizer"]] if file["normalizer"] else [])]
    file["normalizer"] = {"type": "Sequence", "normalizers": steps}
  file = _moved(file, moved)
  if kind != "huggingface" or moved:
    sentencepiece_json.check_alike(own, file, moved)
  ids = {name: moved.get(number, number) for name, number in text.token_ids.items()}
  return _files(file, text, {bos: ids["bos"], eos: ids["eos"], "pad_token": ids["pad"]})


# What `data.lower` does to texts, in the words of a tokenizer.json.
_NORMALISERS = {
  True: [{"type": "Lowercase"}],
  "canonicalize": [
    {"type": "Replace", "pattern": {"String": "_"}, "content": " "},
    {"type": "Replace", "pattern": {"Regex": f"[{re.escape(string.punctuation)}]"}, "content": ""},
    {"type": "Lowercase"}, {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
    {"type": "Strip", "strip_left": True, "strip_right": True}],
}  # fmt: skip


def highest_id(text: TextInput) -> int:
  """The highest id that the tokenizer of `text` gives."""
  return make_tokenizer(text.tokenizer, lower=text.lower).vocab_size - 1


def _moved(file: dict, moved: Mapping[int, int]) -> dict:
  """A tokenizer.json in which two ids have changed places."""
  if not moved:
    return file

  def walk(value: Any, key: str = "") -> Any:
    if key in ("sep", "cls") and isinstance(value, list):  # a token and its id
      return [value[0], moved.get(value[1], value[1])]
    if isinstance(value, dict):
      return {name: walk(one, name) for name, one in value.items()}
    if isinstance(value, list):
      return [walk(one, key) for one in value]
    return moved.get(value, value) if key in ("id", "ids", "pad_id", "unk_id") and isinstance(value, int) else value

  model = dict(file["model"])
  vocabulary = model.pop("vocab")
  if isinstance(vocabulary, dict):
    vocabulary = {token: moved.get(number, number) for token, number in vocabulary.items()}
  else:  # an id is a place
    vocabulary = [vocabulary[moved.get(number, number)] for number in range(len(vocabulary))]
  found = {**walk({**file, "model": None}), "model": {**walk(model), "vocab": vocabulary}}
  found["added_tokens"] = sorted(found.get("added_tokens") or [], key=lambda token: token["id"])
  return found


def _files(file: dict, text: TextInput, special: dict[str, int]) -> dict[str, bytes]:
  settings = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "model_max_length": text.length,
    **{name: _token(file, number) for name, number in special.items() if number >= 0},
  }
  return {
    "tokenizer.json": json.dumps(file, ensure_ascii=False).encode(),
    "tokenizer_config.json": (json.dumps(settings, indent=2) + "\n").encode(),
  }


def _clip(own: ClipTokenizer) -> dict:
  """CLIP's tokenizer as a tokenizer.json: its merges, lower case and single spaces, bos and eos."""
  library = _library()
  model = library.Tokenizer.from_str(own.json())
  start, end = "<|startoftext|>", "<|endoftext|>"
  model.add_special_tokens([start, end])
  spaces = library.normalizers.Replace(library.Regex(r"\s+"), " ")
  model.normalizer = library.normalizers.Sequence([library.normalizers.NFC(), spaces, library.normalizers.Lowercase()])
  model.post_processor = library.processors.TemplateProcessing(
    single=f"{start} $A {end}", special_tokens=[(start, own.bos_id), (end, own.eos_id)])  # fmt: skip
  return json.loads(model.to_str())


def _pad(folder: pathlib.Path, number: int) -> int:
  """The pad that tokenizer_config.json names, which may be another than the usual name's (SigLIP pads with eos)."""
  settings = folder / "tokenizer_config.json"
  name = read_json(settings).get("pad_token") if settings.is_file() else None
  name = name.get("content") if isinstance(name, dict) else name
  if name is None:
    return number
  found = _library().Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id(name)
  return number if found is None else found


def _token(file: dict, number: int) -> str:
  """The token of id `number` of a tokenizer.json."""
  return _library().Tokenizer.from_str(json.dumps(file)).id_to_token(number)


def _library() -> ModuleType:
  return package("tokenizers", "huggingface")
