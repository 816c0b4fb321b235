"""What training scripts put around weights: a checkpoint's other parts, and prefixes of the names.

{"epoch": 3, "state_dict": {"module._orig_mod.conv1.weight": ...}, "state_dict_ema": ..., "optimizer": ...}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmcontrast.errors import UserError, nearest
from mmcontrast.interop.torch_file import Other, Tensor, named_tensors

# Where the weights are that were trained; a file may have their average beside them.
_ORDINARY = ("state_dict", "model_state_dict", "model_state", "model", "module", "net", "network", "weights", "params")
_NO_WEIGHTS = ("optim", "sched", "scaler", "rng", "callback", "loops", "hyper", "loss", "criterion", "metric", "args")
_DEPTH = 3  # of tables within tables that are looked into
# Components that wrappers put into names, wherever: torch.compile, FSDP, activation checkpointing.
_ANYWHERE = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
# First components that say where a script kept the model; "module" is DistributedDataParallel's.
_HOLDERS = (
  "module",
  "model",
  "net",
  "network",
  "backbone",
  "encoder",
  "student",
  "teacher",
  "ema",
  "ema_model",
  "model_ema",
  "base_model",
  "online_encoder",
  "encoder_q",
  "momentum_encoder",
  "image_encoder",
)
_COUNTERS = ("n_averaged",)  # of torch's AveragedModel, beside "module."


def choose_table(tree: Any, where: str, weights: str = "") -> tuple[dict[str, Tensor | np.ndarray], str]:
  """The table of weights in a checkpoint of a training script.

  Args:
    tree: of `torch_file.load`, or the arrays of another file by name.
    where: the file, for messages.
    weights: which of several: the path of its keys ("state_dict_ema", "model/ema"), a first part of the names
      ("teacher"), or both ("teacher/backbone").
  Returns:
    (name -> tensor or array, a note of what was chosen among several, "" where there is no choice).
  Raises UserError when there is none, none of that name, or several of which none is the usual one.
  """
  found: dict[str, dict[str, Any]] = {}
  _collect(tree, "", found, _DEPTH)
  if len(found) > 1 and not any("." in name for name in found.get("", ())):
    found.pop("", None)  # numbers of a training, such as best_acc1
  if not found:
    raise UserError(f"{where}: not a table of tensors by name; save the state_dict of the model")
  chosen, note = _asked_for(found, where, weights) if weights else found, ""
  if len(chosen) > 1:
    usual = [path for name in ("", *_ORDINARY) for path in chosen if path.rpartition("/")[2] == name]
    if weights or not usual:
      several = ", ".join(f"{path} ({len(table)} arrays)" for path, table in chosen.items())
      raise UserError(f"{where}: holds several sets of weights: {several}; choose one: --weights {[*chosen][-1]}")
    others = [path for path in chosen if path != usual[0]]
    note = f"read {usual[0]!r}, not {', '.join(map(repr, others))}; to choose: --weights {others[0]}"
    chosen = {usual[0]: chosen[usual[0]]}
  table = next(iter(chosen.values()))
  for name, leaf in table.items():
    if not isinstance(leaf, Tensor | np.ndarray):
      raise UserError(
        f"{where}: {name!r} is made by {leaf.path}, which gives no plain numbers (sparse or quantised?); "
        "save it as a dense tensor"
      )
  return table, note


def unwrapped(arrays: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
  """`arrays` by their names without what wrappers put there, and a note where that is not DistributedDataParallel's.

  A first component is taken off only where all names have it.
  """
  plain, said = _renamed(arrays, {name: _without_wrappers(name) for name in arrays}), []
  while True:
    names = [name for name in plain if name not in _COUNTERS]
    first = {name.partition(".")[0] for name in names}
    if len(first) != 1 or first.isdisjoint(_HOLDERS) or not all("." in name for name in names):
      return dict(plain), f"names read without {'.'.join([*said, ''])!r}" if set(said) - {"module"} else ""
    said += first
    plain = {name.partition(".")[2]: plain[name] for name in names}


def under(arrays: Mapping[str, Any], prefix: str) -> dict[str, Any]:
  """The arrays whose names begin with `prefix`, by the rest of their names; wrappers may stand before and after it."""
  plain = {name: _without_wrappers(name) for name in arrays}
  while prefix.partition(".")[0] != "module" and all(name.startswith("module.") for name in plain.values()):
    plain = {name: short.removeprefix("module.") for name, short in plain.items()}
  return {
    short.removeprefix(f"{prefix}."): arrays[name] for name, short in plain.items() if short.startswith(f"{prefix}.")
  }


def _asked_for(found: Mapping[str, dict[str, Any]], where: str, weights: str) -> dict[str, dict[str, Any]]:
  """Those of the tables, or of the parts of them, that `--weights` may mean."""
  if named := {path: found[path] for path in found if weights in (path, path.rpartition("/")[2])}:
    return named
  parts = {
    f"{path}/{prefix}" if path else prefix: part
    for path, table in found.items()
    for prefix in {weights, weights.removeprefix(f"{path}/")}
    if (part := under(table, prefix))
  }
  if not parts:
    known = {name.partition(".")[0] for table in found.values() for name in unwrapped(table)[0] if "." in name}
    raise UserError(f"{where}: --weights {weights}: no such part; {nearest(weights, {*filter(None, found), *known})}")
  return parts


def under_which(arrays: Mapping[str, Any], names: Sequence[str]) -> list[str]:
  """The prefixes, such as "student", under which `arrays` have all of `names`."""
  ends = [other.removesuffix(f".{names[0]}") for other in arrays if other.endswith(f".{names[0]}")]
  return sorted(prefix for prefix in ends if all(f"{prefix}.{name}" in arrays for name in names))


def _collect(value: Any, path: str, found: dict[str, dict[str, Any]], depth: int) -> None:
  """Adds the tables of tensors in `value` to `found`, by the path of their keys."""
  if isinstance(value, Other) and value.state is not None and (table := named_tensors(value)):
    found[path] = table
    return
  if not isinstance(value, Mapping):
    return
  named = {key: leaf for key, leaf in value.items() if isinstance(key, str)}
  if table := {key: leaf for key, leaf in named.items() if isinstance(leaf, Tensor | np.ndarray) or _is_odd(leaf)}:
    found[path] = table
  for key, leaf in named.items() if depth else ():
    if not any(word in key.lower() for word in _NO_WEIGHTS) or key in _ORDINARY:
      _collect(leaf, f"{path}/{key}" if path else key, found, depth - 1)


def _is_odd(leaf: Any) -> bool:
  """Whether it is a tensor of a kind that is not read: sparse, quantised, of another device."""
  return isinstance(leaf, Other) and leaf.path.startswith("torch._utils._rebuild")


def _without_wrappers(name: str) -> str:
  return ".".join(word for word in name.split(".") if word not in _ANYWHERE)


def _renamed(arrays: Mapping[str, Any], names: Mapping[str, str]) -> Mapping[str, Any]:
  """`arrays` by their new names, unless two would get one."""
  return {names[name]: leaf for name, leaf in arrays.items()} if len({*names.values()}) == len(arrays) else arrays
