"""big_vision's .npz files (google-research/big_vision): image towers, and the two towers of SigLIP and SigLIP 2.

    big_vision:vit@FILE       an image tower, of big_vision or of the vision_transformer repository before it
    big_vision:siglip@FILE    two towers (arXiv:2303.15343); siglip2@FILE: of SigLIP 2 (arXiv:2502.14786)

Such a file has no config: what the name does not say (the activation, the epsilon of the norms, which token of a text
is pooled, its ids of pad and eos) is the same in all that were published, and sizes are those of the arrays.
"""

from __future__ import annotations

import math
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmcontrast.encoders.layers import unstack_layers
from mmcontrast.errors import UserError, choose
from mmcontrast.interop import tokenizer_files
from mmcontrast.interop.naming import SAME, STACKED, Arrays, Layout, Rule, to_ours, under, unstacked
from mmcontrast.interop.pretrained import ImageInput, Pretrained, TextInput, complete, shapes, take_logits
from mmcontrast.interop.weights import PLAIN, Reading, read_weights

HALF = (0.5, 0.5, 0.5)
KINDS: dict[str, dict[str, int]] = {
  "vit": {},
  "siglip": {"pad": 1, "bos": -1, "eos": 1},
  "siglip2": {"pad": 0, "bos": -1, "eos": 1},
}  # ids of texts
_FIRST = unstacked(lambda a: a[0], lambda a: a[None])  # [1, L, D] <-> [L, D]
_CLASSIFIER = (r"head/.*", r"pre_logits/.*")
# What other names the same arrays have had: of the first release, and where the head was not a module.
_OLD = (
  (r"encoderblock_(\d+)/LayerNorm_2", r"encoderblock_\1/LayerNorm_1"),
  (r"/MlpBlock_3/", r"/MlpBlock_0/"),
  (r"/MultiHeadDotProductAttention_1/", r"/MultiHeadDotProductAttention_0/"),
  (r"^Transformer/(posembed_input/)?pos_embedding$", "pos_embedding"),
)
_ATTENTION = "MultiHeadDotProductAttention_0"


def read(path: str, how: Reading = PLAIN) -> Pretrained:
  """A file of big_vision; see `formats.Format.read`."""
  kind, at, name = path.partition("@")
  if not at:
    raise UserError(
      f"{path}: a file of big_vision has no config; say what it is: {', '.join(KINDS)}, such as siglip@FILE.npz"
    )
  choose(kind, KINDS, f"{path}: the kind before '@'")
  arrays = _arrays(pathlib.Path(name))
  two = any(name.startswith("img/") for name in arrays)
  if two != (kind != "vit"):
    raise UserError(f"{name}: holds {'two towers; name it siglip@ or siglip2@' if two else 'one tower; name it vit@'}")
  return _two_towers(kind, arrays, path, how.allow_unused) if two else _image_tower(arrays, path, how.allow_unused)


def _image_tower(arrays: Arrays, path: str, allow_unused: Sequence[str]) -> Pretrained:
  arrays = {_renamed(name): array for name, array in arrays.items()}
  tower, size = _image(arrays, path)
  image = ImageInput(size, HALF, HALF, "shortest", "bilinear", 0.875)
  wanted = shapes({"image": tower}, {}, image)
  found = to_ours(under(_VIT, "", "towers/image"), arrays, wanted, path, (*_CLASSIFIER, *allow_unused))
  return Pretrained({"image": tower}, {}, found, image, source=path)


