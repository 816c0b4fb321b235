"""The settings of the pipeline, `config.data`: every key with its default, and their check."""

from __future__ import annotations

import math
import threading
from collections.abc import Collection, Mapping
from typing import Any

import ml_collections

from mmcontrast.data import filters, known_labels, shuffled
from mmcontrast.data.checks import check_counts
from mmcontrast.errors import UserError, choose, nearest
from mmcontrast.modalities import MODALITIES, Modality

_DEFAULTS = {
  "dataset": "emoji_views",  # NAME, or KIND:PATH: data/sources
  "source": {},  # options of the dataset
  "split": "train",  # train, validation, test or all
  "mixture": {},  # instead of the three: name -> dict(dataset=, source=, split=, kept=, weight=); sources/mixture.py
  "kept": "",  # a folder that data filter, dedup or balance wrote: the records that it keeps; sources/kept.py
  "facts": (),  # what is known of views, beside the views, for terms that ask for it: docs/modalities.md
  # What an example without an image, or without a caption, is. "skip": left out, and counted apart from bad records;
  # "bad": a bad record; "mask": there, but not to what reads it.
  "missing": "skip",
  # Label -> dict(classes=0.5, examples=0.5): training knows it of the first half of its classes, and of half of their
  # examples; of all others it is -1. Evaluation knows all.
  "known_labels": {},
  # Of each class of a label, at most so many examples an epoch, drawn anew each time; label "": all of all.
  "balance": {"label": "", "most": 100},
  "identity": "record",  # what target same_id compares: the record's id, or its first "caption"
  # So many of the training examples, chosen by `seed`, have one another's captions: noise that is known, and said by
  # the label "caption_of".
  "shuffled_captions": shuffled.DEFAULTS,
  # max_share: of a source's records; with more bad ones the run stops. A read that fails, or takes longer than
  # timeout_seconds, is tried again, after backoff_seconds and then twice as long each time.
  "on_error": {"max_share": 0.01, "retries": 3, "backoff_seconds": 0.5, "timeout_seconds": 60.0},
  "cache": "auto",  # decoded images in memory: decoded, none, or auto (up to 512 MiB)
  "read": {"threads": 2, "prefetch": 4},  # prefetch in batches
}
_FREE = ("source", "mixture", "known_labels")  # checked by the source, and by known_labels.py
_RANGES = {  # of numbers that are no counts
  "max_share": (0, 1),
  "backoff_seconds": (0, math.inf),
  "timeout_seconds": (1e-3, threading.TIMEOUT_MAX),
}


def defaults() -> dict[str, Any]:
  """Every key of config.data with its default: those of all modalities, and of the pipeline."""
  found = {**_DEFAULTS, "views": {}, "filter": {}, "limits": {}}
  for name, modality in MODALITIES.items():
    found |= modality.defaults
    found["views"] |= {name: modality.usual_views} if modality.usual_views else {}  # one not named is left out
    found["filter"] |= modality.filters
    found["limits"] |= modality.limits
  return found


