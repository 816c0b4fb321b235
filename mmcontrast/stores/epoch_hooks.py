"""The hooks of `config.epoch_hooks` by name: what is computed between epochs (training/epoch_hooks.py calls them).

A hook is a frozen dataclass in HOOKS whose fields are its options, and a pure function of the set's embeddings, the
state and a key (hook.py).
"""

from __future__ import annotations

from typing import Any

from mmcontrast.stores.cluster_hooks import BackTranslation, ClassMeans, GaussianMixture, KMeans
from mmcontrast.stores.hook import Hook
from mmcontrast.stores.pair_mixture import PairMixture

HOOKS: dict[str, type[Hook]] = {
  "kmeans": KMeans,
  "prototype_back_translation": BackTranslation,
  "gaussian_mixture": GaussianMixture,
  "class_means": ClassMeans,
  "pair_mixture": PairMixture,
}

SHARED: dict[str, Any] = {"every_epochs": 1, "first_epoch": 0, "set": ""}
"""Options that all hooks have: how often, from which epoch on, and of which set ("": that which is trained on, or a
name of config.evaluation.data)."""
