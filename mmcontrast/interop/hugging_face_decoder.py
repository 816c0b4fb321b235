"""Text models of transformers that attend to an image: BertLMHeadModel with cross-attention, and BLIP's text models.

In our terms a text tower `bert` without blocks, which embeds the words, and a `fusion_transformer` that reads it and an
image tower: "decoder" where a word sees those before it only (BertLMHeadModel, BlipTextLMHeadModel), with a head
"words", and "fusion" where it sees all of them (BlipTextModel, as BLIP matches and retrieves). The image tower is in
no such folder: a run of its own names one, and takes these parts by config.init.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from mmcontrast.errors import UserError
from mmcontrast.interop import tokenizer_files
from mmcontrast.interop.hugging_face_bert import BERT, as_saved_alone, text_input
from mmcontrast.interop.hugging_face_config import activation, missing_fields, require, their_activation
from mmcontrast.interop.naming import (
  STACKED,
  STACKED_LINEAR,
  Arrays,
  Rule,
  check_named,
  linear,
  norm,
  to_ours,
  to_theirs,
  under,
)
from mmcontrast.interop.pretrained import ImageInput, Pretrained, check_expressible, complete, shapes
from mmcontrast.interop.weights import write_weights

_CROSS, _PARTS = "encoder.layer.{i}.crossattention", ("key", "value")
_CROSS_RULES = [
  *linear(f"{_CROSS}.self.query", "blocks_{i}/cross_attn/q"),
  Rule(tuple(f"{_CROSS}.self.{part}.weight" for part in _PARTS), "blocks_{i}/cross_attn/kv/kernel", STACKED_LINEAR),
  Rule(tuple(f"{_CROSS}.self.{part}.bias" for part in _PARTS), "blocks_{i}/cross_attn/kv/bias", STACKED),
  *linear(f"{_CROSS}.output.dense", "blocks_{i}/cross_attn/proj"),
  *norm(f"{_CROSS}.output.LayerNorm", "blocks_{i}/norm_cross"),
]
_WORDS = [
  *linear("cls.predictions.transform.dense", "transform"),
  *norm("cls.predictions.transform.LayerNorm", "norm"),
  Rule("cls.predictions.bias", "bias"),
]
_BLOCKS = [rule for rule in BERT if rule.paths[0].startswith("params/blocks_")]
_EMBEDDINGS = [rule for rule in BERT if rule not in _BLOCKS and "pooler" not in rule.paths[0]]
_IGNORED = (r"embeddings\.position_ids", r"cls\.predictions\.decoder\..*", r"pooler\..*")
_READS = ("text", "image")
_ARCHITECTURES = {  # (model type, whether words see those before them only, with a head) -> theirs
  ("bert", True, True): "BertLMHeadModel",
  ("bert", True, False): "BertModel",
  ("blip_text_model", True, True): "BlipTextLMHeadModel",
  ("blip_text_model", False, False): "BlipTextModel",
}


def _rules(tower: str, prefix: str) -> list[Rule]:
  return [
    *under(_EMBEDDINGS, prefix, "towers/text"),
    *under([*_BLOCKS, *_CROSS_RULES], prefix, f"towers/{tower}"),
    *under(_WORDS, "", "heads/words"),
  ]


def read(
  folder: pathlib.Path, config: Mapping[str, Any], arrays: Arrays, allow_unused: Sequence[str] = ()
) -> Pretrained:
  """The text tower, the decoder or fusion, and the head of words of a folder, where it has one.

  Raises UserError for a field of the config that our encoders do not compute, and as `naming.to_ours`.
  """
  where = folder / "config.json"
  arrays = {as_saved_alone(name, "bert."): array for name, array in arrays.items()}
  with missing_fields(where):
    towers, image = _towers(config, where, any(name.startswith("cls.") for name in arrays))
  name, heads = next(tower for tower in towers if tower != "text"), {}
  if any(one.startswith("cls.predictions.") for one in arrays):
    heads["words"] = {
      "tower": name, "name": "words", "tied": True, "bias": True, "transform": True,
      "norm_epsilon": config["layer_norm_eps"], "dtype": "float32",
    }  # fmt: skip
  text = text_input(folder, towers["text"]["max_length"])
  stub = {"name": "vit", "width": image, "depth": 0, "heads": 1, "patch": 1}
  wanted = shapes({**towers, "image": stub}, heads, ImageInput(1, (0.5,) * 3, (0.5,) * 3), text)
  wanted = {path: shape for path, shape in wanted.items() if "/towers/image/" not in path}
  found = to_ours(_rules(name, ""), arrays, wanted, str(folder), [*_IGNORED, *allow_unused])
  return Pretrained(towers, heads, found, text=text, source=str(folder))


def plan(pretrained: Pretrained, where: str) -> tuple[str, str, dict[str, bytes]]:
  """(our name of the tower with blocks, their architecture, the files of the tokenizer); no array is looked at.

  Raises UserError for a tower, a head or a tokenizer that the format does not have.
  """
  name = next(tower for tower in pretrained.towers if tower != "text")
  text, tower = (complete(pretrained.towers[one]) for one in ("text", name))
  check_expressible(pretrained, "towers/text", text | {"name": "bert", "depth": 0, "width": tower["width"]}, where)
  same = {"name": "fusion_transformer", "norm": "post", "order": "self_cross_mlp", "context_norm": False}
  same |= {"norm_epsilon": text["norm_epsilon"]}
  check_expressible(pretrained, f"towers/{name}", tower | same, where)
  model_type = "bert" if text["token_types"] else "blip_text_model"
  kind = model_type, tower["causal"], bool(pretrained.heads)
  if kind not in _ARCHITECTURES:
    raise UserError(
      f"{where}: {model_type} has no model of a {'causal' if tower['causal'] else 'bidirectional'} tower "
      f"{'with' if kind[2] else 'without'} a head of words; export to stablehlo, which takes any towers"
    )
  for head in pretrained.heads:
    words = {"name": "words", "tied": True, "bias": True, "transform": True, "norm_epsilon": tower["norm_epsilon"]}
    check_expressible(pretrained, f"heads/{head}", complete(pretrained.heads[head]) | words, where)
  check_named(_rules(name, ""), pretrained.arrays, where)
  return name, _ARCHITECTURES[kind], tokenizer_files.contents(pretrained.text, bos="cls_token", eos="sep_token")


def write(pretrained: Pretrained, out: pathlib.Path) -> None:
  """Writes the folder, for `from_pretrained` of the class that its config names. Raises UserError as `plan`."""
  name, architecture, tokenizer = plan(pretrained, str(out))
  text, tower = (complete(pretrained.towers[one]) for one in ("text", name))
  prefix = "bert." if pretrained.heads else ""
  arrays = to_theirs(_rules(name, prefix), pretrained.arrays, str(out))
  context = pretrained.arrays[f"params/towers/{name}/blocks_0/cross_attn/kv/kernel"].shape[0]
  config = {
    "architectures": [architecture], "vocab_size": text["vocab_size"], "hidden_size": tower["width"],
    "num_hidden_layers": tower["depth"], "num_attention_heads": tower["heads"],
    "intermediate_size": round(tower["width"] * tower["mlp_ratio"]), "max_position_embeddings": text["max_length"],
    "hidden_act": their_activation(tower["activation"]), "layer_norm_eps": tower["norm_epsilon"],
    "is_decoder": True, "tie_word_embeddings": True, "pad_token_id": pretrained.text.token_ids["pad"],
    "bos_token_id": pretrained.text.token_ids["bos"],
  }  # fmt: skip
  if text["token_types"]:
    if context != tower["width"]:
      raise UserError(
        f"{out}: BertLMHeadModel attends to vectors of its own width, {tower['width']}, and "
        f"{pretrained.key(f'towers/{name}')} to those of {context}; make the image tower as wide"
      )
    config |= {"model_type": "bert", "add_cross_attention": True, "type_vocab_size": text["token_types"]}
    config |= {"eos_token_id": pretrained.text.token_ids["eos"]}
  else:
    config |= {"model_type": "blip_text_model", "encoder_hidden_size": context}
    config |= {"sep_token_id": pretrained.text.token_ids["eos"], "eos_token_id": pretrained.text.token_ids["eos"]}
  out.mkdir(parents=True, exist_ok=True)
  write_weights(out / "model.safetensors", arrays)
  for file, content in {"config.json": (json.dumps(config, indent=2) + "\n").encode(), **tokenizer}.items():
    (out / file).write_bytes(content)


def _towers(config: Mapping[str, Any], where: pathlib.Path, has_words: bool) -> tuple[dict[str, Any], int]:
  """(the text tower and that with blocks, complete; how long the vectors are that this attends to)."""
  is_bert = config["model_type"] == "bert"
  require(config, where, position_embedding_type="absolute", tie_word_embeddings=True)
  if is_bert:
    require(config, where, is_decoder=True)
  width, act = config["hidden_size"], activation(config, "hidden_act", where)
  same = {
    "width": width, "heads": config["num_attention_heads"], "mlp_ratio": config["intermediate_size"] / width,
    "activation": act, "dropout": 0.0, "norm_epsilon": config["layer_norm_eps"], "dtype": "float32",
  }  # fmt: skip
  text = {
    "name": "bert", "vocab_size": config["vocab_size"], "depth": 0, "pool": "cls",
    "max_length": config["max_position_embeddings"], "token_types": config["type_vocab_size"] if is_bert else 0, **same,
  }  # fmt: skip
  causal = is_bert or has_words
  tower = {
    "name": "fusion_transformer", "reads": _READS, "depth": config["num_hidden_layers"], "causal": causal,
    "norm": "post", "order": "self_cross_mlp", "pool": "last" if causal else "first", **same,
  }  # fmt: skip
  context = width if is_bert else config["encoder_hidden_size"]
  return {"text": complete(text), ("decoder" if causal else "fusion"): complete(tower)}, context
