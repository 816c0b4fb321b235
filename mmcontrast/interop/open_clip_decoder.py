"""The decoder of open_clip's CoCa, its `MultimodalCfg` and `MultimodalTransformer`, in our terms and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmcontrast.errors import UserError, choose
from mmcontrast.interop.naming import LINEAR, STACKED, STACKED_LINEAR, Rule, linear, norm, under
from mmcontrast.interop.pretrained import OTHERWISE, Pretrained, complete

TOWER, HEAD = "decoder", "words"
# Every field of theirs with its default; what is not used there is used nowhere.
_FIELDS = {
  "context_length": 77,
  "vocab_size": 49408,
  "width": 512,
  "heads": 8,
  "layers": 12,
  "mlp_ratio": 4,
  "dim_head": 64,
  "n_queries": 256,
  "attn_pooler_heads": 8,
  "ls_init_value": None,
  "embed_cls": False,
  "output_tokens": False,
}


def _block(norms: tuple[str, str], mlp: str) -> list[Rule]:
  return [
    *norm("ln_1", norms[0]),
    *norm("ln_2", norms[1]),
    *linear("mlp.c_fc", f"{mlp}/fc1"),
    *linear("mlp.c_proj", f"{mlp}/fc2"),
  ]


_SELF = [
  *_block(("norm1", "norm2"), "mlp"),
  Rule("attn.in_proj_weight", "attn/qkv/kernel", LINEAR),
  Rule("attn.in_proj_bias", "attn/qkv/bias"),
  *linear("attn.out_proj", "attn/proj"),
]
_CROSS = [
  *_block(("norm_cross", "norm_cross_mlp"), "cross_mlp"),
  *norm("ln_1_kv", "norm_context"),
  Rule("attn.in_proj_weight", ("cross_attn/q/kernel", "cross_attn/kv/kernel"), STACKED_LINEAR),
  Rule("attn.in_proj_bias", ("cross_attn/q/bias", "cross_attn/kv/bias"), STACKED),
  *linear("attn.out_proj", "cross_attn/proj"),
]
RULES = under(
  [
    *under(_SELF, "resblocks.{i}.", f"towers/{TOWER}/blocks_{{i}}"),
    *under(_CROSS, "cross_attn.{i}.", f"towers/{TOWER}/blocks_{{i}}"),
    *norm("ln_final", f"towers/{TOWER}/norm"),
    Rule("text_projection", f"heads/{HEAD}/fc1/kernel"),
  ],
  "text_decoder.",
  "",
)


def describe(model: Mapping[str, Any], text: Mapping[str, Any], where: str) -> tuple[dict[str, Any], dict[str, Any]]:
  """(the tower, the head of words) of a config with `multimodal_cfg`; `text`: the text tower, in our terms.

  Raises UserError for a field, or a value, that our decoder does not compute.
  """
  for key in model["multimodal_cfg"]:
    choose(key, _FIELDS, where)
  fields = {**_FIELDS, **model["multimodal_cfg"]}
  if fields["ls_init_value"] is not None:
    raise UserError(f"{where}.ls_init_value: decoders have no layer scale here, only None is supported")
  widths = {fields["width"], text["width"], model["embed_dim"]}
  if len(widths) > 1 or text["pool"] != "end_token" or not text["causal"]:
    raise UserError(
      f"{where}: a decoder of width {fields['width']} reads texts of {text['width']} and images of "
      f"{model['embed_dim']} (embed_dim); open_clip's own runs where these are equal and text_cfg has embed_cls"
    )
  tower = {
    "name": "fusion_transformer",
    "reads": ("text", "image"),
    "width": fields["width"],
    "depth": fields["layers"],
    "heads": fields["heads"],
    "mlp_ratio": 4.0,  # theirs does not pass its own on
    "causal": True,
    "pool": "last",
    "order": "self_mlp_cross_mlp",
    "context_norm": True,
    "activation": "quick_gelu" if model["quick_gelu"] else "gelu",
    "norm_epsilon": 1e-5,
  }
  return complete(tower), {"tower": TOWER, "name": "words", "vocab_size": text["vocab_size"]}


def fields_of(pretrained: Pretrained, image: Mapping[str, Any], text: Mapping[str, Any], where: str) -> dict[str, Any]:
  """The inverse of `describe`. Raises UserError for a decoder of which open_clip's reads something else."""
  tower = complete(pretrained.towers[TOWER])
  if image.get("pool") != "queries" or text["pool"] != "end_token":
    raise UserError(
      f"{where}: open_clip's decoder reads the tokens that attention pools of an image, and of a text those before the "
      f"last: {pretrained.key('towers/image')}.pool='queries' and {pretrained.key('towers/text')}.pool='end_token';"
      f" {OTHERWISE}"
    )
  widths = {tower["width"], text["width"], image["pool_dim"] or image["width"]}
  if len(widths) > 1:
    raise UserError(
      f"{where}: open_clip's decoder is as wide as what it reads, and {pretrained.key('towers/decoder')} is "
      f"{tower['width']} wide, its texts {text['width']}, its images {image['pool_dim'] or image['width']}; {OTHERWISE}"
    )
  return {
    "context_length": text["max_length"],
    "vocab_size": text["vocab_size"],
    "width": tower["width"],
    "heads": tower["heads"],
    "layers": tower["depth"],
  }
