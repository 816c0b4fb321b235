"""Temperatures: the scale (one over the temperature) and bias that make logits of scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from mmcontrast.errors import UserError, choose
from mmcontrast.optimization.schedules import extremes
from mmcontrast.registry import check_options, options_of

Parameters = dict[str, jax.Array]


@dataclass(frozen=True)
class Temperature:
  """A temperature and where it is kept within bounds.

  Attributes:
    init: the temperature (at the start, when learned); None with a schedule or a spread.
    learned: whether it is a parameter.
    schedule: what a fixed temperature follows (mmcontrast.optimization.schedules); None: it stays at `init`.
    spread: the temperature is so many times the standard deviation of the similarities that anchors see in the batch,
      at every step anew, so that logits are always as far apart (spread.py); None: it is not a function of the batch.
    form: what is learned: the logarithm of the scale ("log_scale"; CLIP, SigLIP) or the
      temperature itself ("tau"; ALIGN, ALBEF).
    min, max: bounds of the temperature; None for none.
    clamp: "after_step" clips the parameter after the optimizer's step (open_clip); "forward"
      clips inside the loss, where the gradient is zero beyond the bounds (FLIP, axlearn).
    bias: added to logits; None for none.
    bias_learned: whether the bias is a parameter.
  """

  init: float | None = 0.07
  learned: bool = False
  schedule: Any = None
  spread: float | None = None
  form: str = "log_scale"
  min: float | None = None
  max: float | None = None
  clamp: str = "after_step"
  bias: float | None = None
  bias_learned: bool = False

  def parameters(self) -> Parameters:
    """What is learned, as float32 scalars."""
    learned = {}
    if self.learned:
      learned[self.form] = jnp.float32(-math.log(self.init) if self.form == "log_scale" else self.init)
    if self.bias is not None and self.bias_learned:
      learned["bias"] = jnp.float32(self.bias)
    return learned

  def clip(self, parameters: Parameters) -> Parameters:
    """The parameters with the temperature moved within its bounds."""
    if not self.learned:
      return parameters
    low, high = self.min, self.max
    if self.form == "log_scale":
      low, high = (None if x is None else -math.log(x) for x in (high, low))
    return {**parameters, self.form: jnp.clip(parameters[self.form], low, high)}

  @property
  def is_of_batch(self) -> bool:
    """Whether the similarities of a batch say it, and nothing before them."""
    return self.spread is not None

  def scale(self, parameters: Parameters, deviation: jax.Array | None = None) -> jax.Array | float:
    """One over the temperature: of what is learned, of the schedule's value now ("temperature"), or of the standard
    `deviation` of the similarities in the batch."""
    if self.is_of_batch:
      return 1.0 / jnp.clip(self.spread * deviation, self.min, self.max)
    if self.schedule is not None:
      return 1.0 / parameters["temperature"]
    if not self.learned:
      return 1.0 / self.init
    value = (self.clip(parameters) if self.clamp == "forward" else parameters)[self.form]
    return jnp.exp(value) if self.form == "log_scale" else 1.0 / value

  def offset(self, parameters: Parameters) -> jax.Array | float | None:
    """The bias, or None."""
    return parameters.get("bias", self.bias)


def parse_temperature(config: Any, bias: Any, where: str) -> Temperature:
  """From a number or a mapping of Temperature's attributes, and `None | number | {"init", ...}`.

  A mapping means a learned one unless it says otherwise, or has a schedule or a spread.
  """
  if isinstance(config, (int, float)):
    options = {"init": config}
  else:
    options = {"learned": config.get("schedule") is None and config.get("spread") is None, **config}
  if options.get("spread") is not None:
    _check_spread(options, f"{where}.temperature")
    options["init"] = None
  elif options.get("schedule") is not None:
    if options["learned"] or options.get("init") is not None:
      raise UserError(
        f"{where}.temperature.schedule: sets the temperature at every step, so it has no other start "
        "and is not learned; leave out init and learned, or the schedule"
      )
    options["init"] = None
  if bias is not None:
    bias_options = {"init": bias, "learned": False} if isinstance(bias, (int, float)) else dict(bias)
    check_options(bias_options, ("init", "learned"), f"{where}.bias")
    options |= {"bias": float(bias_options.get("init", 0.0)), "bias_learned": bias_options.get("learned", True)}
  known = [key for key in options_of(Temperature) if not key.startswith("bias")]
  check_options((key for key in options if not key.startswith("bias")), known, f"{where}.temperature")
  result = Temperature(**options)
  choose(result.form, ("log_scale", "tau"), f"{where}.temperature.form")
  choose(result.clamp, ("after_step", "forward"), f"{where}.temperature.clamp")
  low, high = result.min or 0.0, math.inf if result.max is None else result.max
  if result.is_of_batch:
    values, key = (result.min,), "temperature.min"
  elif result.schedule is None:
    values, key = (result.init,), "temperature"
  else:
    values, key = extremes(result.schedule, f"{where}.temperature.schedule"), "temperature.schedule"
  for value in values:
    if not (value > 0 and low <= value <= high):
      raise UserError(
        f"{where}.{key}: {value} is not above 0 and within [{low}, {high}]; "
        "CLIP starts at 0.07, and min=0.01 caps the scale at 100"
      )
  return result


def _check_spread(options: Mapping[str, Any], where: str) -> None:
  """Checks the options of a temperature that is a function of the batch."""
  spread = options["spread"]
  if isinstance(spread, bool) or not isinstance(spread, int | float) or not spread > 0:
    raise UserError(f"{where}.spread: {spread!r} is not a number above 0; 0.25 makes logits of standard deviation 4")
  if options.get("learned") or options.get("init") is not None or options.get("schedule") is not None:
    raise UserError(
      f"{where}.spread: the similarities of each batch say the temperature, so it has no start, is not learned and "
      "follows no schedule; leave out init, learned and schedule, or the spread"
    )
  if options.get("min") is None:
    raise UserError(f"{where}.spread: similarities that are all alike have none; give the least temperature, min=0.01")


def owner_of(temperatures: Mapping[str, Any], name: str) -> str:
  """Follows `temperature="other term"` to the term that owns the temperature."""
  seen = [name]
  while isinstance(temperatures[seen[-1]], str):
    other = temperatures[seen[-1]]
    where = f"objective.{seen[-1]}.temperature"
    choose(other, temperatures, where)
    if other in seen:
      raise UserError(f"{where}: {' -> '.join([*seen, other])} is a cycle; give one a number")
    seen.append(other)
  return seen[-1]
