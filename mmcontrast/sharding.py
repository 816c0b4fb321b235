"""The mesh, where parameters live on it, and batches over it.

Axes: `data` (replicas), `fsdp` (parameters and optimizer state cut along it) and
`tensor` (layers cut along it). The batch is cut over `data` x `fsdp`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from mmcontrast.errors import UserError, nearest

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")


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
    raise UserError(f"config.mesh: {dict(sizes)} does not multiply to the {len(devices)} devices here; "
                    f"set one axis to -1")
  return Mesh(np.asarray(devices).reshape(shape), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Leading axis cut over the batch axes."""
  return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
  """The same on every device."""
  return NamedSharding(mesh, PartitionSpec())


def check_batch(size: int, mesh: Mesh) -> None:
  """Raises UserError when the global batch does not divide over the batch axes."""
  parts = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
  if size % parts:
    raise UserError(f"config.batch.size={size} does not divide over {parts} devices; "
                    f"try {max(size // parts, 1) * parts} or {(size // parts + 1) * parts}")


def put_batch(batch: Any, mesh: Mesh) -> Any:
  """Host arrays of this process -> global arrays cut over the batch axes."""
  sharding = batch_sharding(mesh)
  return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)), batch)
