"""Configs: load a file, apply overrides, resolve, check every key, compare two.

A config is made by `get_config(arg)` in a Python file (config_files.py), as an
`ml_collections.ConfigDict` that starts from `base_config()`: every key of the program with its
default. A key that is not there is an error that names the nearest one. The program sees it as
plain dictionaries.
"""

from __future__ import annotations

import copy
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from mmcontrast import config_files
from mmcontrast.data.settings import DEFAULTS as DATA_DEFAULTS
from mmcontrast.errors import UserError, choose, nearest
from mmcontrast.overrides import PREFIX, at_least, fits, keys_of, override, parse, shown
from mmcontrast.stages import resolve

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
  "augment",
  "optimizer",
  "init",
  "update_rule",
  "evaluation.evaluators",
  "evaluation.data",
  "data.views",
  "data.crop",
  "data.source",
  "data.mixture",
)


def base_config() -> ml_collections.ConfigDict:
  """Every key of the program with its default."""
  c = ml_collections.ConfigDict()
  c.seed = 0
  c.steps = 1000  # optimizer steps of the run, or of each stage that gives none
  c.epochs = 0.0  # instead of steps: passes over the data; 0: steps are given
  c.stages = ()  # partial configs, each with a name, trained in turn: stages.py
  c.init = dict()  # part of this run -> "STAGE:PATH" or "WORKDIR:PATH": initialization.py
  # size: examples a step, over all devices. microbatches: chunks they are encoded in, to save
  # memory; loss and gradients stay those of the whole batch (microbatches.py).
  c.batch = dict(size=256, microbatches=1)
  c.data = dict(DATA_DEFAULTS)
  # A recipe (name or dict) for each view, or one for all of them; image_small: of data.multi_crop's.
  c.augment = dict(image="moco_v2")
  c.normalize = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
  c.towers = dict()  # name -> encoder options
  c.heads = dict()  # name -> dict(tower=..., name="mlp"|"linear", dim=...)
  # update: "before_keys" (MoCo) or "after_step" (BYOL). decay: number or schedule.
  c.momentum = dict(decay=0.999, update="before_keys")
  c.objective = dict()  # term name -> query, key, score, target, criterion, ...
  # How the gradients of terms become one: "sum", or "project_conflicts" on parameters that `on` matches.
  c.update_rule = dict(name="sum")
  c.matrix = dict(impl="auto", tile=512)
  c.optimizer = dict(name="adamw", learning_rate=1e-3, weight_decay=0.05)
  c.lora = dict(targets="", rank=8, alpha=16.0)  # a regex of paths, "" for none: lora.py
  # An average of the weights, which evaluation and all who load the run use. decay: number or schedule; 0: none.
  c.ema = dict(decay=0.0)
  c.mesh = dict(data=-1, fsdp=1, tensor=1)  # axis -> devices; -1 takes what is left
  c.sharding = "dp"  # "dp", "fsdp", "fsdp_tp"; `with c.ignore_type():` a list of (regex, cut)
  # mode: "auto" (TPU pod, SLURM or MMCONTRAST_COORDINATOR found), "on" or "off".
  # start_timeout_seconds: until all processes have started. timeout_seconds: of silence, then a process is lost.
  c.distributed = dict(
    mode="auto", coordinator="", processes=0, process_id=-1, timeout_seconds=300, start_timeout_seconds=300
  )
  # best_metric: of the training step, or of an evaluation ("SET/image_to_text/recall@1").
  # best_mode: "min" or "max" of it; "auto": the largest of recall, accuracy, precision and top-k, else the smallest.
  # changed_data: what happens when a run goes on with other data than it began with, "refuse" or "accept".
  c.checkpoint = dict(
    every_steps=500, keep_last=1, keep_best=1, best_metric="loss", best_mode="auto", changed_data="refuse"
  )
  # image/text: the heads whose space is searched; features: the tower that probes look at.
  # optional_sets: left out, with a line that says so, when they are not built.
  # data: your own sets, name -> dict(dataset=, source=, split=, style=); docs/data.md.
  c.evaluation = dict(
    sets=(),
    train_sets=(),
    optional_sets=(),
    data=dict(),
    evaluators=dict(),
    image="",
    text="",
    features="image",
    batch_size=256,
    every_steps=0,
  )
  # watchdog_seconds: a read or a step that takes longer ends the process (watchdog.py); 0: never.
  c.log = dict(every_steps=50, watchdog_seconds=600.0)
  return c


