"""The mesh, where every array of the state lives on it, and batches over it.

Axes: `data` (replicas), `fsdp` (parameters and optimizer state cut along it) and
`tensor` (layers cut along it). The batch is cut over `data` x `fsdp`.

`config.sharding` is a preset or a list of rules (regex, cut); the first regex that matches the
whole name decides. A parameter's name is its path ("towers/image/blocks_0/attn/qkv/kernel"), and
its optimizer state and momentum copy follow it; the others are "batch_stats/...", "queues/...",
"tables/...".
A cut is
    ()                  the same on every device
    "fsdp"              the largest dimension that divides, along that axis; small arrays whole
    (None, "tensor")    dimension by dimension: an axis, several ("data", "fsdp"), or None
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from mmcontrast.errors import UserError, choose, nearest
from mmcontrast.objectives.global_matrix import BATCH_AXES
from mmcontrast.parameter_paths import path_name

Cut = str | tuple[str | tuple[str, ...] | None, ...]
Rule = tuple[str, Cut]

AXES = ("data", "fsdp", "tensor")
SMALL = 1 << 16
"""Arrays of fewer elements stay whole under a cut such as "fsdp": cutting them costs more than it saves."""

# The outputs of the first kind are cut, which are the inputs of the second.
_INTO = r"(towers|heads|terms)/.*/(attn/qkv|(attn_pool|cross_attn)/(q|kv)|(cross_)?mlp/fc1)"
_OUT = r"(towers|heads|terms)/.*/(attn/proj|(attn_pool|cross_attn)/proj|(cross_)?mlp/fc2)"
_LOOPED = r"(towers|heads|terms)/.*/blocks/"  # their first axis is that of the layers, which are not cut
PRESETS: dict[str, tuple[Rule, ...]] = {
  "dp": ((".*", ()),),
  "fsdp": ((".*", "fsdp"),),
  "fsdp_tp": (
    (f"{_LOOPED}.*(attn/qkv|cross_attn/(q|kv)|mlp/fc1)/kernel", (None, "fsdp", "tensor")),
    (f"{_LOOPED}.*(attn/qkv|cross_attn/(q|kv)|mlp/fc1)/bias", (None, "tensor")),
    (f"{_LOOPED}.*(attn/proj|mlp/fc2)/kernel", (None, "tensor", "fsdp")),
    (f"{_INTO}/kernel", ("fsdp", "tensor")),
    (f"{_INTO}/bias", ("tensor",)),
    (f"{_OUT}/kernel", ("tensor", "fsdp")),
    (".*", "fsdp"),
  ),
}
"""dp: all devices hold everything. fsdp: cut, gathered where used (Zhao et al., arXiv:2304.11277).
fsdp_tp: attention and MLPs also by columns, then rows (Shoeybi et al., arXiv:1909.08053)."""


def make_mesh(sizes: Mapping[str, int], devices: Sequence[jax.Device] | None = None) -> Mesh:
  """A mesh with all of AXES; axes left out have size 1, and one may be -1 (what is left).

  Raises UserError when a name is no axis or the sizes do not multiply to the devices.
  """
  devices = list(jax.devices() if devices is None else devices)
  for axis in sizes:
    if axis not in AXES:
      raise UserError(f"config.mesh: no axis {axis!r}; {nearest(axis, AXES)}")
  shape = [int(sizes.get(axis, 1)) for axis in AXES]
  if shape.count(-1) > 1:
    raise UserError(f"config.mesh: {dict(sizes)} leaves more than one axis open; give all but one")
  known = math.prod(size for size in shape if size != -1)
  if -1 in shape and known > 0 and len(devices) % known == 0:
    shape[shape.index(-1)] = len(devices) // known
  if math.prod(shape) != len(devices):
    raise UserError(
      f"config.mesh: {dict(sizes)} does not multiply to the {len(devices)} devices here; set one axis to -1"
    )
  local, tensor = len({d for d in devices if d.process_index == jax.process_index()}), shape[AXES.index("tensor")]
  if local < len(devices) and local % tensor:
    raise UserError(
      f"config.mesh.tensor={tensor} does not divide the {local} devices of a process; layers are cut within a process"
    )
  return Mesh(np.asarray(devices).reshape(shape), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Leading axis cut over the batch axes."""
  return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
  """The same on every device."""
  return NamedSharding(mesh, PartitionSpec())


def batch_parts(mesh: Mesh) -> int:
  """Over how many devices a batch is cut."""
  return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def check_batch(size: int, mesh: Mesh) -> None:
  """Raises UserError when the global batch does not divide over the batch axes."""
  parts = batch_parts(mesh)
  if size % parts:
    raise UserError(
      f"config.batch.size={size} does not divide over {parts} devices; "
      f"try {' or '.join(str(n * parts) for n in (size // parts, size // parts + 1) if n)}"
    )


def resolve_rules(config: str | Sequence[Any]) -> tuple[tuple[Rule, ...], bool]:
  """`config.sharding` -> (rules, whether they are the user's own, and so checked strictly)."""
  if isinstance(config, str):
    return PRESETS[choose(config, PRESETS, "config.sharding")], False
  rules = []
  for rule in config:
    if isinstance(rule, str) or len(rule) != 2 or not isinstance(rule[1], (str, list, tuple)):
      raise UserError(f"config.sharding: {rule!r} is not a rule; a rule is (regex, cut), such as ('.*/kernel', 'fsdp')")
    try:
      re.compile(rule[0])
    except (re.error, TypeError) as error:
      raise UserError(f"config.sharding: {rule[0]!r} is not a regex: {error}") from None
    rules.append((rule[0], rule[1] if isinstance(rule[1], str) else tuple(rule[1])))
  return tuple(rules), True