def _two_towers(kind: str, arrays: Arrays, path: str, allow_unused: Sequence[str]) -> Pretrained:
  arrays, scale, bias = take_logits(arrays, ("t", "b"), path)
  if scale is None:
    raise UserError(f"{path}: no array 't', the temperature; was the file written to the end?")
  parts = {
    side: {name.removeprefix(f"{side}/"): array for name, array in arrays.items() if name.startswith(f"{side}/")}
    for side in ("img", "txt")
  }
  image_tower, size = _image(parts["img"], path)
  text_tower = _text(parts["txt"], path)
  heads = {}
  for side, name in (("img", "image"), ("txt", "text")):
    kernel = parts[side].get("head/kernel")
    head = {"name": "identity"} if kernel is None else {"name": "linear", "dim": kernel.shape[1], "bias": True}
    heads[f"{name}_joint"] = {"tower": name, **head}
  towers, image = {"image": image_tower, "text": text_tower}, ImageInput(size, HALF, HALF, "squash", "bilinear")
  text = _text_input(kind, pathlib.Path(path.partition("@")[2]), text_tower["max_length"])
  rules = [
    *under(_VIT, "img/", "towers/image"), *under(_TEXT, "txt/", "towers/text"),
    *(Rule(f"{side}/head/{leaf}", f"heads/{name}_joint/fc1/{leaf}")
      for side, name in (("img", "image"), ("txt", "text")) for leaf in ("kernel", "bias")),
  ]  # fmt: skip
  found = to_ours(rules, arrays, shapes(towers, heads, image, text), path, allow_unused)
  return Pretrained(towers, heads, found, image, text, scale, bias, path)


def _arrays(file: pathlib.Path) -> Arrays:
  """The parameters by name: blocks one by one, and the axes of heads in attention joined."""
  arrays = read_weights(file)
  for prefix in ("params/", "opt/target/"):  # of a training's checkpoint
    if any(name.startswith(prefix) for name in arrays):
      arrays = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
  # "encoderblock/..." with a leading axis of layers, as our own "blocks/..."
  arrays = {name.replace("/encoderblock", "/blocks"): array for name, array in arrays.items()}
  arrays = {name.replace("/blocks_", "/encoderblock_"): array for name, array in unstack_layers(arrays).items()}
  return arrays


def _renamed(name: str) -> str:
  for old, new in _OLD:
    name = re.sub(old, new, name)
  return name


def _image(arrays: Arrays, path: str) -> tuple[dict[str, Any], int]:
  """The options of an image tower, and the side of its images."""
  kernel, position = (_of(arrays, name, path) for name in ("embedding/kernel", "pos_embedding"))
  patch, count = kernel.shape[0], position.shape[1]
  grid, own = math.isqrt(count), "cls" in arrays
  if grid**2 not in (count, count - own) or kernel.shape[1] != patch or kernel.shape[2] != 3:
    raise UserError(f"{path}: {count} positions of patches {list(kernel.shape)} are not a square of pixels")
  pool = "cls" if own else "map" if "MAPHead_0/probe" in arrays else "gap"
  return complete({
    "name": "vit", "patch": patch, "pool": pool, "cls_position": not own or grid**2 != count,
    "position_antialias": True, **_transformer(arrays, "Transformer", path)}), grid * patch  # fmt: skip


def _text(arrays: Arrays, path: str) -> dict[str, Any]:
  """The options of a text tower; all of its positions are attended to, and the last is pooled."""
  vocabulary, position = (_of(arrays, name, path).shape for name in ("Embed_0/embedding", "pos_embedding"))
  return complete({
    "name": "text_transformer", "vocab_size": vocabulary[0], "max_length": position[1], "pool": "last",
    "attend_padding": True, **_transformer(arrays, "Encoder_0", path)})  # fmt: skip


def _transformer(arrays: Arrays, encoder: str, path: str) -> dict[str, Any]:
  query = _of(arrays, f"{encoder}/encoderblock_0/{_ATTENTION}/query/kernel", path)
  hidden = _of(arrays, f"{encoder}/encoderblock_0/MlpBlock_0/Dense_0/kernel", path).shape[1]
  layers = {name.split("/")[1] for name in arrays if name.startswith(f"{encoder}/encoderblock_")}
  return {
    "width": query.shape[0],
    "depth": len(layers),
    "heads": query.shape[1],
    "mlp_ratio": hidden / query.shape[0],
    "activation": "gelu_tanh",
    "norm_epsilon": 1e-6,
  }


