"""timm's names of the ViT's arrays, and what its architectures are here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mmcontrast.encoders.transformer import ACTIVATIONS
from mmcontrast.errors import UserError, choose
from mmcontrast.interop.naming import CONV, Rule, linear, norm
from mmcontrast.interop.pretrained import ImageInput, complete
from mmcontrast.interop.resnet import IMAGENET_MEAN, IMAGENET_STD
from mmcontrast.interop.square import square
from mmcontrast.interop.timm import Encoder, expect, take

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5)
CLASSIFIER = (r"head\.(weight|bias)",)

SIZES = {  # width, depth, heads, hidden width of an MLP over width
  "tiny": (192, 12, 3, 4.0), "small": (384, 12, 6, 4.0), "base": (768, 12, 12, 4.0), "large": (1024, 24, 16, 4.0),
  "so400m": (1152, 27, 16, 3.7362), "huge": (1280, 32, 16, 4.0), "giant": (1408, 40, 16, 48 / 11),
  "giantopt": (1536, 40, 16, 4.0), "gigantic": (1664, 48, 16, 64 / 13),
}  # fmt: skip
_NAMES = {  # size -> "PATCH_FAMILY_PIXELS" of timm 1.0.31
  "tiny": "16_224 16_384",
  "small": "8_224 16_224 16_384 32_224 32_384 14_dinov2 14_reg4_dinov2",
  "base": "8_224 16_224 16_384 32_224 32_384 14_dinov2 14_reg4_dinov2 16_clip_224 16_clip_384 32_clip_224 32_clip_256 "
          "32_clip_384 32_clip_448 16_clip_quickgelu_224 32_clip_quickgelu_224 16_gap_224 16_siglip_224 16_siglip_256 "
          "16_siglip_384 16_siglip_512 32_siglip_256 16_siglip_gap_224 16_siglip_gap_256 16_siglip_gap_384 "
          "16_siglip_gap_512 32_siglip_gap_256",
  "large": "14_224 16_224 16_384 32_224 32_384 14_dinov2 14_reg4_dinov2 14_clip_224 14_clip_336 14_clip_quickgelu_224 "
           "14_clip_quickgelu_336 16_siglip_256 16_siglip_384 16_siglip_512 16_siglip_gap_256 16_siglip_gap_384 "
           "16_siglip_gap_512",
  "so400m": "14_siglip_224 14_siglip_378 14_siglip_384 16_siglip_256 16_siglip_384 16_siglip_512 14_siglip_gap_224 "
            "14_siglip_gap_378 14_siglip_gap_384 14_siglip_gap_448 14_siglip_gap_896 16_siglip_gap_256 "
            "16_siglip_gap_384 16_siglip_gap_512",
  "huge": "14_224 14_clip_224 14_clip_336 14_clip_378 14_clip_quickgelu_224 14_clip_quickgelu_378 14_gap_224 "
          "16_gap_448",
  "giant": "14_224 14_dinov2 14_reg4_dinov2 14_clip_224 16_gap_224",
  "giantopt": "16_siglip_256 16_siglip_384 16_siglip_gap_256 16_siglip_gap_384",
  "gigantic": "14_224 14_clip_224 14_clip_378 14_clip_quickgelu_224",
}  # fmt: skip
NAMES = tuple(f"vit_{size}_patch{rest}" for size, all_of_it in _NAMES.items() for rest in all_of_it.split())
_CLIP = {"pre_norm": True, "norm_epsilon": 1e-5}
_DINOV2 = {"img_size": 518, "init_values": 1e-5}
_REGISTERS = {"reg_tokens": 4, "no_embed_class": True}
FAMILIES = {  # the words of an architecture's name after the patch: arguments over the defaults
  "": {}, "gap": {"class_token": False, "global_pool": "avg", "fc_norm": False},
  "clip": _CLIP, "clip_quickgelu": {**_CLIP, "act_layer": "quick_gelu"},
  "dinov2": _DINOV2, "reg4_dinov2": {**_DINOV2, **_REGISTERS},
  "siglip": {"class_token": False, "global_pool": "map"},
  "siglip_gap": {"class_token": False, "global_pool": "avg", "fc_norm": False},
}  # fmt: skip
# What one size of a family has that the others do not.
_TANH = re.compile(r"vit_(base_patch32|large_patch16(?=.*512)|so400m_patch16|giantopt_patch16)_siglip.*")
_SWIGLU = {"embed_dim": 1536, "num_heads": 24, "mlp_ratio": 2.66667 * 2, "mlp": "swiglu", "act_layer": "silu"}
_NAME = re.compile(r"vit_(\w+?)_patch(\d+)(?:_([a-z]\w*?))?(?:_(\d+))?")
INPUTS = {  # mean, std, crop where no config says otherwise
  "clip": (CLIP_MEAN, CLIP_STD, 1.0), "clip_quickgelu": (CLIP_MEAN, CLIP_STD, 1.0),
  "dinov2": (IMAGENET_MEAN, IMAGENET_STD, 1.0), "reg4_dinov2": (IMAGENET_MEAN, IMAGENET_STD, 1.0),
  "gap": (IMAGENET_MEAN, IMAGENET_STD, 0.9),
}  # fmt: skip
# Arguments of timm's VisionTransformer, and the one value that is computed here.
FIXED = {
  "in_chans": 3,
  "scale_attn_norm": False,
  "scale_mlp_norm": False,
  "proj_bias": True,
  "final_norm": True,
  "pool_include_prefix": False,
  "dynamic_img_pad": False,
  "embed_norm_layer": None,
  "norm_layer": None,
  "embed_layer": None,
  "block_fn": None,
  "mlp_layer": None,
  "attn_layer": None,
}
POOLS = {"token": "cls", "avg": "gap", "map": "map"}

RULES = [
  Rule("patch_embed.proj.weight", "patch_embed/kernel", CONV), Rule("patch_embed.proj.bias", "patch_embed/bias"),
  *(Rule(name, name) for name in ("cls_token", "reg_token", "pos_embed")),
  *norm("norm_pre", "norm_pre"), *norm("norm", "norm"), *norm("fc_norm", "fc_norm"),
  *(rule for i in (1, 2) for rule in norm(f"blocks.{{i}}.norm{i}", f"blocks_{{i}}/norm{i}")),
  *(Rule(f"blocks.{{i}}.ls{i}.gamma", f"blocks_{{i}}/ls{i}/gamma") for i in (1, 2)),
  *(rule for name in ("q_norm", "k_norm") for rule in norm(f"blocks.{{i}}.attn.{name}", f"blocks_{{i}}/attn/{name}")),
  *(rule for name in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    for rule in linear(f"blocks.{{i}}.{name}", f"blocks_{{i}}/{name.replace('.', '/')}")),
  Rule("attn_pool.latent", "attn_pool/latent"), *norm("attn_pool.norm", "attn_pool/norm"),
  *(rule for name in ("q", "kv", "proj", "mlp.fc1", "mlp.fc2")
    for rule in linear(f"attn_pool.{name}", f"attn_pool/{name.replace('.', '/')}")),
]  # fmt: skip


def from_timm(architecture: str, args: Mapping[str, Any], where: str) -> Encoder:
  """Those of NAMES; see `timm.FAMILIES`."""
  known = arguments(choose(architecture, NAMES, f"{where}: architecture"))
  args = take(dict(args), known, where)
  expect(args, FIXED, where)
  swiglu, pool = args["mlp"] == "swiglu", choose(args["global_pool"], POOLS, f"{where}: global_pool")
  if args["class_token"] != (pool == "token"):
    raise UserError(
      f"{where}: class_token={args['class_token']} with global_pool={pool!r} is not supported: there "
      "must be such a token exactly where it is pooled"
    )
  if args["reg_tokens"] and not args["no_embed_class"]:
    raise UserError(f"{where}: reg_tokens={args['reg_tokens']} with positions (no_embed_class=False) are not supported")
  size, patch = (square(args[key], f"{where}: {key}") for key in ("img_size", "patch_size"))
  width, activation = args["embed_dim"], args["act_layer"] or "gelu"
  choose(activation, ("silu",) if swiglu else ACTIVATIONS, f"{where}: act_layer")
  if swiglu and pool == "map":
    raise UserError(f"{where}: global_pool='map' with SwiGLU is not supported")
  hidden = int(width * args["mlp_ratio"]) // (1 + swiglu)
  options = {
    "name": "vit", "width": width, "depth": args["depth"], "heads": args["num_heads"], "patch": patch,
    "mlp_ratio": hidden / width, "mlp": args["mlp"], "pool": POOLS[pool], "norm_epsilon": args["norm_epsilon"],
    "positions": "learned" if args["pos_embed"] == "learn" else "none", "registers": args["reg_tokens"],
    "pre_norm": args["pre_norm"], "patch_bias": not args["pre_norm"], "qkv_bias": args["qkv_bias"],
    "position_antialias": True, "cut_edges": size % patch > 0, "qk_norm": args["qk_norm"],
    "layer_scale": args["init_values"] or None,
    "norm_after_pool": pool == "avg" if args["fc_norm"] is None else args["fc_norm"],
    **({} if swiglu else {"activation": activation}),
    **({"cls_position": not args["no_embed_class"]} if pool == "token" else {}),
  }  # fmt: skip
  mean, std, crop = INPUTS.get(_NAME.fullmatch(architecture)[3], (HALF, HALF, 0.9))
  return Encoder(complete(options), RULES, CLASSIFIER, ImageInput(size, mean, std, "shortest", "bicubic", crop))


def to_timm(full: Mapping[str, Any], size: int, where: str) -> tuple[str, dict[str, Any], list[Rule]]:
  """See `timm.FAMILIES`. The architecture is that of NAMES which needs the fewest arguments."""
  swiglu, width = full["mlp"] == "swiglu", full["width"]
  pools = {ours: theirs for theirs, ours in POOLS.items()}
  choose(full["pool"], pools, f"{where}: timm's pool")
  hidden = round(width * full["mlp_ratio"]) * (1 + swiglu)
  said = {
    "img_size": size, "patch_size": full["patch"], "embed_dim": width, "depth": full["depth"],
    "num_heads": full["heads"], "mlp_ratio": (hidden + 0.25) / width, "qkv_bias": full["qkv_bias"],
    "qk_norm": full["qk_norm"], "init_values": full["layer_scale"] or 0.0, "class_token": full["pool"] == "cls",
    "pos_embed": "learn" if full["positions"] == "learned" else "none",
    "no_embed_class": full["registers"] > 0 or not full["cls_position"], "reg_tokens": full["registers"],
    "pre_norm": full["pre_norm"], "fc_norm": full["norm_after_pool"],
    "act_layer": "silu" if swiglu else full["activation"],
    "global_pool": pools[full["pool"]],
  }  # fmt: skip
  found = []
  for name in NAMES:
    known = arguments(name)
    if (known["norm_epsilon"], known["mlp"]) != (full["norm_epsilon"], full["mlp"]):
      continue
    known |= {"act_layer": known["act_layer"] or "gelu", "init_values": known["init_values"] or 0.0}
    known["fc_norm"] = said["global_pool"] == "avg" if known["fc_norm"] is None else known["fc_norm"]
    if int(known["embed_dim"] * known["mlp_ratio"]) == hidden:
      known["mlp_ratio"] = said["mlp_ratio"]
    found.append((name, {key: value for key, value in said.items() if known[key] != value}))
  if not found:
    raise UserError(
      f"{where}: timm has no ViT of norm_epsilon={full['norm_epsilon']} and mlp={full['mlp']!r}; it has "
      "1e-6, and 1e-5 with 'plain'"
    )
  return *min(found, key=lambda pair: len(pair[1])), RULES


def arguments(architecture: str) -> dict[str, Any]:
  """All arguments that an architecture of NAMES is built with, and "norm_epsilon" and "mlp", of ours."""
  size, patch, family, pixels = _NAME.fullmatch(architecture).groups(default="")
  width, depth, heads, ratio = SIZES[size]
  known = {
    "img_size": int(pixels or 224), "patch_size": int(patch), "embed_dim": width, "depth": depth, "num_heads": heads,
    "mlp_ratio": ratio, "qkv_bias": True, "qk_norm": False, "init_values": None, "class_token": True,
    "pos_embed": "learn", "no_embed_class": False, "reg_tokens": 0, "pre_norm": False, "fc_norm": None,
    "global_pool": "token", "act_layer": "gelu_tanh" if _TANH.fullmatch(architecture) else None, "num_classes": 1000,
    "dynamic_img_size": False, "fix_init": False, "norm_epsilon": 1e-6, "mlp": "plain", **FIXED, **FAMILIES[family],
  }  # fmt: skip
  if size == "giant" and "dinov2" in family:
    known |= _SWIGLU
  if architecture == "vit_base_patch16_gap_224":
    known["num_heads"] = 16
  return known
