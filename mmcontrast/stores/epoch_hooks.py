"""The hooks of `config.epoch_hooks` by name: what is computed between epochs (training/epoch_hooks.py calls them).

A hook is a frozen dataclass in HOOKS whose fields are its options, and a pure function of the set's embeddings, the
state and a key (hook.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from mmcontrast.errors import UserError, nearest
from mmcontrast.registry import build
from mmcontrast.stores.cluster_hooks import BackTranslation, ClassMeans, GaussianMixture, KMeans
from mmcontrast.stores.geodesics import GeodesicMap
from mmcontrast.stores.group_hooks import ClusterBatches
from mmcontrast.stores.hook import Hook
from mmcontrast.stores.pair_mixture import PairMixture

HOOKS: dict[str, type[Hook]] = {
  "kmeans": KMeans,
  "prototype_back_translation": BackTranslation,
  "gaussian_mixture": GaussianMixture,
  "class_means": ClassMeans,
  "pair_mixture": PairMixture,
  "cluster_batches": ClusterBatches,
  "geodesic_map": GeodesicMap,
}

SHARED: dict[str, Any] = {"every_epochs": 1, "first_epoch": 0, "set": ""}
"""Options that all hooks have: how often (those that run once: not at all), from which epoch on, and of which set ("":
that which is trained on, or a name of config.evaluation.data)."""


class Scheduled(NamedTuple):
  """A hook, its set, and when it is due."""

  name: str
  hook: Hook
  every_epochs: int
  first_epoch: int
  set: str

  def is_due(self, steps: int, steps_per_epoch: int) -> bool:
    """Whether it runs after so many steps."""
    epoch, rest = divmod(steps, steps_per_epoch)
    if getattr(self.hook, "ONCE", False):
      return steps == self.first_epoch * steps_per_epoch
    return not rest and epoch >= self.first_epoch and (epoch - self.first_epoch) % self.every_epochs == 0


def parse_hooks(config: Mapping[str, Any]) -> list[Scheduled]:
  """The hooks of `config.epoch_hooks`, in the order of their names; raises UserError naming the key."""
  found = []
  for name, entry in sorted(config.items()):
    where = f"config.epoch_hooks.{name}"
    if not hasattr(entry, "items"):
      raise UserError(f"{where}: {entry!r} is not a dict(name=...); {nearest('', HOOKS)}")
    shared = SHARED | {key: value for key, value in entry.items() if key in SHARED}
    for key, least in (("every_epochs", 1), ("first_epoch", 0)):
      if isinstance(shared[key], bool) or not isinstance(shared[key], int) or shared[key] < least:
        raise UserError(f"{where}.{key}: {shared[key]!r} is not a whole number of {least} or more")
    hook = build(HOOKS, {key: value for key, value in entry.items() if key not in SHARED}, where)
    found.append(Scheduled(name, hook, **shared))
  return found
