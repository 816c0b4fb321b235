"""What each optimizer makes of gradients before the learning rate: optax's transformations, put together.

Layers that are scanned (an encoder's blocks as one array, its leading axis theirs) are each an array of its own to what
looks at an array as a whole, a norm or a matrix: a stack moves as its layers would alone.
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from mmcontrast.errors import UserError, nearest
from mmcontrast.optimization.layer_decay import stack_of
from mmcontrast.parameter_paths import path_name

Transformation = optax.GradientTransformation
Parts = tuple[Transformation, ...]
Shapes = Mapping[str, Sequence[int]]

NOT_MATRICES = r".*/conv_dw/kernel|(?!(.*/)?kernel$).*"
"""What Muon leaves to Adam: all but kernels, and kernels of which each channel has its own."""
_BELOW_ONE = ("b1", "b2", "beta", "momentum", "adam_b1", "adam_b2")


def _adamw(options: Mapping[str, Any], add_decay: Transformation, shapes: Shapes) -> Parts:
  return optax.scale_by_adam(options["b1"], options["b2"], options["eps"], mu_dtype=options["mu_dtype"]), add_decay


def _sgd(options: Mapping[str, Any], add_decay: Transformation, shapes: Shapes) -> Parts:
  return add_decay, _momentum(options)


def _lars(options: Mapping[str, Any], add_decay: Transformation, shapes: Shapes) -> Parts:
  trust = optax.masked(
    optax.scale_by_trust_ratio(trust_coefficient=options["trust_coefficient"]),
    lambda tree: jax.tree.map(lambda leaf: leaf.ndim > 1, tree),
  )
  return add_decay, _each_layer(trust, shapes), _momentum(options)


def _momentum(options: Mapping[str, Any]) -> Transformation:
  if not options["momentum"]:
    return optax.identity()
  return optax.trace(options["momentum"], options["nesterov"])


def _lamb(options: Mapping[str, Any], add_decay: Transformation, shapes: Shapes) -> Parts:
  """Adam's direction + decay * w, of the length of w (You et al., arXiv:1904.00962)."""
  adam = optax.scale_by_adam(options["b1"], options["b2"], options["eps"])
  return adam, add_decay, _each_layer(optax.scale_by_trust_ratio(), shapes)


def _lion(options: Mapping[str, Any], add_decay: Transformation, shapes: Shapes) -> Parts:
  """The sign of a mean of gradients, + decay * w (Chen et al., arXiv:2302.06675)."""
  return optax.scale_by_lion(options["b1"], options["b2"], options["mu_dtype"]), add_decay


def _adafactor(options: Mapping[str, Any], add_decay: Transformation, shapes: Shapes) -> Parts:
  """Gradients over a factored root of their mean square (Shazeer and Stern, arXiv:1804.04235), + decay * w."""
  parts = [
    optax.scale_by_factored_rms(
      decay_rate=options["decay_rate"], min_dim_size_to_factor=options["min_dim_size_to_factor"], epsilon=options["eps"]
    )
  ]
  if options["clipping_threshold"] is not None:
    parts.append(optax.clip_by_block_rms(options["clipping_threshold"]))
  if options["multiply_by_parameter_scale"]:
    parts.append(optax.scale_by_param_block_rms())
  if options["momentum"] is not None:
    parts.append(optax.ema(options["momentum"], debias=False))
  return _each_layer(optax.chain(*parts), shapes), add_decay


def _muon(options: Mapping[str, Any], add_decay: Transformation, shapes: Shapes) -> Parts:
  """Momentum whose singular values are made about 1, of matrices; Adam's direction of the rest; + decay * w.

  Keller Jordan et al. 2024, by Newton and Schulz's iteration; with `consistent_rms` scaled as Liu et al.,
  arXiv:2502.16982. A convolution is the matrix of all its inputs [kh kw C, O].
  """
  muon = contrib.scale_by_muon(
    ns_steps=options["ns_steps"],
    beta=options["beta"],
    eps=options["eps"],
    mu_dtype=options["mu_dtype"],
    nesterov=options["nesterov"],
    weight_dimension_numbers=lambda tree: jax.tree.map(_dimension_numbers, tree),
  )
  shape = optax.stateless(lambda updates, _: jax.tree.map(lambda u: _of_shape(u, options["consistent_rms"]), updates))
  adam = optax.scale_by_adam(
    options["adam_b1"], options["adam_b2"], options["eps"], mu_dtype=options["mu_dtype"], nesterov=options["nesterov"]
  )
  given = (options["adam_on"],) if isinstance(options["adam_on"], str) else options["adam_on"]
  for pattern in given:
    _check_pattern(pattern, list(shapes))
  left = re.compile("|".join(f"(?:{pattern})" for pattern in (NOT_MATRICES, *given)))
  matrices = {path for path, of in shapes.items() if len(of) > 1 + bool(stack_of(path)) and not left.fullmatch(path)}
  if not matrices:
    raise UserError("optimizer.adam_on: no matrix is left to muon; leave some out, or use name='adamw'")
  return _by_label(
    {"muon": _each_layer(optax.chain(muon, shape), shapes), "adam": adam},
    lambda path: "muon" if path in matrices else "adam",
  ), add_decay


