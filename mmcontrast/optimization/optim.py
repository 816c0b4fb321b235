"""Optimizers from a config: which parameters move, how fast, and what decays them.

    optimizer = dict(
        name="adamw", learning_rate=dict(name="warmup_cosine", peak=1e-3, warmup_steps=500),
        weight_decay=0.1,                                  # or a list of (regex, value)
        learning_rate_multipliers=[("towers/image/.*", 0.1)],
        layer_decay=0.75,                                  # layer_decay.py
        frozen=["towers/text/.*"], clip_norm=1.0)

A parameter's path is its keys joined by "/": "towers/image/stem/kernel". A regex must
match the whole path, the first rule that matches wins, and a rule that decides nothing
is an error: it is nearly always a misspelt path.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmcontrast.errors import UserError, choose, nearest
from mmcontrast.optimization.directions import DIRECTIONS, check_own
from mmcontrast.optimization.layer_decay import layer_multipliers
from mmcontrast.optimization.schedules import Schedule, make_schedule
from mmcontrast.parameter_paths import parameter_paths, path_name
from mmcontrast.registry import check_options

Rules = Sequence[tuple[str, float]]

NO_DECAY = r"(.*/)?(bias|position_bias|scale|gamma)|terms/[^/]+/[^/]+"
"""Biases, those of relative positions too, scales of norms and of layers, and the numbers of terms (not the layers of a
term that is a module): not decayed unless rules say so."""

_SHARED = {
  "name": "adamw",
  "learning_rate": None,
  "weight_decay": 0.0,
  "learning_rate_multipliers": (),
  "layer_decay": 1.0,
  "frozen": (),
  "clip_norm": None,
}
OPTIMIZERS: dict[str, dict[str, Any]] = {
  "adamw": {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "mu_dtype": None, "weight_decay": 1e-4},
  "sgd": {"momentum": 0.0, "nesterov": False},
  "lars": {"momentum": 0.9, "nesterov": False, "trust_coefficient": 0.001},
  "lamb": {"b1": 0.9, "b2": 0.999, "eps": 1e-6},
  "lion": {"b1": 0.9, "b2": 0.99, "mu_dtype": None, "weight_decay": 1e-3},
  "adafactor": {
    "decay_rate": 0.8,
    "clipping_threshold": 1.0,
    "multiply_by_parameter_scale": True,
    "min_dim_size_to_factor": 128,
    "momentum": None,
    "eps": 1e-30,
  },
  "muon": {
    "beta": 0.95,
    "nesterov": True,
    "ns_steps": 5,
    "eps": 1e-8,
    "consistent_rms": None,
    "mu_dtype": None,
    "adam_b1": 0.9,
    "adam_b2": 0.999,
    "adam_on": (),
  },
}
"""Each optimizer's own options and their defaults, which are those of optax (docs/optimizers.md)."""


def options_of(name: str) -> dict[str, Any]:
  """The options of the optimizer `name` and their defaults; those that all share where there is none of that name."""
  return {**_SHARED, **OPTIMIZERS.get(name, {})}


def make_optimizer(
  config: Mapping[str, Any], params: Any, total_steps: int, steps_per_epoch: int | None = None
) -> tuple[optax.GradientTransformation, dict[str, Schedule]]:
  """Builds the gradient transformation of `config` for the tree `params`.

  The order is: clip by the global norm of the trained gradients, then
    adamw: Adam's direction + decay * w, times -lr   (decoupled; optax's and PyTorch's AdamW)
    sgd:   momentum of (g + decay * w), times -lr    (PyTorch's SGD)
    lars:  momentum of trust * (g + decay * w), times -lr; the trust ratio
           coefficient * |w| / |g + decay * w| is for tensors of two or more axes
           (MoCo v3, Barlow Twins, VICReg; not the TensorFlow SimCLR order)
    lamb, lion, adafactor, muon: directions.py.

  Args:
    config: "name" and the options in OPTIMIZERS, "learning_rate" (see schedules.py),
      "weight_decay" (a number, which spares NO_DECAY, or rules that cover every
      parameter), "learning_rate_multipliers" (rules; 1 where none matches), "layer_decay"
      (see layer_decay.py; on top of the multipliers), "frozen" (regexes), "clip_norm"
      (None: no clipping).
    params: the parameters, or their shapes as jax.ShapeDtypeStruct.

  Returns:
    The transformation, and {"learning_rate": schedule} for the metrics. Frozen
    parameters, and those that LoRA adapts (lora.py), have no optimizer state and stay
    bit-identical.

  Raises:
    UserError: an unknown name or key, a rule that matches nothing, or a parameter that
      no weight decay rule covers.
  """
  name = choose(config.get("name", "adamw"), OPTIMIZERS, "optimizer.name")
  known = options_of(name)
  check_options(config, known, "config.optimizer")
  options = {**known, **dict(config.items())}
  check_own(options, OPTIMIZERS[name])
  if options["learning_rate"] is None:
    raise UserError("optimizer.learning_rate: give a number or a schedule")
  if options["clip_norm"] is not None and not options["clip_norm"] > 0:
    raise UserError(f"optimizer.clip_norm: must be above 0 or None, not {options['clip_norm']!r}")
  learning_rate = make_schedule(
    options["learning_rate"], total_steps, steps_per_epoch, "config.optimizer.learning_rate", within=(0, math.inf)
  )
  paths = parameter_paths(params)
  decay = _decay_by_path(options["weight_decay"], paths)
  multipliers = assign(options["learning_rate_multipliers"], paths, "optimizer.learning_rate_multipliers", default=1.0)
  shapes = dict(zip(paths, (leaf.shape for leaf in jax.tree.leaves(params))))
  for path, multiplier in layer_multipliers(options["layer_decay"], shapes).items():
    multipliers[path] = multipliers[path] * multiplier
  transformation = optax.chain(
    optax.identity() if options["clip_norm"] is None else optax.clip_by_global_norm(options["clip_norm"]),
    *DIRECTIONS[name](options, _add_decay(decay), shapes),
    _multiply(multipliers),
    optax.scale_by_learning_rate(learning_rate),
  )
  frozen = frozen_mask(params, options["frozen"])
  if any(jax.tree.leaves(frozen)):
    labels = jax.tree.map(lambda frozen: "frozen" if frozen else "trained", frozen)
    transformation = optax.partition({"trained": transformation, "frozen": _freeze()}, labels)
  return transformation, {"learning_rate": learning_rate}


