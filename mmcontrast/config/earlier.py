"""Configs that earlier versions saved, in today's keys: what they mean is the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def of_today(config: Mapping[str, Any]) -> dict[str, Any]:
  """A config with the keys that have other names now, and one recipe where each view had the same."""
  out = {**config, "stages": tuple(map(of_today, config.get("stages", ())))} if "stages" in config else {**config}
  if "data" in out:
    out["data"] = {key: value for key, value in out["data"].items() if key != "crop_boxes"}
    if config["data"].get("crop_boxes"):
      out["data"]["facts"] = ("box",)
  if "augment" in out:
    out["augment"] = {views: _recipe(given) for views, given in out["augment"].items()}
  return out


def _recipe(given: Any) -> Any:
  """One recipe of several that are equal, which says the same of every view."""
  alike = isinstance(given, list | tuple) and given and all(one == given[0] for one in given)
  return given[0] if alike else given
