"""The files of a tokenizer beside weights: a tokenizer.json of Hugging Face's, or a model of sentencepiece."""

from __future__ import annotations

import json
import pathlib
from types import ModuleType

from mmcontrast.data.tokenizers import make_tokenizer
from mmcontrast.data.tokenizers.tokenizer import package
from mmcontrast.errors import UserError
from mmcontrast.interop.pretrained import TextInput

_NAMES = {"tokenizer.json": "huggingface", "spiece.model": "sentencepiece", "tokenizer.model": "sentencepiece",
          "sentencepiece.model": "sentencepiece"}


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


def with_padding(text: TextInput) -> bytes:
  """The tokenizer.json of `text` that says its pad too, so that one file is enough."""
  file = json.loads(pathlib.Path(text.tokenizer.partition(":")[2]).read_text())
  number = text.token_ids["pad"]
  file["padding"] = {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_id": number,
                     "pad_type_id": 0, "pad_token": _token(file, number)}
  return json.dumps(file, ensure_ascii=False).encode()


def contents(text: TextInput, bos: str = "bos_token", eos: str = "eos_token") -> dict[str, bytes]:
  """File name -> content of what transformers' AutoTokenizer reads in a folder; CLIP's own tokenizer needs none.

  `bos` and `eos`: what the model calls them there (BERT: "cls_token", "sep_token").

  Raises UserError for a tokenizer that it cannot read, or whose texts do not end as ours.
  """
  kind, _, path = text.tokenizer.partition(":")
  if kind == "clip":
    return {}
  if kind != "huggingface":
    raise UserError(f"config.data.tokenizer: {text.tokenizer!r} is none that transformers reads; export a run whose "
                    "tokenizer is 'clip' or 'huggingface:PATH'")
  file = json.loads(pathlib.Path(path).read_text())
  special = {name: _token(file, text.token_ids[own]) for name, own in (("pad_token", "pad"), (bos, "bos"), (eos, "eos"))
             if text.token_ids[own] >= 0}
  own = make_tokenizer(text.tokenizer, lower=False)
  whole = _library().Tokenizer.from_str(json.dumps(file | {"padding": None})).encode("").ids
  if whole != [number for number in (own.bos_id, own.eos_id) if number >= 0]:
    raise UserError(f"{path}: transformers would give texts the ids {whole} around them, and the model had bos "
                    f"{own.bos_id} and eos {own.eos_id}; give the file a post_processor that adds them")
  settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": text.length, **special}
  return {"tokenizer.json": pathlib.Path(path).read_bytes(),
          "tokenizer_config.json": (json.dumps(settings, indent=2) + "\n").encode()}


def _pad(folder: pathlib.Path, number: int) -> int:
  """The pad that tokenizer_config.json names, which may be another than the usual name's (SigLIP pads with eos)."""
  settings = folder / "tokenizer_config.json"
  name = json.loads(settings.read_text()).get("pad_token") if settings.is_file() else None
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
