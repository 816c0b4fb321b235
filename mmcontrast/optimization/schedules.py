"""Schedules: numbers that change with the step, from a number or a small mapping.

Learning rates, loss weights and EMA decays are all written the same way:

    0.1
    dict(name="cosine", init=0.996, end=1.0)                             # BYOL's EMA decay
    dict(name="warmup_cosine", peak=1e-3, warmup_epochs=10)              # a learning rate
    dict(name="linear", init=0.0, end=1.0, begin_epochs=5, epochs=10)    # a loss weight's ramp

Without "steps" or "epochs" a schedule ends with the run. Before `begin` it stays at
its first value, after its end at its last one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmcontrast.errors import UserError, choose, nearest
from mmcontrast.registry import REQUIRED, check_options

Schedule = Callable[[Any], jax.Array]
"""From a step (int or traced int32 scalar) to a float32 scalar."""

_LENGTHS = ("begin", "warmup", "")  # Each in steps ("warmup_steps") or in epochs.

# name -> (values that must be given, values with a default)
SCHEDULES: dict[str, tuple[tuple[str, ...], dict[str, float]]] = {
  "constant": (("value",), {}),
  "linear": (("init",), {"end": 0.0}),
  "cosine": (("init",), {"end": 0.0}),
  "warmup_constant": (("peak",), {"init": 0.0}),
  "warmup_linear": (("peak",), {"init": 0.0, "end": 0.0}),
  "warmup_cosine": (("peak",), {"init": 0.0, "end": 0.0}),
}


def options_of(name: str) -> dict[str, Any]:
  """The options of the schedule `name`, `name` aside, and their defaults (`REQUIRED`: required; None:
  not limited); none for what is no schedule."""
  if name not in SCHEDULES:
    return {}
  required, defaults = SCHEDULES[name]
  lengths = [] if name == "constant" else ["begin", ""]
  lengths += ["warmup"] if name.startswith("warmup_") else []
  in_units = [f"{key}_{unit}".lstrip("_") for key in lengths for unit in ("steps", "epochs")]
  return {**dict.fromkeys(required, REQUIRED), **defaults, **dict.fromkeys(in_units)}


def make_schedule(
  spec: float | Mapping[str, Any],
  total_steps: int,
  steps_per_epoch: int | None = None,
  where: str = "schedule",
  within: tuple[float, float] = (-math.inf, math.inf),
) -> Schedule:
  """Builds `fn(step) -> float32 scalar`.

  Args:
    spec: a number (constant), or a mapping with "name", one of SCHEDULES, and that
      schedule's values: "init", "peak" (reached after the warm-up), "end", "value".
      Lengths are in steps or, for fractions of the data, epochs: "warmup_steps",
      "begin_steps" (wait before anything moves), "steps" (from begin to end, warm-up
      included; the rest of the run by default), and the same with "epochs".
    total_steps: steps of the whole run.
    steps_per_epoch: what an epoch is; None where epochs have no meaning.
    where: the config path, for error messages.
    within: the least and the greatest value that make sense.

  Raises:
    UserError: an unknown name or key, a missing value, a value outside of `within`, or lengths that do not fit.
  """
  name = _name(spec, where)
  for value in extremes(spec, where):
    if not within[0] <= value <= within[1]:
      limits = f"from {within[0]:g} to {within[1]:g}" if math.isfinite(within[1]) else f"of {within[0]:g} or more"
      raise UserError(f"{where}: {value:g} makes no sense here; give a value {limits}")
  if name is None:
    return _as_float32(optax.constant_schedule(spec))
  value = _values(spec, name, where)
  lengths = {key: _length(spec, key, steps_per_epoch, where) for key in _LENGTHS}
  begin = lengths["begin"] or 0
  warmup = lengths["warmup"] or 0
  steps = total_steps - begin if lengths[""] is None else lengths[""]
  if name == "constant":
    return _as_float32(optax.constant_schedule(value["value"]))
  if steps <= 0:
    raise UserError(f"{where}: begins after {begin} steps, the run has {total_steps}; begin earlier or train longer")
  if not 0 <= warmup < steps and not (name == "warmup_constant" and warmup == steps):
    given = next(f"{where}.{key}={spec[key]!r}" for key in spec if key.startswith("warmup_"))
    raise UserError(f"{where}: {warmup} warm-up steps do not fit in {steps} steps; lower {given}, or train longer")
  shape = name.removeprefix("warmup_")
  start = value["peak"] if name.startswith("warmup_") else value["init"]
  after = _decay(shape, start, value.get("end", start), steps - warmup)
  pieces, boundaries = [after], []
  if warmup:
    pieces, boundaries = [optax.linear_schedule(value["init"], start, warmup), after], [warmup]
  schedule = optax.join_schedules(pieces, boundaries)
  return _as_float32(lambda step: schedule(jnp.maximum(step - begin, 0)))


def extremes(spec: float | Mapping[str, Any], where: str = "schedule") -> tuple[float, float]:
  """(least, greatest) number that a schedule can take; raises UserError as `make_schedule` does."""
  name = _name(spec, where)
  if name is None:
    return float(spec), float(spec)
  values = _values(spec, name, where)
  if not any(key.startswith("warmup_") for key in spec):
    values = {key: value for key, value in values.items() if key != "init" or "peak" not in values}
  return min(values.values()), max(values.values())


def _name(spec: float | Mapping[str, Any], where: str) -> str | None:
  """The name of a schedule; None of a number."""
  if isinstance(spec, bool) or not (isinstance(spec, int | float) or hasattr(spec, "keys")):
    raise UserError(f"{where}: a schedule is a number or a mapping with a name, not {spec!r}")
  if isinstance(spec, int | float):
    return None
  if "name" not in spec:
    raise UserError(f"{where}: a schedule needs a name; {nearest('', SCHEDULES)}")
  return choose(spec["name"], SCHEDULES, f"{where}.name")


def _decay(shape: str, start: float, end: float, steps: int) -> optax.Schedule:
  """From `start` to `end` in `steps`; optax's cosine cannot go from or through zero."""
  if shape == "constant":
    return optax.constant_schedule(start)
  if shape == "linear":
    return optax.linear_schedule(start, end, steps)
  cosine = optax.cosine_decay_schedule(1.0, steps)
  return lambda step: end + (start - end) * cosine(step)


