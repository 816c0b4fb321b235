"""Configs: load a file, apply overrides, resolve, check every key, compare two.

A config is made by `get_config(arg)` in a Python file (config_files.py), as an
`ml_collections.ConfigDict` that starts from `base_config()`: every key of the program with its
default. A key that is not there is an error that names the nearest one. The program sees it as
plain dictionaries.
"""

from __future__ import annotations

import copy
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from mmcontrast.config import config_files
from mmcontrast.config.defaults import base_config
from mmcontrast.config.earlier import of_today
from mmcontrast.config.overrides import PREFIX, at_least, fits, keys_of, override, parse, shown
from mmcontrast.config.stages import resolve
from mmcontrast.config.text import dictionaries, flatten, plain
from mmcontrast.errors import UserError, nearest

# What a run may change when it resumes; everything else would make it another run.
RESUMABLE_CHANGES = (
  "checkpoint",
  "evaluation",
  "log",
  "mesh",
  "matrix",
  "sharding",
  "distributed",
  "batch.microbatches",
  "data.on_error",
  "data.read",
  "data.cache",
  "data.resize",
)
# Sections whose keys are names chosen by the user, or options checked by the room they belong to.
_OPEN_SECTIONS = (
  "towers",
  "heads",
  "objective",
  "epoch_hooks",
  "augment",
  "optimizer",
  "init",
  "update_rule",
  "evaluation.evaluators",
  "evaluation.data",
  "data.views",
  "data.known_labels",
  "data.crop",
  "data.source",
  "data.mixture",
)


