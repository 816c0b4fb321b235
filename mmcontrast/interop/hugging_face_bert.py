"""Hugging Face's BertModel, RobertaModel, XLMRobertaModel and ModernBertModel, and sentence encoders of them
(sentence_transformers.py).

RoBERTa is a BERT whose positions begin behind the id of its padding; the models of several languages are the same.

Where no modules.json says how tokens become one vector, it is the model's own: BERT's pooler, or its first token where
the file has no pooler, and ModernBERT's `classifier_pooling`.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from mmcontrast.errors import UserError, choose
from mmcontrast.interop import sentence_transformers, tokenizer_files
from mmcontrast.interop.hugging_face_config import activation, missing_fields, require, their_activation
from mmcontrast.interop.json_files import read_json
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
from mmcontrast.interop.pretrained import OTHERWISE, Pretrained, TextInput, complete, shapes
from mmcontrast.interop.weights import write_weights

_SELF = "encoder.layer.{i}.attention.self"
BERT = [
  Rule("embeddings.word_embeddings.weight", "token_embedding/embedding"),
  Rule("embeddings.position_embeddings.weight", "pos_embed"),
  Rule("embeddings.token_type_embeddings.weight", "type_embed"),
  *norm("embeddings.LayerNorm", "norm_pre"),
  Rule(
    tuple(f"{_SELF}.{name}.weight" for name in ("query", "key", "value")), "blocks_{i}/attn/qkv/kernel", STACKED_LINEAR
  ),
  Rule(tuple(f"{_SELF}.{name}.bias" for name in ("query", "key", "value")), "blocks_{i}/attn/qkv/bias", STACKED),
  *linear("encoder.layer.{i}.attention.output.dense", "blocks_{i}/attn/proj"),
  *norm("encoder.layer.{i}.attention.output.LayerNorm", "blocks_{i}/norm1"),
  *linear("encoder.layer.{i}.intermediate.dense", "blocks_{i}/mlp/fc1"),
  *linear("encoder.layer.{i}.output.dense", "blocks_{i}/mlp/fc2"),
  *norm("encoder.layer.{i}.output.LayerNorm", "blocks_{i}/norm2"),
  *linear("pooler.dense", "pooler"),
]
MODERN_BERT = [  # it has no biases, so that the second rule of each pair is never used
  Rule("embeddings.tok_embeddings.weight", "token_embedding/embedding"),
  *norm("embeddings.norm", "norm_pre"),
  *norm("layers.{i}.attn_norm", "blocks_{i}/norm1"),
  *linear("layers.{i}.attn.Wqkv", "blocks_{i}/attn/qkv"),
  *linear("layers.{i}.attn.Wo", "blocks_{i}/attn/proj"),
  *norm("layers.{i}.mlp_norm", "blocks_{i}/norm2"),
  *linear("layers.{i}.mlp.Wi", "blocks_{i}/mlp/fc1"),
  *linear("layers.{i}.mlp.Wo", "blocks_{i}/mlp/fc2"),
  *norm("final_norm", "norm"),
]


def read(
  folder: pathlib.Path, config: Mapping[str, Any], arrays: Arrays, allow_unused: Sequence[str] = ()
) -> Pretrained:
  """The text tower of a folder whose `config` and `arrays` have been read; its one head gives the tower's own vector.

  Raises UserError for a field of the config that our encoders do not compute, and as `naming.to_ours`.
  """
  family, where = FAMILIES[config["model_type"]], folder / "config.json"
  arrays = {as_saved_alone(name, family.prefix): array for name, array in arrays.items()}
  with missing_fields(where):
    options = family.tower(config, where)
  if options["name"] == "bert" and "pooler.dense.weight" in arrays:
    options["pool"] = "pooler"
  options["pool"] = sentence_transformers.read_pool(folder) or options["pool"]
  text = text_input(folder, options["max_length"])
  if (first := options.get("first_position")) and text.tokenizer and text.token_ids["pad"] != first - 1:
    raise UserError(
      f"{where}: pad_token_id is {first - 1}, behind which positions begin, and the tokenizer pads with "
      f"{text.token_ids['pad']}"
    )
  towers, heads = {"text": options}, {"text_joint": {"tower": "text", "name": "identity"}}
  ignored = [*family.ignored, *([] if options["pool"] == "pooler" else [r"pooler\..*"]), *allow_unused]
  wanted = shapes(towers, heads, text=text)
  found = to_ours(under(family.rules, "", "towers/text"), arrays, wanted, str(folder), ignored)
  return Pretrained(towers, heads, found, text=text, source=str(folder))


def plan(pretrained: Pretrained, where: str) -> tuple[dict[str, Any], str, dict[str, bytes]]:
  """The options of the text tower, its model type and the files of its tokenizer; no array is looked at.

  Raises UserError for a head, a tokenizer or an option that the format does not have.
  """
  options = complete(pretrained.towers["text"])
  where_name = f"{where}: {pretrained.key('towers/text')}.name"
  model_type = _MODEL_TYPES[choose(options["name"], _MODEL_TYPES, where_name)]
  if first := options.get("first_position", 0):
    model_type, pad = "roberta", pretrained.text.token_ids["pad"]
    if pad != first - 1:
      raise UserError(
        f"{where}: {pretrained.key('towers/text')}.first_position is {first}, and {pad + 1} is needed, behind the id "
        f"of padding; {OTHERWISE}"
      )
  for name, head in pretrained.heads.items():
    if head["name"] != "identity":
      raise UserError(
        f"{where}: {pretrained.key(f'heads/{name}')}: {head['name']!r} has no place in a folder of "
        f"{model_type}, whose vector is the tower's own; export a run whose text head is 'identity'"
      )
  check_named(under(FAMILIES[model_type].rules, "", "towers/text"), pretrained.arrays, where)
  return options, model_type, tokenizer_files.contents(pretrained.text, bos="cls_token", eos="sep_token")


def write(pretrained: Pretrained, out: pathlib.Path) -> None:
  """Writes the folder of a text tower, for transformers, and, unless the tower has a pooler, for sentence-transformers.

  Raises UserError as `plan`.
  """
  options, model_type, tokenizer = plan(pretrained, str(out))
  family = FAMILIES[model_type]
  arrays = to_theirs(under(family.rules, "", "towers/text"), pretrained.arrays, str(out))
  config = family.config(options) | {
    "model_type": model_type, "vocab_size": options["vocab_size"], "hidden_size": options["width"],
    "num_hidden_layers": options["depth"], "num_attention_heads": options["heads"],
    "intermediate_size": round(options["width"] * options["mlp_ratio"]),
    "max_position_embeddings": options.get("first_position", 0) + options["max_length"],
    "pad_token_id": pretrained.text.token_ids["pad"],
  }  # fmt: skip
  out.mkdir(parents=True, exist_ok=True)
  write_weights(out / "model.safetensors", arrays)
  for name, content in {"config.json": (json.dumps(config, indent=2) + "\n").encode(), **tokenizer}.items():
    (out / name).write_bytes(content)
  if options["pool"] != "pooler":
    sentence_transformers.write(out, options["pool"], options["width"], pretrained.text.length)


def _bert_tower(config: Mapping[str, Any], where: object) -> dict[str, Any]:
  require(config, where, position_embedding_type="absolute", is_decoder=False, add_cross_attention=False)
  return {
    "name": "bert", **_sizes(config), "token_types": config["type_vocab_size"], "pool": "cls", "first_position": 0,
    "activation": activation(config, "hidden_act", where),
    "dropout": 0.0, "norm_epsilon": config["layer_norm_eps"], "dtype": "float32",
  }  # fmt: skip


def roberta_tower(config: Mapping[str, Any], where: object) -> dict[str, Any]:
  """The options of our encoder of a RoBERTa. Raises UserError for a value that it does not compute."""
  tower, first = _bert_tower(config, where), config["pad_token_id"] + 1
  return tower | {"first_position": first, "max_length": tower["max_length"] - first}


def _roberta_config(options: Mapping[str, Any]) -> dict[str, Any]:
  return _bert_config(options) | {"architectures": ["RobertaModel"]}


def _bert_config(options: Mapping[str, Any]) -> dict[str, Any]:
  return {
    "architectures": ["BertModel"],
    "hidden_act": their_activation(options["activation"]),
    "layer_norm_eps": options["norm_epsilon"],
    "type_vocab_size": options["token_types"],
    "position_embedding_type": "absolute",
  }


def _modern_bert_tower(config: Mapping[str, Any], where: pathlib.Path) -> dict[str, Any]:
  require(config, where, attention_bias=False, mlp_bias=False, norm_bias=False)
  return {
    "name": "modern_bert", **_sizes(config),
    "pool": choose(config["classifier_pooling"], ("cls", "mean"), f"{where}: classifier_pooling"),
    "activation": activation(config, "hidden_activation", where),
    "global_every": _global_every(config, where), "window": config["local_attention"] // 2,
    "global_theta": _theta(config, where, "full_attention", "global_rope_theta"),
    "local_theta": _theta(config, where, "sliding_attention", "local_rope_theta"),
    "dropout": 0.0, "norm_epsilon": config["norm_eps"], "dtype": "float32",
  }  # fmt: skip


def _modern_bert_config(options: Mapping[str, Any]) -> dict[str, Any]:
  return {
    "architectures": ["ModernBertModel"],
    "hidden_activation": their_activation(options["activation"]),
    "norm_eps": options["norm_epsilon"],
    "norm_bias": False,
    "attention_bias": False,
    "mlp_bias": False,
    "global_attn_every_n_layers": options["global_every"],
    "local_attention": 2 * options["window"],
    "global_rope_theta": options["global_theta"],
    "local_rope_theta": options["local_theta"],
    "classifier_pooling": options["pool"],
  }


class Family(NamedTuple):
  """A model type of theirs.

  Attributes:
    rules: its names and ours.
    prefix: before the names in files of models with a head.
    ignored: regexes of arrays that no embedding needs: those of the heads, and numbers that are no parameters.
    tower: (config, its file) -> options of our encoder.
    config: options of our encoder -> what of their config is this type's own.
  """

  rules: Sequence[Rule]
  prefix: str
  ignored: tuple[str, ...]
  tower: Callable[[Mapping[str, Any], pathlib.Path], dict[str, Any]]
  config: Callable[[Mapping[str, Any]], dict[str, Any]]


FAMILIES = {
  "bert": Family(BERT, "bert.", (r"embeddings\.position_ids", r"cls\..*"), _bert_tower, _bert_config),
  "modernbert": Family(MODERN_BERT, "model.", (r"head\..*", r"decoder\..*"), _modern_bert_tower, _modern_bert_config),
}
FAMILIES["roberta"] = Family(
  BERT, "roberta.", (r"embeddings\.position_ids", r"lm_head\..*", r"classifier\..*"), roberta_tower, _roberta_config
)
FAMILIES["xlm-roberta"] = FAMILIES["roberta"]

_MODEL_TYPES = {"bert": "bert", "bert_large": "bert", "modern_bert": "modernbert", "modern_bert_large": "modernbert"}


def as_saved_alone(name: str, prefix: str) -> str:
  """A name of a model with a head, as the model without it has it, with today's names of norms."""
  name = name.removeprefix(prefix)
  return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def _sizes(config: Mapping[str, Any]) -> dict[str, Any]:
  width = config["hidden_size"]
  return {
    "vocab_size": config["vocab_size"],
    "width": width,
    "depth": config["num_hidden_layers"],
    "heads": config["num_attention_heads"],
    "max_length": config["max_position_embeddings"],
    "mlp_ratio": config["intermediate_size"] / width,
  }


