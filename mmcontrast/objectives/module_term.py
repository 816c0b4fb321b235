"""Terms that learn or remember something of their own: a Flax module beside towers and heads, in the same objective.

    clusters = dict(module=dict(name="swav", prototypes=300, queue=3840),
                    embeddings=("image[0]/image_ssl", "image[1]/image_ssl"), weight=1.0)

The module is called with what `embeddings` name, in order, and with the facts of the batch, and gives its loss and its
metrics; it is an ordinary Linen module:

    class Mine(ModuleLoss):
      scale: float = 1.0                                               # an option of the config

      @nn.compact
      def __call__(self, views: Sequence[Encoded], facts: Facts):     # -> loss, {"metric": scalar}
        weight = self.param("weight", ...)                             # what it learns
        centre = self.variable("state", "centre", jnp.zeros, (dim,))   # what it remembers: assign to centre.value

What it learns is "terms/NAME/..." among the parameters: the optimizer, weight decay, freezing, LoRA, shardings and
checkpoints treat it as they treat towers, but that a number or array of the module itself (not of a layer in it) is
not decayed, as a temperature is not. What it remembers is carried in the state of the run and saved with it.
Arrays are of the global batch: a sum over the batch is one over all devices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError, nearest
from mmcontrast.modalities import MODALITIES
from mmcontrast.objectives.assignment_prediction import AssignmentPrediction
from mmcontrast.objectives.capro import Capro
from mmcontrast.objectives.captioning import Captioning
from mmcontrast.objectives.classification import Classification
from mmcontrast.objectives.clustered_negatives import ClusteredNegatives
from mmcontrast.objectives.dino import Dino
from mmcontrast.objectives.dynamic_distillation import DynamicDistillation
from mmcontrast.objectives.embedding_path import of_momentum, one_dim, parse_embedding, parse_names
from mmcontrast.objectives.entity_prompts import EntityPrompts
from mmcontrast.objectives.expert_balance import ExpertBalance
from mmcontrast.objectives.gated_subspaces import GatedSubspaces
from mmcontrast.objectives.geodesic_contrast import GeodesicContrast
from mmcontrast.objectives.grouping import Grouping
from mmcontrast.objectives.ibot import Ibot
from mmcontrast.objectives.interaction import Interaction
from mmcontrast.objectives.levels import LevelDivergence
from mmcontrast.objectives.masked_pixels import MaskedPixels
from mmcontrast.objectives.masked_regions import RegionFeatures, RegionWords
from mmcontrast.objectives.masked_words import MaskedWords
from mmcontrast.objectives.matching import Matching
from mmcontrast.objectives.mil_nce import MilNce
from mmcontrast.objectives.module_loss import Facts, ModuleLoss
from mmcontrast.objectives.noisy_pairs import NoisyPairs
from mmcontrast.objectives.order import Order
from mmcontrast.objectives.pixpro import PixPro
from mmcontrast.objectives.point_pixels import PointPixels
from mmcontrast.objectives.presence import taking_part
from mmcontrast.objectives.prototype_alignment import PrototypeAlignment
from mmcontrast.objectives.prototype_contrast import PrototypeContrast
from mmcontrast.objectives.regions import PooledRegions, PromptedRegions
from mmcontrast.objectives.relations import RegionRelations
from mmcontrast.objectives.sepclr import AttributeAlignment, SepClr
from mmcontrast.objectives.shared_concepts import SharedConcepts
from mmcontrast.objectives.slotcon import SlotContrast, SlotDistill
from mmcontrast.objectives.snippet_bags import SnippetBags
from mmcontrast.objectives.supremix import SupReMix
from mmcontrast.objectives.swalip import Swalip
from mmcontrast.objectives.swav import Swav
from mmcontrast.objectives.term import Memory, Now, Outcome, Parameters, Run, Term
from mmcontrast.objectives.video_prompts import VideoPromptContrast
from mmcontrast.objectives.weighted_negatives import AdaptiveNegatives
from mmcontrast.objectives.word_classification import WordClassification
from mmcontrast.registry import REQUIRED, build, check_options

MODULES: dict[str, type[ModuleLoss]] = {
  "swav": Swav,
  "dino": Dino,
  "classification": Classification,
  "prototype_contrast": PrototypeContrast,
  "prototype_alignment": PrototypeAlignment,
  "clustered_negatives": ClusteredNegatives,
  "word_classification": WordClassification,
  "assignment_prediction": AssignmentPrediction,
  "capro": Capro,
  "entity_prompts": EntityPrompts,
  "mil_nce": MilNce,
  "adaptive_negatives": AdaptiveNegatives,
  "sepclr": SepClr,
  "attribute_alignment": AttributeAlignment,
  "swalip": Swalip,
  "pixpro": PixPro,
  "slot_distill": SlotDistill,
  "slot_contrast": SlotContrast,
  "matching": Matching,
  "masked_words": MaskedWords,
  "region_words": RegionWords,
  "region_features": RegionFeatures,
  "caption": Captioning,
  "masked_pixels": MaskedPixels,
  "order": Order,
  "video_prompts": VideoPromptContrast,
  "ibot": Ibot,
  "supremix": SupReMix,
  "snippet_bags": SnippetBags,
  "grouping": Grouping,
  "shared_concepts": SharedConcepts,
  "level_divergence": LevelDivergence,
  "interaction": Interaction,
  "pooled_regions": PooledRegions,
  "prompted_regions": PromptedRegions,
  "region_relations": RegionRelations,
  "point_pixels": PointPixels,
  "noisy_pairs": NoisyPairs,
  "gated_subspaces": GatedSubspaces,
  "geodesic_contrast": GeodesicContrast,
  "dynamic_distillation": DynamicDistillation,
  "expert_balance": ExpertBalance,
}


@dataclass(frozen=True)
class ModuleTerm(Term):
  """A kind of term: a module with parameters and state of its own."""

  name: str
  given: tuple[str, ...]
  module: ModuleLoss
  weight: Any
  writes_table: ClassVar[bool] = False

  @property
  def embeddings(self) -> tuple[str, ...]:
    return self.given

  @property
  def spaces(self) -> tuple[str, ...]:
    return self.given

  @property
  def table(self) -> Mapping[str, float]:
    return self.module.table

  @property
  def wants(self) -> dict[str, tuple[str, ...]]:
    asked: dict[str, tuple[str, ...]] = {}
    for place, name in enumerate(self.given):
      fields = tuple(field for field in self.module.takes(place) if field not in (*_WORDS, "mask"))
      asked |= {name: fields} if fields else {}
    return asked

  @property
  def schedules(self) -> dict[str, tuple[Any, str]]:
    where = f"objective.{self.name}.module"
    return {name: (getattr(self.module, name), f"{where}.{name}") for name in self.module.SCHEDULED}

  def init(self, key: jax.Array | None, shapes: Mapping[str, Encoded]) -> tuple[dict[str, Any], dict[str, Any]]:
    views = [jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes[name]) for name in self.given]
    valid = jnp.ones(jax.tree.leaves(views[0])[0].shape[0], bool)
    scheduled = dict.fromkeys(self.module.SCHEDULED, jnp.float32(1.0))
    rows = {name: jnp.full(len(valid), value, jnp.float32) for name, value in self.table.items()}
    try:
      made = self.module.init(key, views, Facts(self.given, valid, jnp.int32(0), scheduled, {}, rows))
    except UserError as error:
      raise UserError(f"objective.{self.name}.{error}") from None
    return made.get("params", {}), made.get("state", {})

  def loss(
    self, nodes: Mapping[str, Encoded], parameters: Parameters, memory: Memory, facts: Mapping[str, Any], now: Now
  ) -> Outcome:
    views = [lax.stop_gradient(nodes[name]) if of_momentum(name) else nodes[name] for name in self.given]
    some = taking_part(facts, self.reads)
    valid = jnp.ones(jax.tree.leaves(views[0])[0].shape[0], bool) if some is None else some
    variables = {"params": parameters.get(self.name, {}), "state": memory.state}
    told = Facts(self.given, valid, now.step, now.scheduled, facts, memory.rows, now.matrix)
    (loss, metrics), new = self.module.apply(variables, views, told, mutable=["state"])
    anchors = {} if some is None else {"anchors": jnp.sum(some, dtype=jnp.float32)}
    return Outcome(loss, {**metrics, **anchors}, memory.rows, new.get("state", {}))

  def check(self, run: Run) -> None:
    where = f"objective.{self.name}"
    for place, name in enumerate(self.given):
      head = parse_embedding(name).head
      for field in (one for one in self.module.takes(place) if one in _WORDS and one not in run.fields(head)):
        fitting = [other for other in run.heads if field in run.fields(other)]
        raise UserError(
          f"{where}.embeddings: the module takes {_WORDS[field]}, which head {head!r} does not give"
          + (f"; {nearest(head, fitting)}" if fitting else f"; no head of this run does: {_HEADS[field]}")
        )
      for fact in self.module.view_facts(name):
        _check_fact(fact, name, f"{where}.module", run)
    if self.module.ONE_SPACE:
      one_dim(self.name, self.given, run.head_dims)
    try:
      self.module.check_views(self.given, run)
    except UserError as error:
      raise UserError(f"{where}.{error}") from None

  def after_step(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    return self.module.after_step(parameters)

  def after_cut(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
    return self.module.after_cut(state)


def _check_fact(fact: str, name: str, where: str, run: Run) -> None:
  """Raises UserError unless batches say `fact` of the view that an embedding is of, a fusion of that at its first
  end."""
  view = parse_embedding(name).source.first
  known = MODALITIES[view.modality].facts_of(view.views)
  if fact not in known:
    raise UserError(
      f"{where}: asks for the {fact!r} of {name!r}, and of {view.views} views "
      + (f"only {', '.join(map(repr, known))} is known" if known else "nothing is known")
      + "; take it out of embeddings"
    )
  if fact not in run.facts.get(view.views, ()):
    raise UserError(f"{where}: asks for the {fact!r} of {name!r}; add it to config.data.facts, ({fact!r},)")


_WORDS = {
  "pooled": "one vector an example", "tokens": "tokens", "weights": "weights of tokens", "logits": "logits",
}  # fmt: skip
_HEADS = {
  "pooled": "add one such as dict(name='linear', dim=256)",
  "tokens": "add one such as dict(name='token_linear', dim=256)",
  "weights": "add one such as dict(name='token_weighted', dim=256)",
  "logits": "add one such as dict(name='match')",
}

DEFAULTS = {"module": REQUIRED, "embeddings": (), "matryoshka": (), "balance": False, "weight": 1.0}
"""The options of an entry and their defaults (`REQUIRED`: required)."""


def parse_module(name: str, config: Mapping[str, Any]) -> ModuleTerm:
  """Makes a module term of its config; raises UserError naming entry, key and nearest choice."""
  where = f"objective.{name}"
  check_options(config, DEFAULTS, where)
  module = build(MODULES, config["module"], f"{where}.module")
  return ModuleTerm(
    name, parse_names(config.get("embeddings", ()), f"{where}.embeddings"), module, config.get("weight", 1.0)
  )