def load_config(path: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
  """Runs `get_config` of the config that `path` means, once, and applies overrides.

  Args:
    path: the config file, "mine.py", or a config of the package, "methods/clip" or "clip", with an optional argument
      after a colon, "clip:smoke".
    overrides: command-line words such as "--config.batch.size=64", or, in one stage only,
      "--config.stages.NAME.batch.size=64"; any option that exists can be given (overrides.py). A key that a stage
      gives itself is the stage's.
  Returns:
    The resolved and checked config, as nested dictionaries.
  Raises UserError when the file is missing or fails, or a key is unknown.
  """
  made = config_files.run(path)
  if not isinstance(made, Mapping | ml_collections.ConfigDict):
    raise UserError(f"{path}: get_config returned {type(made).__name__}; it must return the config, as a ConfigDict")
  return overridden(made, overrides, path)


def overridden(
  config: Mapping[str, Any] | ml_collections.ConfigDict, overrides: Sequence[str] = (), where: str = "the config"
) -> dict[str, Any]:
  """`config` as nested dictionaries, with overrides carried out, every default written out, and its keys checked.

  Args:
    config: of whole or part; what it does not give is as in `base_config`. It is not changed.
    overrides: as of `load_config`.
    where: whose config it is, for messages.
  """
  if not isinstance(config, Mapping | ml_collections.ConfigDict):
    hint = f"; load it by mmcontrast.load_config({config!r})" if isinstance(config, str) else ""
    raise UserError(f"{where} is a {type(config).__name__}, {shown(config)}, not a mapping{hint}")
  base = base_config().to_dict()
  found = _completed(dictionaries(config), base)
  words = parse(overrides, flatten(found))
  whole = [pair for pair in words if not pair[0].startswith("stages.")]
  if whole:  # on a copy of what was given, in which values may be shared
    made = ml_collections.ConfigDict(dictionaries(config)) if isinstance(config, Mapping) else copy.deepcopy(config)
    for key, text in whole:
      override(made, key, text, base, where=where)
    found = _completed(dictionaries(made), base)
  for key, _ in whole:
    _check_effect(key, found)
  found = _override_stages(found, [pair for pair in words if pair not in whole], base, where)
  for name, run in resolve(found).items():
    check_keys(run, where=f"{where}, stage {name}" if name else where)
  return found


def _completed(config: Mapping[str, Any], base: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """`config` with the defaults of the keys that it leaves out, in the sections whose keys are the program's."""
  missing = {key: value for key, value in base.items() if key not in config}
  return missing | {
    key: _completed(value, base[key], f"{prefix}{key}.")
    if isinstance(value, Mapping) and isinstance(base.get(key), Mapping) and f"{prefix}{key}" not in _OPEN_SECTIONS
    else value
    for key, value in config.items()
  }


def _check_effect(key: str, config: Mapping) -> None:
  """Raises UserError when every stage gives the overridden key itself."""
  runs, path = resolve(config), keys_of(key)
  if key != "stages" and all(_at(run, path) != _at(config, path) for run in runs.values()):
    raise UserError(f"{PREFIX}{key}: every stage gives its own; override {PREFIX}stages.{next(iter(runs))}.{key}")


def _at(config: Any, path: Sequence[str]) -> Any:
  """What stands at `path`; None where nothing does."""
  for key in path:
    if isinstance(config, list | tuple):
      config = config[int(key.strip("[]"))] if int(key.strip("[]")) < len(config) else None
    else:
      config = config.get(key) if isinstance(config, Mapping) else None
  return config


def _override_stages(
  config: dict[str, Any], pairs: Sequence[tuple[str, str]], base: Mapping[str, Any], where: str
) -> dict[str, Any]:
  """`config` with overrides such as ("stages.align.batch.size", "64") carried out."""
  stages = {stage: dict(given) for stage, given in zip(resolve(config), config["stages"])}
  for whole, text in pairs:
    _, stage, key = (*whole.split(".", 2), "", "")[:3]
    if stage not in stages or not key:
      if not stages:
        raise UserError(f"{PREFIX}{whole}: {where} has no stages; leave out 'stages.{stage}'")
      raise UserError(
        f"{PREFIX}{whole}: {where} has no stage {stage!r}; {nearest(stage, stages)}; "
        f"overrides of one look like {PREFIX}stages.{next(iter(stages))}.batch.size=64"
      )
    run = ml_collections.ConfigDict(resolve({**config, "stages": tuple(stages.values())})[stage])
    override(run, key, text, base, prefix=f"{PREFIX}stages.{stage}.", where=where)
    changed = keys_of(key)[0]
    stages[stage][changed] = dictionaries(run)[changed]
  return {**config, "stages": tuple(stages.values())}


def check_keys(config: Mapping, where: str) -> None:
  """Raises UserError on a key that `base_config` does not have, naming the nearest, or a value of another type."""
  _check_section(config, base_config().to_dict(), "", where)


def _check_section(section: Mapping, known: Mapping, prefix: str, where: str) -> None:
  for key in section:
    path = f"{prefix}{key}"
    if key not in known:
      raise UserError(f"{where}: unknown key config.{path}; {nearest(key, known)}")
    if isinstance(known[key], Mapping) and path not in _OPEN_SECTIONS:
      if not isinstance(section[key], Mapping):
        raise UserError(f"{where}: config.{path} must be a mapping, not {section[key]!r}")
      _check_section(section[key], known[key], f"{path}.", where)
    elif path not in _OPEN_SECTIONS and not fits(path, section[key], known[key]):
      raise UserError(
        f"{where}: config.{path}: {section[key]!r} is not valid; give a value like its "
        f"default, {known[key]!r}{at_least(path)}"
      )


def check_same_run(saved: Mapping, given: Mapping, workdir: str | pathlib.Path, free: Sequence[str] = ()) -> None:
  """Raises UserError when `given` would turn the run saved in `workdir` into another one.

  Args:
    free: keys that may differ in addition to RESUMABLE_CHANGES.
  """
  known = flatten(plain(base_config().to_dict()))  # a key that is younger than the checkpoint had its default
  old, new = ({**known, **flatten(plain(of_today(plain(one))))} for one in (saved, given))
  for key in sorted(old.keys() | new.keys()):
    resumes = any(f"{key}.".startswith(f"{name}.") for name in (*RESUMABLE_CHANGES, *free))
    if not resumes and old.get(key) != new.get(key):
      raise UserError(
        f"{workdir}: its checkpoint is from another config: config.{key} was {old.get(key)!r}, now "
        f"{new.get(key)!r}; give another --workdir, or the old value to resume"
      )