def _text_input(kind: str, file: pathlib.Path, length: int) -> TextInput:
  tokenizer, found = tokenizer_files.find(file.parent, lower=True)
  if tokenizer and found != KINDS[kind]:
    raise UserError(
      f"{tokenizer.partition(':')[2]}: has the ids {found}, and {kind} has {KINDS[kind]}; give the "
      "tokenizer.json and tokenizer_config.json that transformers has for it"
    )
  return TextInput(length, tokenizer, KINDS[kind], True)


def _of(arrays: Arrays, name: str, path: str) -> np.ndarray:
  if name not in arrays:
    raise UserError(f"{path}: no array {name!r}; it is not a transformer of big_vision, or was not written to the end")
  return arrays[name]


def _joined(axis: int, then: Layout = SAME) -> Layout:
  """`then` of arrays whose axes of heads and of a head's numbers, the first of them `axis`, are joined.

  Reading only: no file is written.
  """

  def join(array: np.ndarray) -> np.ndarray:
    at = axis % array.ndim
    return array.reshape(*array.shape[:at], -1, *array.shape[at + 2 :])

  return Layout(lambda theirs, wanted: then.to_ours([join(array) for array in theirs], wanted), then.to_theirs)


def _dense(theirs: str, ours: str) -> list[Rule]:
  return [Rule(f"{theirs}/{leaf}", f"{ours}/{leaf}") for leaf in ("kernel", "bias")]


def _norm(theirs: str, ours: str) -> list[Rule]:
  return [Rule(f"{theirs}/{leaf}", f"{ours}/{leaf}") for leaf in ("scale", "bias")]


def _attention(theirs: str, ours: str, parts: Sequence[tuple[str, str]]) -> list[Rule]:
  """`parts`: which of query, key and value are which of our matrices."""
  heads = _joined(-2, STACKED)
  rules = [
    Rule(tuple(f"{theirs}/{name}/{leaf}" for name in names.split()), f"{ours}/{own}/{leaf}", heads)
    for names, own in parts
    for leaf in ("kernel", "bias")
  ]
  return [
    *rules,
    Rule(f"{theirs}/out/kernel", f"{ours}/proj/kernel", _joined(0)),
    Rule(f"{theirs}/out/bias", f"{ours}/proj/bias"),
  ]


def _encoder(name: str) -> list[Rule]:
  block = f"{name}/encoderblock_{{i}}"
  return [
    *_norm(f"{block}/LayerNorm_0", "blocks_{i}/norm1"), *_norm(f"{block}/LayerNorm_1", "blocks_{i}/norm2"),
    *_attention(f"{block}/{_ATTENTION}", "blocks_{i}/attn", [("query key value", "qkv")]),
    *_dense(f"{block}/MlpBlock_0/Dense_0", "blocks_{i}/mlp/fc1"),
    *_dense(f"{block}/MlpBlock_0/Dense_1", "blocks_{i}/mlp/fc2"), *_norm(f"{name}/encoder_norm", "norm"),
  ]  # fmt: skip


_VIT = [
  *_dense("embedding", "patch_embed"), Rule("pos_embedding", "pos_embed"), Rule("cls", "cls_token"),
  *_encoder("Transformer"),
  Rule("MAPHead_0/probe", "attn_pool/latent"), *_norm("MAPHead_0/LayerNorm_0", "attn_pool/norm"),
  *_attention(f"MAPHead_0/{_ATTENTION}", "attn_pool", [("query", "q"), ("key value", "kv")]),
  *_dense("MAPHead_0/MlpBlock_0/Dense_0", "attn_pool/mlp/fc1"),
  *_dense("MAPHead_0/MlpBlock_0/Dense_1", "attn_pool/mlp/fc2"),
]  # fmt: skip
_TEXT = [
  Rule("Embed_0/embedding", "token_embedding/embedding"),
  Rule("pos_embedding", "pos_embed", _FIRST),
  *_encoder("Encoder_0"),
]