def _global_every(config: Mapping[str, Any], where: pathlib.Path) -> int:
  """Every how many layers attend to the whole text: the number, or what the list of newer files amounts to."""
  layers = config.get("layer_types")
  if layers is None:
    return config["global_attn_every_n_layers"]
  for number in (config.get("global_attn_every_n_layers", 3), *range(1, len(layers) + 1)):
    if list(layers) == ["sliding_attention" if i % number else "full_attention" for i in range(len(layers))]:
      return number
  raise UserError(
    f"{where}: layer_types is not full_attention every so many layers from the first on, as encoder "
    "'modern_bert' has it"
  )


def _theta(config: Mapping[str, Any], where: pathlib.Path, kind: str, older: str) -> float:
  """The base of the rotary positions of a kind of layer, in newer files and in older ones."""
  if "rope_parameters" not in config:
    return float(config[older])
  rope = config["rope_parameters"][kind]
  require(rope, f"{where}: rope_parameters.{kind}", rope_type="default")
  return float(rope["rope_theta"])


def text_input(folder: pathlib.Path, most: int) -> TextInput:
  settings, limits = sentence_transformers.read_settings(folder), folder / "tokenizer_config.json"
  lower = bool(settings.get("do_lower_case"))  # the tokenizer's own normaliser does it otherwise
  tokenizer, ids = tokenizer_files.find(folder, lower)
  longest = read_json(limits).get("model_max_length") if limits.is_file() else None
  length = min(int(length) for length in (most, longest, settings.get("max_seq_length")) if length)
  return TextInput(length, tokenizer, ids, lower)