def smoke(c: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """The same method, small enough to train and evaluate in seconds on a CPU."""
  c.steps, c.epochs, c.batch.size = 3, 0, 16
  c.data.image_size = 16
  c.log.every_steps = 1
  _shrink(c)
  stages = [ml_collections.ConfigDict(_dictionaries(stage)) for stage in c.stages]
  for stage in stages:
    stage.steps = c.steps
    if "epochs" in stage:
      stage.epochs = 0.0
    for section, key in (("batch", "size"), ("data", "image_size"), ("log", "every_steps")):
      if key in stage.get(section, {}):
        stage[section][key] = c[section][key]
    _shrink(stage)
  c.stages = tuple(stage.to_dict() for stage in stages)
  return c


def sized(c: ml_collections.ConfigDict, arg: str | None) -> ml_collections.ConfigDict:
  """`c` without an argument, its `smoke` for the argument "smoke"; raises UserError for any other."""
  if arg is not None:
    choose(arg, ("smoke",), "the argument after the colon")
  return c if arg is None else smoke(c)


def arguments(arg: str | None, **defaults: Any) -> ml_collections.ConfigDict:
  """The arguments of a config, "image_size=224,smoke": by name, over `defaults`; a name without a value is True.

  Raises UserError for an unknown name, or a value of another type than the default's.
  """
  found = ml_collections.ConfigDict(defaults)
  for word in filter(None, (arg or "").split(",")):
    name, equals, text = word.partition("=")
    choose(name, defaults, "the argument after the colon")
    if not equals and not isinstance(defaults[name], bool):
      raise UserError(f"the argument {name!r} after the colon: needs a value, such as {name}={defaults[name]!r}")
    override(found, name, text if equals else "True", defaults, prefix="the argument ", where="this config")
  return found


def _shrink(c: ml_collections.ConfigDict) -> None:
  """Small towers and queues, and no warm-up, in the sections that `c` has."""
  for tower in c.get("towers", {}).values():
    # Heads of attention divide the width; a ResNet has none.
    tower.width = 16 if "heads" in tower else 8
    tower.update({key: value for key, value in (("depth", 1), ("heads", 2)) if key in tower})
    if tower.name.startswith(("resnet", "clip_resnet", "convnext")):
      tower.stages = (1,)
  for term in c.get("objective", {}).values():
    if ":" in term.get("negatives", ""):
      term.negatives = term.negatives.split(":")[0] + ":32"
  rate = c.get("optimizer", {}).get("learning_rate", 0.0)
  warm_up = [] if isinstance(rate, float) else [key for key in rate if key.startswith("warmup_")]
  for key in warm_up:
    del rate[key]
    rate.warmup_steps = 1


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
  found = _completed(_dictionaries(config), base)
  words = parse(overrides, flatten(found))
  whole = [pair for pair in words if not pair[0].startswith("stages.")]
  if whole:  # on a copy of what was given, in which values may be shared
    made = ml_collections.ConfigDict(_dictionaries(config)) if isinstance(config, Mapping) else copy.deepcopy(config)
    for key, text in whole:
      override(made, key, text, base, where=where)
    found = _completed(_dictionaries(made), base)
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
    stages[stage][changed] = _dictionaries(run)[changed]
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


def flatten(config: Mapping, prefix: str = "") -> dict[str, Any]:
  """{"batch.size": 256, ...}: one entry a leaf."""
  flat = {}
  for key, value in config.items():
    if isinstance(value, Mapping):
      flat.update(flatten(value, f"{prefix}{key}."))
    else:
      flat[f"{prefix}{key}"] = value
  return flat


def to_json(config: Mapping) -> str:
  """The resolved config as sorted, indented JSON: what travels in a checkpoint."""
  return json.dumps(_plain(config), indent=1, sort_keys=True) + "\n"


def from_json(text: str) -> dict[str, Any]:
  """Inverse of `to_json`; lists come back as tuples."""
  return _tuples(json.loads(text))


def check_same_run(saved: Mapping, given: Mapping, workdir: str | pathlib.Path, free: Sequence[str] = ()) -> None:
  """Raises UserError when `given` would turn the run saved in `workdir` into another one.

  Args:
    free: keys that may differ in addition to RESUMABLE_CHANGES.
  """
  known = flatten(base_config().to_dict())  # a key that is younger than the checkpoint had its default
  old, new = {**known, **flatten(_plain(saved))}, {**known, **flatten(_plain(given))}
  for key in sorted(old.keys() | new.keys()):
    resumes = any(f"{key}.".startswith(f"{name}.") for name in (*RESUMABLE_CHANGES, *free))
    if not resumes and old.get(key) != new.get(key):
      raise UserError(
        f"{workdir}: its checkpoint is from another config: config.{key} was {old.get(key)!r}, now "
        f"{new.get(key)!r}; give another --workdir, or the old value to resume"
      )


def _dictionaries(value: Any) -> Any:
  """`value` with every ConfigDict in it, those in tuples too, as a dictionary; paths and numpy's numbers as JSON's."""
  if hasattr(value, "items"):
    return {key: _dictionaries(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return tuple(_dictionaries(item) for item in value)
  if isinstance(value, np.generic):
    return value.item()
  return str(value) if isinstance(value, pathlib.PurePath) else value


def _plain(value: Any) -> Any:
  if isinstance(value, Mapping):
    return {key: _plain(item) for key, item in value.items()}
  if isinstance(value, (list, tuple)):
    return [_plain(item) for item in value]
  return value


def _tuples(value: Any) -> Any:
  if isinstance(value, dict):
    return {key: _tuples(item) for key, item in value.items()}
  return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
