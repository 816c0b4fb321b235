"""What open_clip's configs say, in our terms and back: fields of `CLIPVisionCfg` and `CLIPTextCfg` of open_clip 3.3.

A field that is not known, or has a value that our encoders do not compute, is an error. What is written is
read again by `describe`, so that `open_clip.write` can compare it with what was to be said.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from mmcontrast.errors import UserError, choose
from mmcontrast.interop import open_clip_decoder, open_clip_resnet, timm, tokenizer_files
from mmcontrast.interop.naming import (
  CONV,
  LEADING,
  LEADING2,
  LINEAR,
  STACKED,
  STACKED_LINEAR,
  Rule,
  linear,
  norm,
  under,
)
from mmcontrast.interop.pretrained import OTHERWISE, ImageInput, Pretrained, TextInput, complete
from mmcontrast.interop.square import square

# Every field of theirs with its default.
_MODEL = {
  "embed_dim": None,
  "vision_cfg": {},
  "text_cfg": {},
  "multimodal_cfg": None,
  "quick_gelu": False,
  "custom_text": False,
  "init_logit_scale": None,
  "init_logit_bias": None,
  "nonscalar_logit_scale": False,
}
_PREPROCESS = {
  "mean": (0.48145466, 0.4578275, 0.40821073),
  "std": (0.26862954, 0.26130258, 0.27577711),
  "interpolation": "bicubic",
  "resize_mode": "shortest",
}
_BLOCK: dict[str, Any] = {
  "ls_init_value": None,
  "act_kwargs": None,
  "norm_kwargs": None,
  "block_type": None,
  "qk_norm": False,
  "scaled_cosine_attn": False,
  "scale_heads": False,
  "scale_attn_inner": False,
  "scale_attn": False,
  "scale_fc": False,
  "output_tokens": False,
  "final_ln_after_pool": False,
  "mlp_ratio": 4.0,
}
_VISION = {
  "layers": 12,
  "width": 768,
  "head_width": 64,
  "patch_size": 16,
  "image_size": 224,
  "patch_dropout": 0.0,
  "attentional_pool": False,
  "attn_pooler_queries": 256,
  "attn_pooler_heads": 8,
  "no_ln_pre": False,
  "pos_embed_type": "learnable",
  "pool_type": "tok",
  **_BLOCK,
}
_TIMM = {
  "timm_model_name": None,
  "timm_model_pretrained": False,
  "timm_pool": "avg",
  "timm_proj": "linear",
  "timm_proj_bias": False,
  "timm_drop": 0.0,
  "timm_drop_path": None,
  "image_size": 224,
  "patch_dropout": 0.0,
}
_TEXT = {
  "context_length": 77,
  "vocab_size": 49408,
  "hf_tokenizer_name": None,
  "tokenizer_mode": None,
  "tokenizer_kwargs": None,
  "width": 512,
  "heads": 8,
  "layers": 12,
  "embed_cls": False,
  "pad_id": 0,
  "eos_id": 2,
  "no_causal_mask": False,
  "pool_type": "argmax",
  "proj_bias": False,
  "proj_type": "linear",
  **_BLOCK,
}
_ONLY = {  # the values that we compute
  "block_type": (None, "default"),
  "qk_norm": (False,),
  "scaled_cosine_attn": (False,),
  "scale_heads": (False,),
  "scale_attn_inner": (False,),
  "scale_attn": (False,),
  "scale_fc": (False,),
  "pos_embed_type": ("learnable",),
  "attentional_pool": (False, True),
  "tokenizer_mode": (None,),
  "timm_proj": ("none", "linear"),
}
_CLEAN = {"whitespace": False, "lower": True, "canonicalize": "canonicalize"}  # theirs -> config.data.lower

_BLOCKS = under(
  [
    *norm("ln_1", "norm1"),
    *norm("ln_2", "norm2"),
    *linear("mlp.c_fc", "mlp/fc1"),
    *linear("mlp.c_proj", "mlp/fc2"),
    Rule("attn.in_proj_weight", "attn/qkv/kernel", LINEAR),
    Rule("attn.in_proj_bias", "attn/qkv/bias"),
    *linear("attn.out_proj", "attn/proj"),
    Rule("ls_1.gamma", "ls1/gamma"),
    Rule("ls_2.gamma", "ls2/gamma"),
  ],
  "transformer.resblocks.{i}.",
  "blocks_{i}",
)
_VIT = [
  *_BLOCKS,
  Rule("conv1.weight", "patch_embed/kernel", CONV),
  Rule("class_embedding", "cls_token", LEADING2),
  Rule("positional_embedding", "pos_embed", LEADING),
  *norm("ln_pre", "norm_pre"),
  *norm("ln_post", "norm"),
  Rule("attn_pool.query", "pooler/query"),
  *norm("attn_pool.ln_q", "pooler/norm_q"),
  *norm("attn_pool.ln_k", "pooler/norm_k"),
  *linear("attn_pool.attn.out_proj", "pooler/proj"),
  Rule("attn_pool.attn.in_proj_bias", tuple(f"pooler/{x}/bias" for x in "qkv"), STACKED),
]
# torch's MultiheadAttention has one matrix where the tokens are as wide as the queries.
_POOLER = [Rule("attn_pool.attn.in_proj_weight", tuple(f"pooler/{x}/kernel" for x in "qkv"), STACKED_LINEAR)]
_POOLER_OF_OTHER_WIDTH = [Rule(f"attn_pool.attn.{x}_proj_weight", f"pooler/{x}/kernel", LINEAR) for x in "qkv"]
_TEXT_TOWER = [
  *_BLOCKS,
  Rule("token_embedding.weight", "token_embedding/embedding"),
  Rule("positional_embedding", "pos_embed"),
  Rule("cls_emb", "cls_token"),
  *norm("ln_final", "norm"),
]


class Described(NamedTuple):
  """What a config of theirs says, in our terms."""

  towers: dict[str, dict[str, Any]]
  heads: dict[str, dict[str, Any]]
  image: ImageInput
  image_rules: list[Rule]  # of the names after "visual."
  text_rules: list[Rule]

  def rules(self, prefix: str) -> list[Rule]:
    """`prefix`: of the names of the text tower: "text.", or none in the layout of CLIP itself."""
    return [*under(self.image_rules, "visual.", ""), *open_clip_decoder.RULES, *under(self.text_rules, prefix, "")]


def describe(config: Mapping[str, Any], where: str) -> Described:
  """What `config`, {"model_cfg", "preprocess_cfg"}, says of the model. Raises UserError for what we do not compute."""
  model = _fields(config["model_cfg"], _MODEL, f"{where}: model_cfg")
  vision, preprocess = model["vision_cfg"], config.get("preprocess_cfg")
  place = f"{where}: vision_cfg"
  if vision.get("timm_model_name"):
    if not preprocess:
      raise UserError(
        f"{where}: no preprocess_cfg, and {vision['timm_model_name']} may need another than CLIP's; give "
        "a JSON of model_cfg and preprocess_cfg (mean, std, interpolation, resize_mode)"
      )
    tower, head, image_rules = _timm(_fields(vision, _TIMM, place), model, place)
  elif isinstance(vision.get("layers"), list | tuple):
    tower = open_clip_resnet.tower(_fields(vision, _VISION, place))
    head, image_rules = open_clip_resnet.head(model["embed_dim"]), open_clip_resnet.RULES
  else:
    tower, head, image_rules = _vit(_fields(vision, _VISION, place), model, place)
  place = f"{where}: text_cfg"
  if "hf_model_name" in model["text_cfg"]:
    raise UserError(f"{place}.hf_model_name: a text tower of transformers within open_clip is not read")
  text_tower, text_head, text_rules = _text(_fields(model["text_cfg"], _TEXT, place), model, place)
  towers = {"image": complete(tower), "text": complete(text_tower)}
  heads = {"image_joint": {"tower": "image", **head}, "text_joint": {"tower": "text", **text_head}}
  if model["multimodal_cfg"]:
    towers["text"]["norm_after_pool"] = True
    decoder, words = open_clip_decoder.describe(model, towers["text"], f"{where}: multimodal_cfg")
    towers[open_clip_decoder.TOWER], heads[open_clip_decoder.HEAD] = decoder, words
  image = _image_input(preprocess or {}, vision.get("image_size", 224), where)
  return Described(towers, heads, image, image_rules, text_rules)


def text_input(config: Mapping[str, Any], folder: pathlib.Path, where: str) -> TextInput:
  """What `config` says of texts; `folder`: where the files of a tokenizer are. Raises UserError as `describe`."""
  where = f"{where}: text_cfg"
  fields = _fields(config["model_cfg"]["text_cfg"], _TEXT, where)
  options, own = dict(fields["tokenizer_kwargs"] or {}), not fields["hf_tokenizer_name"]
  clean = options.pop("clean", "lower" if own else "whitespace")
  if options:
    raise UserError(f"{where}.tokenizer_kwargs: {next(iter(options))!r} is not done here, only 'clean'")
  lower = _CLEAN[choose(clean, _CLEAN, f"{where}.tokenizer_kwargs.clean")]
  if own:
    last = fields["vocab_size"] - 1
    tokenizer, ids = tokenizer_files.clip(folder), {"pad": 0, "bos": last - 1, "eos": last}
  else:
    tokenizer, ids = tokenizer_files.find(folder, lower)
  ends = {"eos": fields["eos_id"], "argmax": fields["vocab_size"] - 1}.get(fields["pool_type"], ids["eos"])
  if tokenizer and not fields["embed_cls"] and ends != ids["eos"]:
    raise UserError(
      f"{where}.pool_type: {fields['pool_type']!r} takes the token {ends}, and the tokenizer ends texts "
      f"with {ids['eos']}"
    )
  return TextInput(fields["context_length"], tokenizer, ids, lower)


def config_of(pretrained: Pretrained, where: str) -> dict[str, Any]:
  """The config that comes nearest to `pretrained`. Where it says something else, `describe` shows it.

  Raises UserError for a model without two towers and heads, or an encoder that open_clip does not have.
  """
  for name in ("image", "text"):
    if name not in pretrained.towers or f"{name}_joint" not in pretrained.heads:
      raise UserError(
        f"{where}: open_clip needs towers of images and of texts, and a head of each; this model has no "
        f"{name} tower, or none with a head; for only one tower: --to hf or --to timm"
      )
  image, text = (complete(pretrained.towers[name]) for name in ("image", "text"))
  if text["name"] != "text_transformer":
    raise UserError(
      f"{where}: {pretrained.key('towers/text')}.name is {text['name']!r}, and open_clip has "
      f"'text_transformer' only; {OTHERWISE}"
    )
  image_head, text_head = pretrained.heads["image_joint"], pretrained.heads["text_joint"]
  # QuickGELU is said of a whole model, whose image tower may have an activation of its own.
  quick = text["activation"] == "quick_gelu"
  if image["name"].startswith("clip_resnet"):
    vision = open_clip_resnet.vision_cfg(image)
  elif image["name"].startswith("vit") and not image["patch_bias"]:
    vision = _vit_fields(image, quick)
  else:
    vision = _timm_fields(image, image_head, pretrained.image.size, where, pretrained.key("towers/image"))
  vision["image_size"] = pretrained.image.size
  text_cfg = _text_fields(text, text_head, pretrained.text, quick)
  model = {
    "embed_dim": text_head.get("dim", text["width"]),
    "quick_gelu": quick,
    "vision_cfg": vision,
    "text_cfg": text_cfg,
  }
  if open_clip_decoder.TOWER in pretrained.towers:
    model["multimodal_cfg"] = open_clip_decoder.fields_of(pretrained, image, text, where)
    for fields in (vision, text_cfg):
      fields["output_tokens"] = True
  if pretrained.logit_bias is not None:
    model["init_logit_bias"] = pretrained.logit_bias
  # CLIP's own class has neither another trunk nor a token at the end of texts.
  model["custom_text"] = "timm_model_name" in vision or "attentional_pool" in vision or "embed_cls" in text_cfg
  given = pretrained.image
  if given.centre_crop != 1:
    raise UserError(
      f"{where}: config.data.centre_crop is {given.centre_crop:g}, and open_clip shows the whole shorter "
      f"side, which is 1.0; {OTHERWISE}"
    )
  preprocess = {
    "mean": list(given.mean),
    "std": list(given.std),
    "interpolation": given.interpolation,
    "resize_mode": given.resize,
  }
  return {"model_cfg": model, "preprocess_cfg": preprocess}


def _fields(given: Mapping[str, Any], known: Mapping[str, Any], where: str) -> dict[str, Any]:
  """`given` over the defaults. Raises UserError for a field or a value that we do not compute."""
  for key, value in given.items():
    choose(key, known, where)
    if key in _ONLY and value not in _ONLY[key]:
      raise UserError(f"{where}.{key}: {value!r} is not supported, only {' or '.join(map(repr, _ONLY[key]))}")
  return {**known, **given}


def _changed(fields: Mapping[str, Any], known: Mapping[str, Any], kept: tuple[str, ...]) -> dict[str, Any]:
  """Those of `fields` that are not the default, and those that every config has."""
  return {key: value for key, value in fields.items() if key in kept or value != known[key]}


def _transformer(fields: Mapping[str, Any], model: Mapping[str, Any], where: str) -> dict[str, Any]:
  """The options that both towers have."""
  act, given = fields["act_kwargs"] or {}, fields["norm_kwargs"] or {}
  choices = {(): "gelu", (("approximate", "none"),): "gelu", (("approximate", "tanh"),): "gelu_tanh"}
  if (kind := tuple(act.items())) not in choices or (act and model["quick_gelu"]) or given.keys() - {"eps"}:
    raise UserError(f"{where}: act_kwargs {act} and norm_kwargs {given}: only approximate and eps are supported")
  return {
    "width": fields["width"],
    "depth": fields["layers"],
    "mlp_ratio": fields["mlp_ratio"],
    "activation": "quick_gelu" if model["quick_gelu"] else choices[kind],
    "norm_epsilon": given.get("eps", 1e-5),
  }


def _transformer_fields(tower: Mapping[str, Any], quick: bool) -> dict[str, Any]:
  """The inverse of `_transformer`."""
  act = {"gelu_tanh": {"approximate": "tanh"}}.get(tower["activation"])
  return {
    "width": tower["width"],
    "layers": tower["depth"],
    "mlp_ratio": tower["mlp_ratio"],
    "act_kwargs": None if quick else act,
    "norm_kwargs": None if tower["norm_epsilon"] == 1e-5 else {"eps": tower["norm_epsilon"]},
  }


def _vit(fields: Mapping[str, Any], model: Mapping[str, Any], where: str) -> tuple[dict, dict, list[Rule]]:
  pooler, dim = fields["attentional_pool"], model["embed_dim"]
  if fields["pool_type"] != "tok":
    raise UserError(f"{where}.pool_type: {fields['pool_type']!r} is not supported, only 'tok'")
  tower = {
    "name": "vit",
    **_transformer(fields, model, where),
    "heads": fields["width"] // fields["head_width"],
    "patch": fields["patch_size"],
    "patch_bias": False,
    "patch_drop": fields["patch_dropout"],
    "positions": "learned",
    "cls_position": True,
    "position_antialias": True,
    "pre_norm": not fields["no_ln_pre"],
    "layer_scale": fields["ls_init_value"],
    "pool": "cls",
  }
  if pooler:
    tower |= {
      "pool": "queries",
      "pool_queries": fields["attn_pooler_queries"],
      "pool_dim": dim,
      "pool_heads": fields["attn_pooler_heads"],
    }
  matrices = _POOLER if dim == fields["width"] else _POOLER_OF_OTHER_WIDTH
  rules = [*under([*_VIT, *matrices], "", "towers/image"), Rule("proj", "heads/image_joint/fc1/kernel")]
  return tower, {"name": "linear", "dim": dim, "bias": False}, rules


def _vit_fields(tower: Mapping[str, Any], quick: bool) -> dict[str, Any]:
  fields = {
    **_transformer_fields(tower, quick),
    "head_width": tower["width"] // tower["heads"],
    "patch_size": tower["patch"],
    "patch_dropout": tower["patch_drop"],
    "no_ln_pre": not tower["pre_norm"],
    "ls_init_value": tower["layer_scale"],
  }
  if tower["pool"] == "queries":
    fields |= {
      "attentional_pool": True,
      "attn_pooler_queries": tower["pool_queries"],
      "attn_pooler_heads": tower["pool_heads"],
    }
  return _changed(fields, _VISION, ("width", "layers", "patch_size"))


def _timm(fields: Mapping[str, Any], model: Mapping[str, Any], where: str) -> tuple[dict, dict, list[Rule]]:
  pool, dim = fields["timm_pool"], model["embed_dim"]
  encoder = timm.encoder(fields["timm_model_name"], {"global_pool": pool} if pool else {}, where)
  rules = under(encoder.rules, "trunk.", "towers/image")
  if fields["timm_proj"] == "none":
    return dict(encoder.tower), {"name": "identity"}, rules
  head = {"name": "linear", "dim": dim, "bias": fields["timm_proj_bias"]}
  return dict(encoder.tower), head, [*rules, *linear("head.proj", "heads/image_joint/fc1")]


def _timm_fields(tower: Mapping[str, Any], head: Mapping[str, Any], size: int, where: str, key: str) -> dict[str, Any]:
  name, args, _ = timm.architecture(tower, size, where, key)
  pool = args.pop("global_pool", {"map": "map", "gap": "avg", "cls": "token"}[tower["pool"]])
  if args:
    raise UserError(
      f"{where}: {key} at {size} px is timm's {name} with other {args}, and open_clip takes it as it is; "
      "for CLIP's own ViT: pool='cls', pre_norm=True, patch_bias=False"
    )
  fields = {
    "timm_model_name": name,
    "timm_pool": pool,
    "timm_proj": "none" if head["name"] == "identity" else "linear",
    "timm_proj_bias": head.get("bias", False),
  }
  return _changed(fields, _TIMM, ("timm_model_name", "timm_pool", "timm_proj"))


def _text(fields: Mapping[str, Any], model: Mapping[str, Any], where: str) -> tuple[dict, dict, list[Rule]]:
  tower = {
    "name": "text_transformer",
    **_transformer(fields, model, where),
    "vocab_size": fields["vocab_size"],
    "heads": fields["heads"],
    "max_length": fields["context_length"],
    "causal": not fields["no_causal_mask"],
  }
  if fields["ls_init_value"] is not None:
    raise UserError(f"{where}.ls_init_value: text towers have no layer scale here, only None is supported")
  if fields["embed_cls"]:
    tower |= {"pool": "end_token", "pad_id": fields["pad_id"]}
  else:
    pools = {"argmax": "eos", "eos": "eos", "last": "last", "first": "cls"}
    tower["pool"] = pools[choose(fields["pool_type"], pools, f"{where}.pool_type")]
    # Theirs sees padding too; in a causal tower the eos does not, being before it.
    tower["attend_padding"] = not (tower["causal"] and tower["pool"] == "eos")
  rules = under(_TEXT_TOWER, "", "towers/text")
  if fields["proj_type"] == "none":
    return tower, {"name": "identity"}, rules
  choose(fields["proj_type"], ("linear", "none"), f"{where}.proj_type")
  head = "heads/text_joint/fc1"
  rules += linear("text_projection", head) if fields["proj_bias"] else [Rule("text_projection", f"{head}/kernel")]
  return tower, {"name": "linear", "dim": model["embed_dim"], "bias": fields["proj_bias"]}, rules


def _text_fields(tower: Mapping[str, Any], head: Mapping[str, Any], text: TextInput, quick: bool) -> dict[str, Any]:
  fields = {
    **_transformer_fields(tower, quick),
    "vocab_size": tower["vocab_size"],
    "heads": tower["heads"],
    "context_length": tower["max_length"],
    "no_causal_mask": not tower["causal"],
    "proj_bias": head.get("bias", False),
    "proj_type": "none" if head["name"] == "identity" else "linear",
  }
  if tower["pool"] == "end_token":
    fields |= {"embed_cls": True, "pad_id": text.token_ids["pad"] if tower["pad_id"] is None else tower["pad_id"]}
  elif tower["pool"] != "eos":
    fields["pool_type"] = {"last": "last", "cls": "first"}.get(tower["pool"], "argmax")
  elif text.token_ids["eos"] != tower["vocab_size"] - 1:  # else theirs looks for the highest id
    fields |= {"pool_type": "eos", "eos_id": text.token_ids["eos"]}
  if not text.tokenizer.startswith("clip"):  # theirs then looks in the folder itself, whatever the name
    clean = {lower: name for name, lower in _CLEAN.items()}[text.lower]
    fields |= {"hf_tokenizer_name": ".", "tokenizer_kwargs": {"clean": clean}}
  return _changed(fields, _TEXT, ("width", "layers", "heads", "context_length", "vocab_size"))


def _image_input(given: Mapping[str, Any], size: Any, where: str) -> ImageInput:
  known = {**_PREPROCESS, "size": size, "mode": "RGB", "fill_color": 0}
  for key in given:
    choose(key, known, f"{where}: preprocess_cfg")
  fields = {**known, **given}
  side = square(size, f"{where}: vision_cfg.image_size")
  choose(fields["resize_mode"], ("shortest", "squash"), f"{where}: preprocess_cfg.resize_mode")
  choose(fields["interpolation"], ("bilinear", "bicubic"), f"{where}: preprocess_cfg.interpolation")
  mean, std = tuple(fields["mean"]), tuple(fields["std"])
  return ImageInput(side, mean, std, fields["resize_mode"], fields["interpolation"])
