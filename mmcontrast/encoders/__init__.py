"""Towers and heads: Flax Linen modules, built from a config by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flax import linen as nn

from mmcontrast.encoders.attentive_mask import AttentiveMask
from mmcontrast.encoders.audio_convnet import AudioConvNet
from mmcontrast.encoders.audio_transformer import AudioTransformer
from mmcontrast.encoders.bert import Bert, bert_large
from mmcontrast.encoders.clip_resnet import (
  clip_resnet50,
  clip_resnet50x4,
  clip_resnet50x16,
  clip_resnet50x64,
  clip_resnet101,
)
from mmcontrast.encoders.convnext import convnext_base, convnext_large, convnext_small, convnext_tiny
from mmcontrast.encoders.cross_modal import CrossModalTransformer
from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.frames import Frames
from mmcontrast.encoders.fusion import FusionTransformer
from mmcontrast.encoders.gcn import Gcn
from mmcontrast.encoders.graph_transformer import GraphTransformer
from mmcontrast.encoders.heads import HEADS, build_head
from mmcontrast.encoders.joint import JointTransformer
from mmcontrast.encoders.map_decoder import MapDecoder
from mmcontrast.encoders.map_vit import MapViT
from mmcontrast.encoders.modern_bert import ModernBert, modern_bert_large
from mmcontrast.encoders.patch_decoder import PatchDecoder
from mmcontrast.encoders.point_transformer import PointTransformer
from mmcontrast.encoders.regions import RegionCells, RegionTransformer, SecondStream
from mmcontrast.encoders.resnet import resnet18, resnet34, resnet50, resnet101, resnet152
from mmcontrast.encoders.series_transformer import SeriesTransformer
from mmcontrast.encoders.sizes import check_sizes
from mmcontrast.encoders.speech_transformer import SpeechTransformer
from mmcontrast.encoders.swin import Swin, htsat, swin_base, swin_small
from mmcontrast.encoders.text import TextTransformer
from mmcontrast.encoders.tubelet_vit import TubeletViT
from mmcontrast.encoders.video_vit import VideoViT
from mmcontrast.encoders.vit import (
  ViT,
  vit_base,
  vit_giant,
  vit_giant_opt,
  vit_huge,
  vit_large,
  vit_small,
  vit_so400m,
  vit_tiny,
)
from mmcontrast.encoders.word_parts import WordParts
from mmcontrast.registry import REQUIRED, build, options_of, unwrapped

ENCODERS: dict[str, Callable[..., nn.Module]] = {
  "resnet18": resnet18,
  "resnet34": resnet34,
  "resnet50": resnet50,
  "resnet101": resnet101,
  "resnet152": resnet152,
  "clip_resnet50": clip_resnet50,
  "clip_resnet101": clip_resnet101,
  "clip_resnet50x4": clip_resnet50x4,
  "clip_resnet50x16": clip_resnet50x16,
  "clip_resnet50x64": clip_resnet50x64,
  "convnext_tiny": convnext_tiny,
  "convnext_small": convnext_small,
  "convnext_base": convnext_base,
  "convnext_large": convnext_large,
  "swin": Swin,
  "swin_small": swin_small,
  "swin_base": swin_base,
  "htsat": htsat,
  "vit": ViT,
  "vit_tiny": vit_tiny,
  "vit_small": vit_small,
  "vit_base": vit_base,
  "vit_large": vit_large,
  "vit_so400m": vit_so400m,
  "vit_huge": vit_huge,
  "vit_giant": vit_giant,
  "vit_giant_opt": vit_giant_opt,
  "text_transformer": TextTransformer,
  "word_parts": WordParts,
  "bert": Bert,
  "bert_large": bert_large,
  "modern_bert": ModernBert,
  "modern_bert_large": modern_bert_large,
  "audio_transformer": AudioTransformer,
  "audio_convnet": AudioConvNet,
  "speech_transformer": SpeechTransformer,
  "video_vit": VideoViT,
  "tubelet_vit": TubeletViT,
  "frames": Frames,
  "series_transformer": SeriesTransformer,
  "point_transformer": PointTransformer,
  "graph_transformer": GraphTransformer,
  "gcn": Gcn,
  "fusion_transformer": FusionTransformer,
  "joint_transformer": JointTransformer,
  "cross_modal_transformer": CrossModalTransformer,
  "patch_decoder": PatchDecoder,
  "attentive_mask": AttentiveMask,
  "map_vit": MapViT,
  "map_decoder": MapDecoder,
  "region_cells": RegionCells,
  "region_transformer": RegionTransformer,
  "second_stream": SecondStream,
}


def build_encoder(config: Mapping[str, Any], where: str = "towers") -> nn.Module:
  """Builds `ENCODERS[config["name"]]` with the rest of the config as options.

  The module maps `(inputs, mask=None, *, train)` to `Encoded`; one of a tower that reads others (`READS`, at least so
  many of them) maps `(*encoded, train)`. Raises UserError for an
  unknown name, option or value, naming the nearest; `where` is the config's path in it.
  """
  check_sizes(config, where)
  inner = {key: build_encoder(options, f"{where}.{key}") for key, options in nested(config).items()}
  return build(ENCODERS, {**config, **inner}, where)


def nested(config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
  """Option -> the options of the tower that it is, of those that are towers themselves; a name is short for one."""
  builder = ENCODERS.get(config.get("name", ""))
  keys = getattr(unwrapped(builder), "NESTED", ()) if builder else ()
  given = {key: {"name": config[key]} if isinstance(config[key], str) else config[key] for key in keys if key in config}
  return {key: options for key, options in given.items() if hasattr(options, "keys")}


def complete(options: Mapping[str, Any]) -> dict[str, Any]:
  """The options of an encoder or a head, "name" among them, with every default written out."""
  defaults = options_of({**HEADS, **ENCODERS}[options["name"]])
  inner = {key: complete(of) for key, of in nested(options).items()}
  return {**{key: value for key, value in defaults.items() if value is not REQUIRED}, **options, **inner}


__all__ = ["ENCODERS", "HEADS", "Encoded", "build_encoder", "build_head", "complete", "nested"]