def _values(spec: Mapping[str, Any], name: str, where: str) -> dict[str, float]:
  required, defaults = SCHEDULES[name]
  known = {"name", *options_of(name)}
  check_options(spec, known, where)
  for key in required:
    if key not in spec:
      raise UserError(f"{where}: {name!r} needs {key!r}")
  values = {key: spec.get(key, defaults.get(key)) for key in (*required, *defaults)}
  for key, value in values.items():
    if isinstance(value, bool) or not isinstance(value, int | float):
      raise UserError(f"{where}.{key}: must be a number, not {value!r}")
  return values


def _length(spec: Mapping[str, Any], key: str, steps_per_epoch: int | None, where: str) -> int | None:
  """Steps of `key` ("begin", "warmup", "" for the whole), or None when not given."""
  in_steps, in_epochs = f"{key}_steps".lstrip("_"), f"{key}_epochs".lstrip("_")
  if in_steps in spec and in_epochs in spec:
    raise UserError(f"{where}: give {in_steps!r} or {in_epochs!r}, not both")
  given = in_steps if in_steps in spec else in_epochs
  if given not in spec:
    return None
  if isinstance(spec[given], bool) or not isinstance(spec[given], int | float) or spec[given] < 0:
    raise UserError(f"{where}.{given}: must be a number of at least 0, not {spec[given]!r}")
  if given == in_steps:
    return int(spec[given])
  if steps_per_epoch is None:
    raise UserError(f"{where}.{given}: the length of an epoch is not known here; use {in_steps!r}")
  return round(spec[given] * steps_per_epoch)


def _as_float32(schedule: optax.Schedule) -> Schedule:
  return lambda step: jnp.asarray(schedule(step), jnp.float32)