def shard_state(config: str | Sequence[Any], mesh: Mesh | AbstractMesh, state: Any) -> Any:
  """Where each array of a TrainState lives.

  Args:
    config: `config.sharding`.
    mesh: the devices; an AbstractMesh will do.
    state: the state, or its shapes (jax.ShapeDtypeStruct).
  Returns:
    A tree like `state` of NamedSharding. Scalars are the same everywhere.
  Raises UserError for an array that no rule covers, an axis the mesh does not have, and, in the
  user's own rules, one that decides nothing or a dimension that does not divide.
  """
  rules, strict = resolve_rules(config)
  for pattern, cut in rules:
    _check_axes(pattern, cut, mesh)
  parameters = {path_name(path): leaf.shape for path, leaf in _leaves(state.params)}
  used = set()

  def place(path, leaf) -> NamedSharding:
    name = _rule_name(path_name(path), leaf.shape, parameters)
    if not leaf.shape:
      return replicated(mesh)
    number = next((i for i, (pattern, _) in enumerate(rules) if re.fullmatch(pattern, name)), None)
    if number is None:
      raise UserError(f"config.sharding: no rule covers {name!r} {list(leaf.shape)}; end the list with ('.*', ())")
    used.add(number)
    return NamedSharding(mesh, _spec(rules[number][1], leaf.shape, mesh, strict, name))

  found = jax.tree_util.tree_map_with_path(place, state)
  if strict and (idle := [rule[0] for i, rule in enumerate(rules) if i not in used]):
    raise UserError(f"config.sharding: rule {idle[0]!r} is never used; {nearest(idle[0], parameters)}")
  return found


def overview(shapes: Any, shardings: Any) -> str:
  """One line an array: its name, its shape, and the axes that cut each dimension ("-": none)."""
  lines = []
  for (path, leaf), where in zip(_leaves(shapes), jax.tree.leaves(shardings), strict=True):
    cuts = ["+".join((axes,) if isinstance(axes, str) else axes) if axes else "-" for axes in where.spec]
    lines.append(
      (path_name(path), "x".join(map(str, leaf.shape)) or "scalar", ", ".join(cuts) if set(cuts) - {"-"} else "whole")
    )
  widths = [max(map(len, column)) for column in zip(*lines)]
  return "".join("  ".join(word.ljust(width) for word, width in zip(line, widths)).rstrip() + "\n" for line in lines)


def put_batch(batch: Any, mesh: Mesh) -> Any:
  """Host arrays of this process -> global arrays cut over the batch axes."""
  sharding = batch_sharding(mesh)
  return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)), batch)


def _leaves(tree: Any) -> list[tuple[tuple, Any]]:
  return jax.tree_util.tree_flatten_with_path(tree)[0]


def _rule_name(name: str, shape: tuple[int, ...], parameters: Mapping[str, tuple[int, ...]]) -> str:
  """The name that rules see: that of the parameter which the array is, copies or follows."""
  kind, _, rest = name.partition("/")
  if kind in ("momentum", "ema"):
    kind, _, rest = rest.partition("/")
    name = f"{kind}/{rest}"
  while rest and kind in ("params", "opt_state"):
    if parameters.get(rest) == shape:
      return rest
    rest = rest.partition("/")[2]
  return name


def _check_axes(pattern: str, cut: Cut, mesh: Mesh | AbstractMesh) -> None:
  axes = [cut] if isinstance(cut, str) else [a for d in cut if d for a in ((d,) if isinstance(d, str) else d)]
  for axis in axes:
    if axis not in mesh.axis_names:
      raise UserError(
        f"config.sharding: rule {pattern!r} names the axis {axis!r}, which the mesh does not have; "
        f"{nearest(axis, mesh.axis_names)}"
      )
    if axes.count(axis) > 1:
      raise UserError(f"config.sharding: rule {pattern!r} cuts two dimensions along {axis!r}; name an axis once")


def _spec(cut: Cut, shape: tuple[int, ...], mesh: Mesh | AbstractMesh, strict: bool, name: str) -> PartitionSpec:
  if isinstance(cut, str):
    size = mesh.shape[cut]
    largest = max((length for length in shape if length % size == 0), default=0)
    if size == 1 or not largest or math.prod(shape) < SMALL:
      return PartitionSpec()
    at = shape.index(largest)
    return PartitionSpec(*(None,) * at, cut)
  if len(cut) > len(shape):
    raise UserError(f"config.sharding: the cut {cut!r} has more dimensions than {name!r} {list(shape)}")
  kept = []
  for length, axes in zip(shape, cut):
    axes = (axes,) if isinstance(axes, str) else tuple(axes or ())
    parts = math.prod(mesh.shape[axis] for axis in axes)
    if length % parts and strict:
      raise UserError(
        f"config.sharding: {name!r} {list(shape)} does not divide into {parts} along "
        f"{'+'.join(axes)}; leave that dimension None"
      )
    kept.append(None if length % parts or parts == 1 else axes[0] if len(axes) == 1 else axes)
  return PartitionSpec(*kept)
