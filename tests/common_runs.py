"""Several configs trained in one run: those that differ by their terms, heads and hooks alone, with those of all of
them.

Two configs are of one family where all else that they are made of is the same, whatever its numbers are: towers,
views, data, augmentation, optimizer, branches, stages. A run of a family trains each head and each term that any of its
configs has, and runs each hook, so that nothing which a config names is left out, and compiles the towers once.
"""

import collections
import copy
import json
import math
import re
from collections.abc import Mapping
from typing import Any

MOST = 5  # configs of one run: the time to compile a step grows faster than its terms
_MERGED = ("heads", "objective", "epoch_hooks")
_APART = ("stages", "update_rule", "init")  # what names terms or heads: the same to the letter
_NOT_TRAINED = ("evaluation", "checkpoint", "log", "steps", "seed")


def families(configs: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
  """The names of `configs`, name -> resolved config as it would be trained, by family, of MOST at most."""
  found = collections.defaultdict(list)
  for name in sorted(configs):
    found[json.dumps(_family(configs[name]), sort_keys=True)].append(name)
  parts = ((names, math.ceil(len(names) / MOST)) for names in found.values())
  return [tuple(names[part::count]) for names, count in parts for part in range(count)]


def merged(configs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
  """One config with the heads, terms, hooks, views and known labels of all, which are of one family; the rest is the
  first's.

  A name that an earlier config gives to something else gets the config's own name before it, wherever it is said.
  """
  (_, first), *others = configs.items()
  first = copy.deepcopy(dict(first))
  for name, config in others:
    prefix = re.sub(r"\W+", "_", name)
    heads = {head: f"{prefix}_{head}" for head in _changed(config["heads"], first["heads"])}
    terms = {term: f"{prefix}_{term}" for term in config["objective"] if term in first["objective"]}
    renamed = _renamed(config["objective"], heads, terms)
    first["objective"] |= {terms.get(term, term): options for term, options in renamed.items()}
    hooks = _renamed(config["epoch_hooks"], heads, terms)
    first["epoch_hooks"] |= {f"{prefix}_{hook}": options for hook, options in hooks.items()}
    for head, options in config["heads"].items():
      first["heads"][heads.get(head, head)] = _head(options, heads)
    views = first["data"]["views"]
    first["data"]["views"] = {name: max(count, views[name]) for name, count in config["data"]["views"].items()}
    first["data"]["known_labels"] |= config["data"]["known_labels"]
  return first


def _family(config: Mapping[str, Any]) -> dict[str, Any]:
  kinds = {key: _kinds(of) for key, of in config.items() if key not in (*_MERGED, *_APART, *_NOT_TRAINED)}
  kinds["data"].pop("known_labels", None)  # which terms and hooks of a family may read
  apart = {key: config[key] for key in _APART if key in config}
  branches = "@momentum" in json.dumps(config["objective"])
  alone = (config["objective"], config["epoch_hooks"]) if config["stages"] else None
  return {**kinds, **apart, "momentum": kinds["momentum"] if branches else None, "objective": alone}


def _kinds(value: Any) -> Any:
  """A tree without its numbers: whether each is zero."""
  if isinstance(value, Mapping):
    return {key: _kinds(of) for key, of in value.items()}
  if isinstance(value, list | tuple):
    return [_kinds(of) for of in value]
  return value if value is None or isinstance(value, bool | str) else bool(value)


def _changed(heads: Mapping[str, Any], known: Mapping[str, Any]) -> set[str]:
  """The heads that are others than those of their names in `known`, or read such a head."""
  changed: set[str] = set()
  while True:
    more = {name for name, options in heads.items() if name in known and options != known[name]}
    more |= {name for name, options in heads.items() if changed & set(_others(options))}
    if more <= changed:
      return changed
    changed |= more


def _others(options: Mapping[str, Any]) -> list[str]:
  """The heads that a head names."""
  return [name for name in (options.get("of"), *(options.get("shared") or {}).values()) if name]


def _head(options: Mapping[str, Any], heads: Mapping[str, str]) -> dict[str, Any]:
  out = dict(options)
  if out.get("of"):
    out["of"] = heads.get(out["of"], out["of"])
  if out.get("shared"):
    out["shared"] = {part: heads.get(owner, owner) for part, owner in out["shared"].items()}
  return out


def _renamed(value: Any, heads: Mapping[str, str], terms: Mapping[str, str], key: str = "") -> Any:
  if isinstance(value, Mapping):
    return {key: _renamed(of, heads, terms, key) for key, of in value.items()}
  if isinstance(value, list | tuple):
    return [_renamed(of, heads, terms, key) for of in value]
  if isinstance(value, str) and "/" in value:  # image[0]/image_joint@momentum
    view, _, node = value.rpartition("/")
    head, at, branch = node.partition("@")
    view = re.sub(r"~(\w+)", lambda drawn: f"~{terms.get(drawn[1], drawn[1])}", view)  # drawn by a term's scores
    return f"{view}/{heads.get(head, head)}{at}{branch}"
  return terms.get(value, value) if isinstance(value, str) and key != "name" else value
