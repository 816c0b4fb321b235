"""Configs: what they start from, how a file becomes one, overrides, stages, and what any section may hold.

A config file needs `base_config` and `sized` (or `arguments` and `smoke`); `load_config` makes one from a file or a
name and overrides.
"""

from mmcontrast.config.defaults import arguments, base_config, sized, smoke
from mmcontrast.config.load import check_keys, check_same_run, load_config, overridden
from mmcontrast.config.text import flatten, from_json, to_json

__all__ = [
  "arguments",
  "base_config",
  "check_keys",
  "check_same_run",
  "flatten",
  "from_json",
  "load_config",
  "overridden",
  "sized",
  "smoke",
  "to_json",
]