def resolve(config: Mapping) -> dict:
  """`config` over `defaults()` as plain dicts. UserError on an unknown key or a bad value."""
  config = config.to_dict() if isinstance(config, ml_collections.ConfigDict) else dict(config)
  known, none = defaults(), dict.fromkeys(MODALITIES, 0)
  known["views"] = {**none, **known["views"]}
  if isinstance(config.get("views"), Mapping):
    config["views"] = {**none, **config["views"]}
  settings = _merge(known, config, "data", {*_FREE, *(key for one in MODALITIES.values() for key in one.free)})
  for modality, count in settings["views"].items():
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
      raise UserError(f"data.views.{modality}: {count!r} is not a number of views (0, 1, 2, ...)")
  if not any(settings["views"].values()):
    raise UserError(f"data.views: no view at all; set {' or '.join(f'data.views.{name}' for name in MODALITIES)}")
  check_counts(settings["limits"], dict.fromkeys(settings["limits"], 1), "data.limits")
  filters.check(settings["filter"])
  _check_facts(settings)
  for modality in MODALITIES.values():
    modality.check(settings)
  _check_told(settings)
  _check_identity(settings)
  known_labels.check(settings)
  check_counts(settings["balance"], {"most": 1}, "data.balance")
  if settings["balance"]["label"] and settings["mixture"]:
    raise UserError("data.balance.label: is of one dataset, and this is a mixture; give its parts weights instead")
  check_counts(settings["on_error"], {"retries": 0}, "data.on_error")
  check_counts(settings["read"], {"threads": 1, "prefetch": 1}, "data.read")
  for key, (low, high) in _RANGES.items():
    if not isinstance(value := settings["on_error"][key], int | float) or not low <= value <= high:
      raise UserError(f"data.on_error.{key}: {value!r}; give a number from {low:g} to {high:g}")
  shuffled.check(settings["shuffled_captions"])
  choose(settings["missing"], ("skip", "bad", "mask"), "data.missing")
  choose(settings["cache"], ("auto", "decoded", "none"), "data.cache")
  return settings


def shown(settings: Mapping) -> dict[str, Modality]:
  """Name -> modality, of those with views."""
  return {name: modality for name, modality in MODALITIES.items() if settings["views"].get(name)}


def _check_facts(settings: Mapping) -> None:
  known = {fact for modality in shown(settings).values() for fact in modality.facts}
  if isinstance(settings["facts"], str):
    raise UserError(f"data.facts: {settings['facts']!r} is no list; write ({settings['facts']!r},)")
  for fact in settings["facts"]:
    if not known:
      raise UserError(f"data.facts: nothing more is known of {' and '.join(shown(settings))} views; leave it empty")
    choose(fact, known, "data.facts")


def _check_told(settings: Mapping) -> None:
  """Raises UserError for a fact that no view has."""
  counts = {one: modality.counts(settings) for one, modality in shown(settings).items()}
  for fact in settings["facts"]:
    having = [(one, name) for one in counts for name in counts[one] if fact in MODALITIES[one].facts_of(name)]
    if not any(counts[one][name] for one, name in having):
      keys = " or ".join(MODALITIES[one].count_key(name) for one, name in having)
      raise UserError(f"data.facts: no view has {fact!r}; set {keys} to 1 or more, or leave {fact!r} out")


def _check_identity(settings: Mapping) -> None:
  identities = {one.identity: name for name, one in MODALITIES.items() if one.identity}
  identity = choose(settings["identity"], ("record", *identities), "data.identity")
  if (name := identities.get(identity)) and not settings["views"][name]:
    raise UserError(f"data.identity: {identity!r} needs {name} views; set data.views.{name}")


def view_counts(config: Mapping) -> dict[str, int]:
  """Sets of views, as terms name them -> how many."""
  settings = resolve(config)
  counts: dict[str, int] = {}
  for modality in MODALITIES.values():
    counts |= modality.counts(settings)
  return counts


def view_facts(config: Mapping) -> dict[str, tuple[str, ...]]:
  """Sets of views -> what batches say of their views, beside them."""
  settings = resolve(config)
  return {
    view_set: tuple(fact for fact in settings["facts"] if fact in modality.facts_of(view_set))
    for modality in MODALITIES.values()
    for view_set in modality.view_sets
  }


def _merge(defaults: Mapping, given: Mapping, where: str, free: Collection[str] = ()) -> dict:
  merged = dict(defaults)
  for key, value in given.items():
    if key not in defaults:
      raise UserError(f"{where}.{key}: unknown key; {nearest(key, defaults)}")
    if isinstance(defaults[key], Mapping):
      if not isinstance(value, Mapping):
        raise UserError(f"{where}.{key}: {value!r} is not a table of {', '.join(defaults[key])}")
      value = dict(value) if key in free else _merge(defaults[key], value, f"{where}.{key}")
    merged[key] = value
  return merged
