"""Stages: a run as a list of runs, one after the other, each in a folder of its own.

    c.stages = (
        dict(name="image", steps=1000, towers=..., heads=..., objective=...),
        dict(name="align", steps=800, init={"towers/image": "image:towers/image"},
             optimizer=dict(frozen=("towers/image/.*",))))

A stage is a partial config, laid over the config that contains it: a section of REPLACED that it gives
replaces the config's; of any other section, the keys that it gives replace those
keys. It starts at step 0 with parameters, optimizer, queues and data of its own; what it takes over
from an earlier stage, `init` says (initialization.py).
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mmcontrast import folders
from mmcontrast.errors import UserError, nearest, one_line

REPLACED = ("towers", "heads", "objective", "init", "update_rule", "epoch_hooks")
"""Sections whose keys are names of the user's, or options of a name: one too many would be another method."""
_OF_THE_WHOLE = ("stages", "distributed")


def resolve(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
  """The runs that `config` is made of, in order: stage name -> its config, which has no stages.

  A config without stages is one run of the name "". Raises UserError for a stage without a name
  of its own, or one that gives a section which configs do not have.
  """
  base = {key: value for key, value in config.items() if key != "stages"}
  if not isinstance(config.get("stages", ()), (tuple, list)):
    raise UserError(
      f"config.stages: a list of dicts such as (dict(name='pretrain', steps=500), ...), not {config['stages']!r}"
    )
  runs: dict[str, dict[str, Any]] = {}
  for number, stage in enumerate(config.get("stages", ())):
    name = stage.get("name", "") if isinstance(stage, Mapping) else ""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][\w-]*", name):
      raise UserError(
        f"config.stages[{number}]: a stage is a dict with a name of letters, digits, '_' and '-', "
        "which names its folder"
      )
    if name in runs:
      raise UserError(f"config.stages[{number}]: the name {name!r} is an earlier stage's; give it another")
    runs[name] = _laid_over(base, stage)
  return runs or {"": base}


def _laid_over(base: Mapping[str, Any], stage: Mapping[str, Any]) -> dict[str, Any]:
  run, where = dict(base), f"config.stages.{stage['name']}"
  known = sorted(base.keys() - set(_OF_THE_WHOLE))
  for key, value in stage.items():
    if key == "name":
      continue
    if key not in known:
      raise UserError(f"{where}: a stage has no key {key!r}; {nearest(key, known)}")
    if isinstance(base[key], Mapping) != isinstance(value, Mapping):
      raise UserError(
        f"{where}.{key}: {'a mapping' if isinstance(base[key], Mapping) else 'one value'} is needed, not {value!r}"
      )
    run[key] = {**base[key], **value} if isinstance(value, Mapping) and key not in REPLACED else value
  return run


@contextlib.contextmanager
def errors_of(name: str) -> Iterator[None]:
  """Within it, a UserError says that it is of the stage `name` ("": of no stage)."""
  try:
    yield
  except UserError as error:
    raise (UserError(f"stage {name!r}: {error}") if name else error) from None


def run_folder(workdir: str | pathlib.Path) -> pathlib.Path:
  """Where the model of `workdir` is: there, or in the folder of the last stage of a run of stages."""
  workdir = folders.at(workdir, "--workdir")
  names = stages_in(workdir)
  return workdir / names[-1] if names else workdir


def stages_in(workdir: str | pathlib.Path) -> list[str]:
  """The names of the stages that were trained into `workdir`, in order; none for a run without."""
  file = folders.at(workdir, "--workdir") / "config.json"
  if not file.is_file():
    return []
  try:
    return [stage["name"] for stage in json.loads(file.read_text()).get("stages", ())]
  except (ValueError, AttributeError, TypeError, KeyError) as error:  # of a full disk, or edited by hand
    raise UserError(
      f"{file}: damaged ({one_line(error, 80)}); remove it, and run the training command again, which writes it anew"
    ) from None