def _check_pattern(pattern: Any, paths: Sequence[str]) -> None:
  where = "optimizer.adam_on"
  try:
    matches = any(re.fullmatch(pattern, path) for path in paths)
  except (re.error, TypeError) as error:
    raise UserError(f"{where}: {pattern!r} is not a regex: {error}") from None
  if not matches:
    raise UserError(f"{where}: {pattern!r} matches no parameter; {nearest(pattern, paths)}")


def _dimension_numbers(x: jax.Array) -> contrib.MuonDimensionNumbers:
  """All axes but the last are inputs."""
  return contrib.MuonDimensionNumbers(tuple(range(x.ndim - 1)), x.ndim - 1)


def _of_shape(x: jax.Array, rms: float | None) -> jax.Array:
  """A matrix of singular values 1, scaled by its shape: to a root mean square of `rms`, or as Jordan has it."""
  inputs, outputs = math.prod(x.shape[:-1]), x.shape[-1]
  return x * (math.sqrt(max(1, outputs / inputs)) if rms is None else rms * math.sqrt(max(inputs, outputs)))


def _each_layer(transformation: Transformation, shapes: Shapes) -> Transformation:
  """`transformation`, to which each layer of a scanned stack is an array of its own."""
  stacks = {stack for path in shapes if (stack := stack_of(path))}
  if not stacks:
    return transformation

  def init(params):
    return (jax.vmap(transformation.init) if jax.tree.leaves(params) else transformation.init)(params)

  def update(updates, state, params=None):  # nothing is left of a stack that is frozen
    function = jax.vmap(transformation.update) if jax.tree.leaves(updates) else transformation.update
    return function(updates, state, params)

  of_stack = Transformation(init, update)
  return _by_label({"": transformation, **dict.fromkeys(sorted(stacks), of_stack)}, lambda path: stack_of(path) or "")


def _by_label(transformations: Mapping[str, Transformation], label: Callable[[str], str]) -> Transformation:
  """Each array by the transformation of its path's label."""
  return optax.partition(
    dict(transformations), lambda tree: jax.tree_util.tree_map_with_path(lambda path, _: label(path_name(path)), tree)
  )


DIRECTIONS: dict[str, Callable[[Mapping[str, Any], Transformation, Shapes], Parts]] = {
  "adamw": _adamw,
  "sgd": _sgd,
  "lars": _lars,
  "lamb": _lamb,
  "lion": _lion,
  "adafactor": _adafactor,
  "muon": _muon,
}
"""Optimizer -> what makes its transformations of (its options, u + decay * w, path -> shape of all parameters)."""


def check_own(options: Mapping[str, Any], own: Mapping[str, Any]) -> None:
  """Checks the values of an optimizer's own options against their defaults `own`; raises UserError."""
  for key, default in own.items():
    value, where = options[key], f"optimizer.{key}"
    if key in ("weight_decay", "adam_on") or (value is None and default is None):
      continue
    if key.endswith("dtype"):
      try:
        floats = jnp.issubdtype(jnp.dtype(value), jnp.floating)
      except TypeError:
        floats = False
      if not floats:
        raise UserError(f"{where}: {value!r} is no type of numbers such as 'float32' or 'bfloat16'")
    elif isinstance(default, bool):
      if not isinstance(value, bool):
        raise UserError(f"{where}: {value!r} is not True or False")
    elif key == "clipping_threshold" and value is None:
      continue
    elif isinstance(value, bool) or not isinstance(value, numbers.Real) or not value >= 0:
      raise UserError(f"{where}: {value!r} is not a number of 0 or more; the default is {default!r}")
    elif key in _BELOW_ONE and value >= 1:
      raise UserError(f"{where}: {value!r} is not below 1; the default is {default!r}")
    elif isinstance(default, int) and not (isinstance(value, numbers.Integral) and value >= 1):
      raise UserError(f"{where}: {value!r} is not a whole number of 1 or more; the default is {default!r}")
