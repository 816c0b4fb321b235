"""LoRA: small matrices are trained and added to frozen ones (Hu et al., arXiv:2106.09685).

    config.lora = dict(targets="towers/image/.*/attn/(qkv|proj)/kernel", rank=8, alpha=16.0)

In place of each matrix W [in, out] that the regex `targets` matches, the model uses

    W + alpha / rank * a @ b        a [in, rank], b [rank, out]

W is frozen: bit-identical, without optimizer state. b starts at zero, so that step 0 is the model
without LoRA. What else is trained, `optimizer.frozen` says. `a` and `b` are parameters,
"lora/PATH OF W/a" and ".../b", and checkpoints hold them and W; loading a run gives the sum.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from mmcontrast.errors import UserError, nearest
from mmcontrast.parameter_paths import path_name

Tree = Any
_SCANNED = re.compile(r"(towers|heads|terms)/[^/]+/(.*/)?blocks/.*")
"""One array for all blocks of a transformer: a matrix a block."""


@dataclass(frozen=True)
class Lora:
  """What is adapted, and how: see the module.

  Attributes:
    targets: a regex that matches the whole path of a parameter; "": nothing is adapted.
    rank: columns of `a`.
    alpha: the sum weighs `a @ b` by alpha / rank.
  """

  targets: str = ""
  rank: int = 8
  alpha: float = 16.0

  def init(self, params: Tree, key: jax.Array) -> Tree:
    """`params` with the matrices of each target under "lora".

    Raises UserError when the regex matches no parameter, or one that is no matrix or too small.
    """
    if not self.targets:
      return params
    modules = {kind: params[kind] for kind in ("towers", "heads", "terms")}
    shapes = {path_name(path): leaf.shape for path, leaf in jax.tree_util.tree_flatten_with_path(modules)[0]}
    adapters: dict[str, Any] = {}
    for number, path in enumerate(self._check(shapes)):
      *stack, rows, columns = shapes[path]
      place = adapters
      for part in path.split("/"):
        place = place.setdefault(part, {})
      bound = rows**-0.5  # as the authors' code draws it
      own = jax.random.fold_in(key, number)
      place["a"] = jax.random.uniform(own, (*stack, rows, self.rank), jnp.float32, -bound, bound)
      place["b"] = jnp.zeros((*stack, self.rank, columns), jnp.float32)
    return {**params, "lora": adapters}

  def merge(self, params: Tree) -> Tree:
    """`params` without "lora", the matrices added to what they adapt. Pure; numpy or JAX arrays."""
    base = {name: tree for name, tree in params.items() if name != "lora"}
    return self._add(base, params["lora"]) if "lora" in params else base

  def _add(self, base: Tree, adapters: Mapping[str, Any]) -> Tree:
    if not isinstance(base, Mapping):
      return base + self.alpha / self.rank * (adapters["a"] @ adapters["b"])
    return {name: self._add(tree, adapters[name]) if name in adapters else tree for name, tree in base.items()}

  def _check(self, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """The paths of the targets, in order."""
    try:
      targets = sorted(path for path in shapes if re.fullmatch(self.targets, path))
    except (re.error, TypeError) as error:
      raise UserError(f"config.lora.targets: {self.targets!r} is not a regex: {error}") from None
    matrices = [path for path, shape in shapes.items() if len(shape) == 2 + bool(_SCANNED.fullmatch(path))]
    if not targets:
      raise UserError(f"config.lora.targets: {self.targets!r} matches no parameter; {nearest(self.targets, matrices)}")
    for path in targets:
      if path not in matrices:
        raise UserError(
          f"config.lora.targets: {path!r} {list(shapes[path])} is not a matrix, and only matrices can be "
          f"adapted; {nearest(path, matrices)}"
        )
    least = min(targets, key=lambda path: min(shapes[path][-2:]))
    if not (isinstance(self.rank, int) and 1 <= self.rank <= min(shapes[least][-2:])):
      raise UserError(
        f"config.lora.rank: 1 to {min(shapes[least][-2:])}, the smaller side of {least!r} "
        f"{list(shapes[least])}, not {self.rank!r}"
      )
    if not self.alpha > 0:
      raise UserError(
        f"config.lora.alpha: must be above 0, not {self.alpha!r}; leave config.lora.targets out to adapt nothing"
      )
    return targets


NO_LORA = Lora()
