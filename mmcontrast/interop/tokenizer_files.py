"""The files of a tokenizer beside weights: a tokenizer.json of Hugging Face's, or a model of sentencepiece."""

from __future__ import annotations

import json
import pathlib

from mmcontrast.data.tokenizers import make_tokenizer
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
      return f"{kind}:{folder / name}", {key: getattr(tokenizer, f"{key}_id") for key in ("pad", "bos", "eos")}
  return "", {"pad": -1, "bos": -1, "eos": -1}


def contents(text: TextInput) -> dict[str, bytes]:
  """File name -> content of what transformers' AutoTokenizer reads in a folder; CLIP's own tokenizer needs none.

  Raises UserError for a tokenizer that it cannot read, or whose texts do not end as ours.
  """
  kind, _, path = text.tokenizer.partition(":")
  if kind == "clip":
    return {}
  if kind != "huggingface":
    raise UserError(f"config.data.tokenizer: {text.tokenizer!r} is none that transformers reads; export a run whose "
                    "tokenizer is 'clip' or 'huggingface:PATH'")
  file = json.loads(pathlib.Path(path).read_text())
  names = {token["id"]: token["content"] for token in file["added_tokens"]}
  special = {f"{name}_token": names[number] for name, number in text.token_ids.items() if number in names}
  settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": text.length, **special}
  return {"tokenizer.json": pathlib.Path(path).read_bytes(),
          "tokenizer_config.json": (json.dumps(settings, indent=2) + "\n").encode()}
