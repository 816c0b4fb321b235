"""An update rule that moves what towers read against the loss, by the signs of its gradient, as it trains on it.

    config.update_rule = dict(name="adversarial", views=("series[0]",), size=0.01, passes=3)

Source: "free" adversarial training (Shafahi et al., arXiv:1904.12843) as in GraphCLIP (arXiv:2410.10329),
ZhuYun97/GraphCLIP@c016277. The released code adds each pass's perturbation to the features in place, so that they add
up; here a pass sees the features and its own perturbation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from mmcontrast.errors import UserError, nearest

Tree = Any
OWN = ("terms", "lora")
_VIEW = re.compile(r"(\w+)\[(\d+)\]")
_STREAM = 0x5EED  # apart from what else an example's seed draws


@dataclass(frozen=True)
class Adversarial:
  """The gradient of the mean of the losses of `passes` passes, each on views that the last one's gradient moved.

  views: those that are moved, as towers read them, such as ("series[0]", "image[0]"): numbers, no tokens.
  size: how far the sign of a gradient moves a number in a pass; the first perturbation is uniform between -size and it,
    by the example's seed, which is another one each epoch.
  passes: forward and backward passes of a step.
  """

  views: tuple[str, ...] = ()
  size: float = 0.01
  passes: int = 3

  def check(self, paths: Sequence[str], terms: Sequence[str], where: str) -> None:
    """Raises UserError for options that are none; whether there are such views, a step says."""
    if isinstance(self.views, str) or not self.views or not all(map(_VIEW.fullmatch, self.views)):
      raise UserError(f"{where}.views: {self.views!r} is not a list of views, such as ('image[0]',)")
    if isinstance(self.passes, bool) or not isinstance(self.passes, int) or self.passes < 1:
      raise UserError(f"{where}.passes: {self.passes!r}; give 1 pass or more, such as 3")
    if not isinstance(self.size, int | float) or not self.size > 0:
      raise UserError(f"{where}.size: {self.size!r}; give a number above 0, such as 0.01")

  def planned(self, steps: int, steps_per_epoch: int | None, where: str) -> Adversarial:
    return self

  def __call__(
    self, embed: Callable, loss: Callable, params: Tree, terms: Sequence[str], step: Any = 0, seeds: Any = None
  ):
    def total(params, moved):
      embeddings, statistics = embed(params, moved)
      own = {part: params[part] for part in OWN if part in params}
      value, auxiliary = loss(embeddings, own, terms)
      return value / self.passes, (auxiliary, embeddings, statistics)

    moved = self._first(embed, params, seeds)
    values, gradients, found = [], None, None
    for _ in range(self.passes):
      (value, found), (more, by_view) = jax.value_and_grad(total, (0, 1), has_aux=True)(params, moved)
      gradients = more if gradients is None else jax.tree.map(jnp.add, gradients, more)
      moved = {name: at + self.size * jnp.sign(by_view[name]) for name, at in moved.items()}
      values.append(value * self.passes)
    metrics = {"update_rule/first_loss": values[0], "update_rule/last_loss": values[-1]}
    return (sum(values) / self.passes, *found), gradients, metrics

  def _first(self, embed: Callable, params: Tree, seeds: jax.Array) -> dict[str, jax.Array]:
    """The perturbation of the first pass, uniform, of each example by its own seed: [B, ...] of each view."""
    shapes: dict[str, jax.ShapeDtypeStruct] = {}

    def measure(name: str, values: jax.Array) -> None:
      shapes[name] = jax.ShapeDtypeStruct(values.shape, values.dtype)

    jax.eval_shape(lambda params: embed(params, {}, measure), params)
    moved = {}
    for number, name in enumerate(self.views):
      if name not in shapes:
        raise UserError(f"config.update_rule.views: {name!r} is no view of this run; {nearest(name, shapes)}")
      of = shapes[name]
      if not jnp.issubdtype(of.dtype, jnp.floating):
        raise UserError(f"config.update_rule.views: {name!r} are tokens, which cannot be moved; leave it out")

      def drawn(seed: jax.Array, number: int = number, of: jax.ShapeDtypeStruct = of) -> jax.Array:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _STREAM), number)
        return jax.random.uniform(key, of.shape[1:], of.dtype, -self.size, self.size)

      moved[name] = jax.vmap(drawn)(seeds)
    return moved


def with_moved(views: Mapping[str, Any], moved: Mapping[str, jax.Array], measure: Callable | None) -> dict[str, Any]:
  """Set of views -> `Inputs` [B, V, ...], with what is added to single views: "image[0]" -> [B, ...]."""
  made = {}
  for name, inputs in views.items():
    values = inputs.values
    for number in range(values.shape[1]):
      if measure is not None:
        measure(f"{name}[{number}]", values[:, number])
      if (more := moved.get(f"{name}[{number}]")) is not None:
        values = values.at[:, number].add(more.astype(values.dtype))
    made[name] = inputs._replace(values=values)
  return made
