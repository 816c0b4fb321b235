"""What a finished run is evaluated on: its own `config.evaluation`, or a source, changed by overrides."""

from __future__ import annotations

import json
import pathlib
import posixpath
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mmcontrast.config import from_json, overridden
from mmcontrast.config.overrides import PREFIX
from mmcontrast.data.evaluation_set import SETS, open_configured_set
from mmcontrast.data.sources import Info
from mmcontrast.data.sources.emoji import open_built
from mmcontrast.errors import UserError, note
from mmcontrast.evaluation.defaults import evaluators_for
from mmcontrast.evaluation.zero_shot import PROMPTS
from mmcontrast.inference import Inference
from mmcontrast.modalities import MODALITIES

_SECTION = f"{PREFIX}evaluation."
_EVALUATORS = f"{_SECTION}evaluators"


class Measured:
  """A source that is evaluated on, with a training set of it or without.

  Opening it says what is wrong with it before a model is loaded. Raises UserError as `open_source`.

  Attributes:
    name: of the set, in results and in the names of files.
    section: `sets`, `train_sets` and `data` of an evaluation section.
    info: of the source.
    has_splits: whether there can be a training set of it.
  """

  def __init__(
    self,
    dataset: str,
    options: Mapping | None = None,
    split: str | None = None,
    train_split: str | None = None,
    data_dir: str | None = None,
  ):
    self.name, self.info = dataset.replace(":", "_"), Info("", (), (), {})
    self.section: dict[str, Any] = {"sets": (dataset,), "train_sets": (), "optional_sets": (), "data": {}}
    kind = dataset.partition(":")[0]
    self.has_splits = kind not in SETS
    if kind in SETS:
      if options or split or train_split:
        raise UserError(f"{dataset}: is a whole evaluation set; leave out --split, --train_split and --source")
      self.info = open_built(kind, "all", data_dir).info
      return
    self.name = set_name(dataset, split)
    sets = {self.name: {"dataset": dataset, "source": dict(options or {}), "split": split or "all"}}
    if train_split is not None:
      bank = set_name(dataset, train_split)
      if bank == self.name or train_split == split:
        raise UserError(f"--train_split {train_split}: is what is evaluated; give another --split")
      sets[bank] = {**sets[self.name], "split": train_split}
    for name, given in sets.items():
      try:
        found = open_configured_set(name, given, {}, data_dir).info
      except UserError as error:
        parted = "{split}" in dataset or kind == "coco"
        hint = "; --split says which part is evaluated, such as --split val" if parted and split is None else ""
        raise type(error)(f"{str(error).removeprefix(f'evaluation.data.{name}: ')}{hint}") from None
      self.info = found if name == self.name else self.info
    self.section |= {"sets": (self.name,), "train_sets": tuple(sets)[1:], "data": sets}

  @property
  def modalities(self) -> list[str]:
    """Those that its examples have."""
    named = [PROMPTS] if self.info.concepts else []
    return [one for one, modality in MODALITIES.items() if modality.columns(self.info) or one in named]


def set_name(dataset: str, split: str | None = None) -> str:
  """What a source is called in results: "flowers_val" of "folder:/data/flowers/{split}" and "val"."""
  kind, _, path = dataset.partition(":")
  parts = [posixpath.splitext(part)[0] if not part.startswith("{") else "" for part in path.split("/")]
  plain = [part for part in parts if part and not set(part) & set("{}*?[]") and part != ".."]
  stem = re.sub(r"[^\w.-]+", "_", plain[-1] if plain else kind).strip("_.") or kind
  name = stem if split in (None, "all") else f"{stem}_{split}"
  return f"{name}_set" if name in SETS else name


def saved_section(folder: pathlib.Path, config: Mapping[str, Any]) -> Mapping[str, Any]:
  """The evaluation section that a run was last trained with: of its config.json, else of its checkpoint."""
  try:
    return {**config["evaluation"], **from_json((folder / "config.json").read_text())["evaluation"]}
  except (OSError, ValueError, KeyError, TypeError):
    return config["evaluation"]


def check_words(overrides: Sequence[str]) -> None:
  """Raises UserError for a word that is no override of an evaluation section."""
  for word in overrides:
    if not word.startswith(_SECTION):
      raise UserError(
        f"unexpected argument {word!r}; evaluate changes config.evaluation only, as in "
        f"{_EVALUATORS}.zero_shot.label=class, and options of a source look like --source.caption=alt"
      )


def revise(
  model: Inference,
  section: Mapping[str, Any],
  measured: Measured | None = None,
  overrides: Sequence[str] = (),
  workdir: str | pathlib.Path = "",
) -> Inference:
  """`model` with another evaluation section.

  Args:
    section: the run's own.
    measured: what is evaluated instead of the sets of `section`; evaluators then are those that suit it.
    overrides: words such as "--config.evaluation.batch_size=64", carried out on top.
    workdir: the run, for messages.
  Raises UserError: another word; an option that is not known; nothing to evaluate, or to evaluate by.
  """
  of_evaluators = [word for word in overrides if word.startswith(_EVALUATORS)]
  section = {**section, **({**measured.section, "evaluators": {}} if measured else {})}
  section = _overridden(section, [word for word in overrides if word not in of_evaluators], workdir)
  model = Inference({**model.config, "evaluation": section}, model.model, model.variables, model.tokenizer, model.step)
  left_out: list[str] = []
  if measured:
    found, left_out = evaluators_for(
      modalities=measured.modalities,
      labels=measured.info.label_names,
      tags=bool(measured.info.tag_names),
      space=model.space,
      tokens=model.compares_tokens,
      bank=bool(section["train_sets"]) if measured.has_splits else None,
    )
    section = {**section, "evaluators": found}
  section = _overridden(section, of_evaluators, workdir)
  model.config = {**model.config, "evaluation": section}
  if not section["sets"]:
    raise UserError(
      f"{workdir}: config.evaluation.sets is empty, there is nothing to measure; name what to evaluate "
      f"on, as in mmcontrast evaluate 'folder:/data/{{split}}' --split val --workdir {workdir}"
    )
  if not section["evaluators"]:
    what = f"{workdir}: nothing to evaluate {', '.join(section['sets'])} by"
    if left_out and not of_evaluators:
      raise UserError(f"{what}: {'; '.join(left_out)}")
    raise UserError(
      f"{what}: config.evaluation.evaluators is empty; choose some, as in {_EVALUATORS}=\"{{'retrieval': {{}}}}\""
    )
  if measured:
    left_out = [line for line in left_out if line.split()[0] not in section["evaluators"]]  # an override gave it
    note(
      f"evaluated by {', '.join(sorted(section['evaluators']))}, by what {measured.name} has"
      + "".join(f"; {line}" for line in left_out)
    )
  return model


def _overridden(section: Mapping[str, Any], words: Sequence[str], workdir: str | pathlib.Path) -> dict[str, Any]:
  return overridden({"evaluation": dict(section)}, words, str(workdir))["evaluation"] if words else dict(section)


def say_change(folder: pathlib.Path, config: Mapping[str, Any]) -> str:
  """A line where a run is trained on with another evaluation section than before; "" where it is the same."""
  try:
    before = json.loads((folder / "config.json").read_text())["evaluation"]
  except (OSError, ValueError, KeyError, TypeError):
    return ""
  now = json.loads(json.dumps(config["evaluation"]))
  changed = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
  keys = ", ".join(f"config.evaluation.{key}" for key in changed)
  return f"{keys} changed: `mmcontrast evaluate` uses what is given now" if changed else ""
