"""The settings of the pipeline, `config.data`: every key with its default, and their check."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence

import ml_collections

from mmcontrast.data import filters, images, transforms
from mmcontrast.errors import UserError, choose, nearest

DEFAULTS = {
  "dataset": "emoji_views",  # NAME, or KIND:PATH: data/sources
  "source": {},  # options of the dataset
  "split": "train",  # train, validation, test or all
  "mixture": {},  # instead of the three: name -> dict(dataset=, source=, split=, weight=); sources/mixture.py
  "image_size": 32,  # pixels
  "views": {"image": 2, "text": 2},  # a modality not named here is left out
  # Image views of one example: distinct styles (more views: the same ones again, in order), the same, or any.
  "drawings": "distinct",
  "crop": transforms.CROP,
  # Further crops, small ones, of views `image_small`: how many, pixels, share of the area (SwAV's: 6, 96).
  "multi_crop": {"views": 0, "size": 96, "scale": (0.05, 0.14)},
  "trim": False,  # see transforms.trim; evaluation does the same
  # Share of the side that evaluation sees. A random crop shows things larger than they are, so the
  # whole image would show them smaller than in training (Touvron et al. 2019, arXiv:1906.06423).
  "centre_crop": 1.0,
  # How evaluation makes an image square. mode "crop": the middle is cut, then resized; "shortest": resized by the
  # shorter side, then cut (CLIP, timm, torchvision); "squash": resized to a square whatever its ratio (SigLIP).
  "resize": {"mode": "crop", "interpolation": "bilinear"},
  # Text views are names in these languages instead of captions: as many views as languages, view k in
  # language k; fewer, and each example draws distinct ones. Evaluation reads captions all the same.
  "languages": (),
  # Which captions text views show. None: any. dict(alt=0.7, generated=0.3): a view draws its field by these
  # weights, among those the record has. ("alt", "generated"): view k shows field k.
  "captions": None,
  # What an example without an image, or without a caption, is. "skip": left out, and counted apart from bad records;
  # "bad": a bad record; "mask": there, but not to what reads it.
  "missing": "skip",
  "identity": "record",  # what target same_id compares: the record's id, or its first "caption"
  "filter": filters.DEFAULTS,
  "limits": {**images.LIMITS, "caption_characters": 10_000},  # an image over them is bad, a caption is cut
  "text_length": 16,  # tokens, bos and eos included
  "tokenizer": "sentencepiece",  # the dataset's own; KIND:PATH or PATH.model: data/tokenizers
  "lower": True,  # texts first made small; "canonicalize": without punctuation too (SigLIP)
  # "</s>" within a text of a huggingface: tokenizer: "text", as any other; or "read", as the package does.
  "special_tokens": "text",
  "token_ids": {"pad": 0, "bos": 1, "eos": 2},  # what the model was told; checked
  # max_share: of a source's records; with more bad ones the run stops. A read that fails, or takes longer than
  # timeout_seconds, is tried again, after backoff_seconds and then twice as long each time.
  "on_error": {"max_share": 0.01, "retries": 3, "backoff_seconds": 0.5, "timeout_seconds": 60.0},
  "cache": "auto",  # decoded images in memory: decoded, none, or auto (up to 512 MiB)
  "read": {"threads": 2, "prefetch": 4},  # prefetch in batches
}
_FREE = ("source", "mixture")  # checked by the source
_RANGES = {  # of numbers that are no counts
  "max_share": (0, 1), "backoff_seconds": (0, math.inf), "timeout_seconds": (1e-3, threading.TIMEOUT_MAX),
}  # fmt: skip


def resolve(config: Mapping) -> dict:
  """`config` over DEFAULTS as plain dicts. UserError on an unknown key or a bad value."""
  config = config.to_dict() if isinstance(config, ml_collections.ConfigDict) else dict(config)
  if isinstance(config.get("views"), Mapping):
    config["views"] = {**dict.fromkeys(DEFAULTS["views"], 0), **config["views"]}
  settings = _merge(DEFAULTS, config, "data")
  _check_views(settings)
  _check_images(settings)
  _check_texts(settings)
  _check_reading(settings)
  filters.check(settings["filter"])
  choose(settings["missing"], ("skip", "bad", "mask"), "data.missing")
  choose(settings["identity"], ("record", "caption"), "data.identity")
  return settings


def _check_views(settings: Mapping) -> None:
  for modality, count in settings["views"].items():
    if not isinstance(count, int) or count < 0:
      raise UserError(f"data.views.{modality}: {count!r} is not a number of views (0, 1, 2, ...)")
  if not any(settings["views"].values()):
    raise UserError("data.views: no view at all; set data.views.image or data.views.text")
  if settings["identity"] == "caption" and not settings["views"]["text"]:
    raise UserError("data.identity: 'caption' needs text views; set data.views.text")


def _check_images(settings: Mapping) -> None:
  small, crop, resize = settings["multi_crop"], settings["crop"], settings["resize"]
  _check_whole(settings, "data", image_size=1)
  _check_whole(small, "data.multi_crop", views=0, size=1)
  if small["views"] and not settings["views"]["image"]:
    raise UserError("data.multi_crop.views: small crops need whole views too; set data.views.image to 1 or more")
  _check_range(crop["scale"], "data.crop.scale", most=1)
  _check_range(small["scale"], "data.multi_crop.scale", most=1)
  if crop["ratio"] is not None:
    _check_range(crop["ratio"], "data.crop.ratio")
  if not 0 < settings["centre_crop"] <= 1:
    raise UserError(f"data.centre_crop: {settings['centre_crop']!r}; give a share of the side, over 0 and at most 1")
  choose(resize["mode"], ("crop", "shortest", "squash"), "data.resize.mode")
  choose(resize["interpolation"], images.FILTERS, "data.resize.interpolation")
  choose(settings["drawings"], ("distinct", "same", "any"), "data.drawings")


def _check_texts(settings: Mapping) -> None:
  _check_whole(settings, "data", text_length=3)
  languages, views = settings["languages"], settings["views"]["text"]
  if isinstance(languages, str) or len(set(languages)) < len(languages):
    raise UserError(f"data.languages: {languages!r} is not a list of different languages, such as ('en', 'de')")
  if languages and not 0 < views <= len(languages):
    raise UserError(
      f"data.views.text: {views} views of {len(languages)} languages; set it to {len(languages)}, "
      "or to fewer, drawn from them"
    )
  if settings["captions"] and languages:
    raise UserError("data.captions: data.languages shows names instead of captions; leave one of them empty")
  choose(settings["lower"], (True, False, "canonicalize"), "data.lower")
  choose(settings["special_tokens"], ("text", "read"), "data.special_tokens")


def _check_reading(settings: Mapping) -> None:
  _check_whole(settings["limits"], "data.limits", **dict.fromkeys(settings["limits"], 1))
  _check_whole(settings["on_error"], "data.on_error", retries=0)
  _check_whole(settings["read"], "data.read", threads=1, prefetch=1)
  for key, (low, high) in _RANGES.items():
    if not isinstance(value := settings["on_error"][key], int | float) or not low <= value <= high:
      raise UserError(f"data.on_error.{key}: {value!r}; give a number from {low:g} to {high:g}")
  choose(settings["cache"], ("auto", "decoded", "none"), "data.cache")


def _check_whole(section: Mapping, where: str, **least: int) -> None:
  """Checks that the numbers named in `least` are whole, and as many at least."""
  for key, low in least.items():
    if not isinstance(section[key], int) or section[key] < low:
      raise UserError(f"{where}.{key}: {section[key]!r}; give a whole number, at least {low}")


def view_counts(config: Mapping) -> dict[str, int]:
  """Views, as terms name them -> how many: those of config.data.views, and "image_small" of config.data.multi_crop."""
  settings = resolve(config)
  return {**settings["views"], "image_small": settings["multi_crop"]["views"]}


def _check_range(pair: Sequence[float], where: str, most: float = math.inf) -> None:
  if len(pair) != 2 or not 0 < pair[0] <= pair[1] <= most:
    raise UserError(f"{where}: {tuple(pair)}; give (low, high) with 0 < low <= high" + " <= 1" * (most == 1))


def _merge(defaults: Mapping, given: Mapping, where: str) -> dict:
  merged = dict(defaults)
  for key, value in given.items():
    if key not in defaults:
      raise UserError(f"{where}.{key}: unknown key; {nearest(key, defaults)}")
    if isinstance(defaults[key], Mapping):
      if not isinstance(value, Mapping):
        raise UserError(f"{where}.{key}: {value!r} is not a table of {', '.join(defaults[key])}")
      value = dict(value) if key in _FREE else _merge(defaults[key], value, f"{where}.{key}")
    merged[key] = value
  return merged
