"""What a config starts from, every key of the program with its default, and the small form of any config."""

from __future__ import annotations

import copy
from typing import Any

import ml_collections

from mmcontrast.config.overrides import override
from mmcontrast.config.text import dictionaries
from mmcontrast.data import settings as data_settings
from mmcontrast.errors import UserError, choose


def base_config() -> ml_collections.ConfigDict:
  """Every key of the program with its default."""
  from mmcontrast.modalities import MODALITIES  # takes seconds

  c = ml_collections.ConfigDict()
  c.seed = 0
  c.steps = 1000  # optimizer steps of the run, or of each stage that gives none
  c.epochs = 0.0  # instead of steps: passes over the data; 0: steps are given
  c.stages = ()  # partial configs, each with a name, trained in turn: stages.py
  c.init = dict()  # part of this run -> "STAGE:PATH" or "WORKDIR:PATH": initialization.py
  # size: examples a step, over all devices. microbatches: chunks they are encoded in, to save
  # memory; loss and gradients stay those of the whole batch (microbatches.py).
  c.batch = dict(size=256, microbatches=1)
  c.data = data_settings.defaults()
  # A recipe (name or dict) for each view, or one for all of them; image_small: of data.multi_crop's.
  c.augment = {name: modality.recipe for name, modality in MODALITIES.items() if modality.recipe}
  for modality in MODALITIES.values():
    c.update(copy.deepcopy(dict(modality.sections)))
  c.towers = dict()  # name -> encoder options
  c.heads = dict()  # name -> dict(tower=..., name="mlp"|"linear", dim=...)
  # update: "before_keys" (MoCo) or "after_step" (BYOL). decay: number or schedule.
  c.momentum = dict(decay=0.999, update="before_keys")
  c.objective = dict()  # term name -> query, key, score, target, criterion, ...
  # name -> dict(name=, every_epochs=, ...): what is computed between epochs, clusters for instance: docs/nodes.md.
  c.epoch_hooks = dict()
  # How the gradients of terms become one: "sum", or "project_conflicts" on parameters that `on` matches.
  c.update_rule = dict(name="sum")
  c.matrix = dict(impl="auto", tile=0, precision="highest")  # tile: rows; 0: as the platform likes
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
  # image, text, ...: of each modality the head whose space is searched; features: the tower that probes look at.
  # width: how many of the first numbers of the joint space are compared, one that `matryoshka` trained; 0: all.
  # optional_sets: left out, with a line that says so, when they are not built.
  # data: your own sets, name -> dict(dataset=, source=, split=, style=); docs/data.md.
  c.evaluation = dict(
    sets=(),
    train_sets=(),
    optional_sets=(),
    data=dict(),
    evaluators=dict(),
    **dict.fromkeys(MODALITIES, ""),
    features="image",
    width=0,
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
  stages = [ml_collections.ConfigDict(dictionaries(stage)) for stage in c.stages]
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
  from mmcontrast.encoders import ENCODERS, complete  # takes seconds

  towers = [tower for tower in c.get("towers", {}).values() if not tower.get("same_as")]
  for tower in (*towers, *(tower.of for tower in towers if "name" in tower.get("of", ()))):
    if tower.name not in ENCODERS or "width" in complete(tower):
      # Heads of attention divide the width; a ResNet has none.
      tower.width = 16 if "heads" in tower else 8
    tower.update({key: value for key, value in (("depth", 1), ("heads", 2)) if key in tower})
    if tower.name.startswith(("resnet", "clip_resnet", "convnext")):
      tower.stages = (1,)
  for term in c.get("objective", {}).values():
    if ":" in term.get("negatives", ""):
      term.negatives = term.negatives.split(":")[0] + ":16"
  for hook in c.get("epoch_hooks", {}).values():
    hook.first_epoch = 0
  rate = c.get("optimizer", {}).get("learning_rate", 0.0)
  warm_up = [] if isinstance(rate, float) else [key for key in rate if key.startswith("warmup_")]
  for key in warm_up:
    del rate[key]
    rate.warmup_steps = 1