def frozen_mask(params: Any, patterns: Sequence[str]) -> Any:
  """A tree like `params` of bools: True where one of the regexes `patterns` matches, or LoRA adapts it."""
  rules = [(pattern, 1.0) for pattern in patterns]
  paths = parameter_paths(params)
  frozen = assign(rules, paths, "optimizer.frozen", default=0.0)
  # "lora/towers/.../kernel/a" adapts "towers/.../kernel".
  frozen |= {path[len("lora/") :].rpartition("/")[0]: 1.0 for path in paths if path.startswith("lora/")}
  return jax.tree_util.tree_map_with_path(lambda path, _: bool(frozen[path_name(path)]), params)


def assign(rules: Rules, paths: Sequence[str], where: str, default: float | None = None) -> dict[str, float]:
  """Gives each path the value of the first rule whose regex matches all of it.

  Raises:
    UserError: a rule that is no (regex, number) or decides no path, or, without a
      `default`, a path that no rule covers.
  """
  compiled = [_compile(rule, where) for rule in rules]
  values, used = {}, set()
  for path in paths:
    match = next((i for i, (regex, _) in enumerate(compiled) if regex.fullmatch(path)), None)
    if match is not None:
      used.add(match)
    elif default is None:
      raise UserError(f"{where}: no rule covers the parameter {path!r}; end the list with ('.*', value)")
    values[path] = default if match is None else compiled[match][1]
  for i, (regex, _) in enumerate(compiled):
    if i in used:
      continue
    if any(regex.fullmatch(path) for path in paths):
      raise UserError(
        f"{where}: rule {regex.pattern!r} is never used, earlier rules match the same parameters; move it up or "
        "remove it"
      )
    raise UserError(f"{where}: rule {regex.pattern!r} matches no parameter; {nearest(regex.pattern, paths)}")
  return values


def _compile(rule: Any, where: str) -> tuple[re.Pattern[str], float]:
  try:
    pattern, value = rule
    return re.compile(pattern), float(value)
  except re.error as error:
    raise UserError(f"{where}: {rule[0]!r} is not a regex: {error}") from error
  except (TypeError, ValueError) as error:
    raise UserError(f"{where}: a rule is (regex, number), not {rule!r}") from error


def _decay_by_path(weight_decay: float | Rules, paths: Sequence[str]) -> dict[str, float]:
  if isinstance(weight_decay, int | float):
    spared = re.compile(NO_DECAY)
    return {path: 0.0 if spared.fullmatch(path) else float(weight_decay) for path in paths}
  return assign(weight_decay, paths, "optimizer.weight_decay")


def _add_decay(decay: Mapping[str, float]) -> optax.GradientTransformation:
  """u + decay[path] * w."""

  def update(updates, params):
    return jax.tree_util.tree_map_with_path(
      lambda path, u, w: u + decay[path_name(path)] * w if decay[path_name(path)] else u, updates, params
    )

  return optax.stateless(update)


def _multiply(multipliers: Mapping[str, float | np.ndarray]) -> optax.GradientTransformation:
  """u * multipliers[path]."""

  def scale(path, u):
    multiplier = multipliers[path_name(path)]
    return u if np.all(multiplier == 1) else u * jnp.asarray(multiplier, u.dtype)

  return optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(scale, updates))


def _freeze() -> optax.GradientTransformation:
  """Updates of -0.0: unlike + 0.0, adding them keeps every bit, a -0.0 weight's too."""
  return optax.stateless(lambda updates, _: jax.tree.map(lambda u: jnp.full_like(u, -0.0), updates))
