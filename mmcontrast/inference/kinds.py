"""What a run can be asked for: the kinds that `Inference.embed` takes, and which of them can be compared.

image, text, audio         rows in the joint space: the heads of config.evaluation.image, .text, ...
image_features             the pooled output of the tower config.evaluation.features, for probes
text/text_joint            unit rows of a head, as terms read it
audio/audio_ssl.pooled     what a node makes, a tower or a head: pooled, logits, or the mean of its tokens or map
fusion/match.logits        what is made by a tower that reads those of several modalities, or by a head on it
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from mmcontrast.data.settings import resolve
from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError, choose
from mmcontrast.evaluation.embed import Space, features_of
from mmcontrast.modalities import MODALITIES
from mmcontrast.modalities.views import Inputs
from mmcontrast.models.decoding import decoders_of
from mmcontrast.models.model import Model
from mmcontrast.objectives.embedding_path import parse_embedding
from mmcontrast.objectives.score import Score
from mmcontrast.objectives.terms import comparisons, parse_terms, trained_widths

FIELDS = ("pooled", "tokens", "map", "logits")
"""What of a node can be asked for."""


class Kind(NamedTuple):
  """A kind taken apart: the modalities of its values, one but for a fusion; the tower, the head on it ("": none), and
  what of it is wanted; "": its unit rows."""

  modalities: tuple[str, ...]
  tower: str
  head: str
  field: str

  @property
  def modality(self) -> str:
    """The modality of its values, "" of a fusion."""
    return self.modalities[0] if len(self.modalities) == 1 else ""


def heads_of(config: Mapping[str, Any], model: Model) -> dict[str, str]:
  """Modality -> the head that `config.evaluation` names for it. Raises UserError where the model has none of that
  name, or has it on the tower of another modality."""
  heads = {modality: head for modality in MODALITIES if (head := config["evaluation"].get(modality))}
  for modality, head in heads.items():
    where = f"config.evaluation.{modality}"
    choose(head, model.heads, where)
    of = model.node_of_head[head]
    if of != modality:
      fitting = [one for one, node in model.node_of_head.items() if node == modality]
      raise UserError(f"{where}: head {head!r} is on a tower of {of}; one of: {', '.join(fitting) or 'none'}")
  return heads


def probed_of(config: Mapping[str, Any], model: Model) -> str:
  """The modality of the tower config.evaluation.features; "" where it names none of the run's."""
  return model.modality_of_tower.get(config["evaluation"]["features"], "")


def width_of(config: Mapping[str, Any], model: Model, where: str = "") -> int:
  """How many of the first numbers of the joint space's vectors are compared, by `config.evaluation.width`; 0: all.

  Raises UserError for a width at which the objective did not train a head (`matryoshka`), naming `where` it is given.
  """
  width = config["evaluation"].get("width", 0)
  where = where or f"config.evaluation.width={width}"
  if width and not heads_of(config, model):
    raise UserError(f"{where}: config.evaluation names no head of a joint space in this run; leave the width out")
  for head in heads_of(config, model).values() if width else ():
    trained = trained_widths(config["objective"], head)
    if width in trained or width == model.head_dims.get(head):
      continue
    widths = ", ".join(map(str, trained))
    raise UserError(
      f"{where}: head {head!r} was not trained at that width; "
      + (f"it was at {widths}" if trained else "it was trained whole: a term's matryoshka=(64, ...) trains others")
    )
  return width


def parse_kind(kind: str, config: Mapping[str, Any], model: Model) -> Kind:
  """A kind taken apart; raises UserError, naming what there is, where this run has none of that name."""
  heads, probed = heads_of(config, model), probed_of(config, model)
  usual = [*heads, *((features_of(probed),) if probed else ())]
  _, slash, node = kind.partition("/")
  if not slash:
    choose(kind, usual, "embed")
    if kind in heads:
      return Kind((kind,), model.tower_of_head[heads[kind]], heads[kind], "")
    return Kind((probed,), config["evaluation"]["features"], "", "pooled")
  name, dot, field = node.partition(".")
  field = choose(field, FIELDS, f"embed: {kind}") if dot else ""
  nodes = nodes_of(model)
  known = [f"{model.node_of(node)}/{node}" for node in nodes]
  if kind.partition(".")[0] not in known:
    choose(kind, [*usual, *known], "embed")
  if name in model.heads:
    return Kind(nodes[name], model.tower_of_head[name], name, field)
  return Kind(nodes[name], name, "", field or "pooled")


def nodes_of(model: Model) -> dict[str, tuple[str, ...]]:
  """Tower or head -> the modalities of the views at its ends, in order, once each; where a tower and a head have one
  name, it is the head's. A fusion of two views of one modality is none: things of an evaluation are of one view."""
  towers = {tower: modalities_of(model, tower) for tower in model.towers}
  nodes = {**towers, **{head: towers[tower] for head, tower in model.tower_of_head.items()}}
  return {node: modalities for node, modalities in nodes.items() if len(set(modalities)) == len(modalities)}


def modalities_of(model: Model, tower: str) -> tuple[str, ...]:
  """The modalities of the views at the ends of a tower, in order."""
  if tower in model.reads:
    return tuple(modality for read in model.reads[tower] for modality in modalities_of(model, read))
  return (model.modality_of_tower[tower],)


def space_of(config: Mapping[str, Any], model: Model, variables: Any) -> Space:
  """What evaluators and search may ask of a run; of `variables` the shapes will do. Raises UserError as `heads_of`,
  `width_of` and `token_scores`."""
  heads, scores = heads_of(config, model), token_scores(config, model)
  dims = model.head_dims
  width_of(config, model)

  def comparable(one: str, other: str) -> bool:
    if {heads[one], heads[other]} & model.token_heads:
      return (one, other) in scores
    return dims.get(heads[one]) in (None, dims.get(heads[other])) or dims.get(heads[other]) is None

  joint = {one: tuple(other for other in heads if other != one and comparable(one, other)) for one in heads}

  def outputs(node: str) -> dict[str, int]:
    of = parse_kind(f"{model.node_of(node)}/{node}.tokens", config, model)
    run = {**config, "data": resolve(config["data"])}
    zeros = {modality: MODALITIES[modality].zeros(2, run) for modality in of.modalities}
    made = jax.eval_shape(lambda variables: outputs_of(run_node(model, variables, of, zeros)), variables)
    return {name: one.shape[-1] for name, one in made.items()}

  nodes = nodes_of(model)
  describes = [head for head, hindrance in decoders_of(model).items() if not hindrance]
  matches, guesses = matching_heads(nodes, model), guessing_heads(nodes, model)
  return Space(
    joint, probed_of(config, model), nodes, matches, describes, outputs, model.node_of, guesses, tuple(model.towers)
  )


def token_scores(config: Mapping[str, Any], model: Model) -> dict[tuple[str, str], tuple[Score, bool]]:
  """(modality of a query, of the gallery) -> the score of tokens they are compared by, and whether the query is that
  score's column.

  It is that of the term whose query has the one's head and whose key has the other's, or the other way round. Empty
  when the heads give vectors.

  Raises:
    UserError: a head gives tokens that no term compares with those of another.
  """
  heads, found = heads_of(config, model), {}
  if not set(heads.values()) & model.token_heads:
    return found
  sides = {
    (parse_embedding(one.query[0]).head, parse_embedding(one.key[0]).head): one.score
    for one in reversed(comparisons(parse_terms(config["objective"])))
    if one.score.tokens
  }
  for one, other in ((one, other) for one in heads for other in heads if one != other):
    wanted = heads[one], heads[other]
    if wanted in sides or wanted[::-1] in sides:
      found[one, other] = (sides[wanted], False) if wanted in sides else (sides[wanted[::-1]], True)
  for one, head in heads.items():
    if head in model.token_heads and not any(one == query for query, _ in found):
      others = " or ".join(repr(heads[other]) for other in heads if other != one) or "''"
      raise UserError(
        f"config.evaluation.{one}: no term compares the tokens of {head!r} and {others}; "
        "name two heads that one does, or heads that give one vector"
      )
  return found


def matching_heads(nodes: Mapping[str, tuple[str, ...]], model: Model) -> dict[str, tuple[str, ...]]:
  """Head -> the modalities that it matches, in the order of its tower's `reads`: of heads that give logits and whose
  tower reads the towers of two modalities."""
  return {
    node: modalities
    for node, modalities in nodes.items()
    if len(modalities) == 2 and node in model.heads and model.made_by_head[node] == {"logits"}
  }


def guessing_heads(nodes: Mapping[str, tuple[str, ...]], model: Model) -> dict[str, tuple[str, ...]]:
  """Head -> the modalities that it reads, texts first: of heads that guess words of a text, each from all others."""
  return {
    node: modalities
    for node, modalities in nodes.items()
    if node in model.heads
    and model.made_by_head[node] == {"logits", "mask"}
    and modalities[0] == "text"
    and len(modalities) <= 2
    and not getattr(model.towers[model.tower_of_head[node]], "causal", False)
    and not getattr(model.towers[model.tower_of_head[node]], "SECOND", False)
  }


def run_node(model: Model, variables: Any, of: Kind, inputs: Mapping[str, Inputs]) -> Encoded:
  """What a node makes, as in evaluation.

  Args:
    inputs: modality -> what towers read of B things; those of a fusion belong together.
  """
  alone = not (of.head and model.needs_tokens(of.head)) and of.field in ("", "pooled", "logits")
  encoded = _encoded(model, variables, of.tower, inputs, alone)
  return model.embed_through(variables, of.head, encoded) if of.head else encoded


def _encoded(model: Model, variables: Any, tower: str, inputs: Mapping[str, Inputs], pooled_only: bool) -> Encoded:
  if reads := model.reads.get(tower):
    encoded = [_encoded(model, variables, one, inputs, False) for one in reads]
    return model.fuse(variables, tower, encoded, pooled_only=pooled_only)[0]
  return model.encode(variables, tower, inputs[model.modality_of_tower[tower]], pooled_only=pooled_only)[0]


def outputs_of(made: Encoded) -> dict[str, jax.Array]:
  """What a node makes, of FIELDS."""
  return {name: found for name in FIELDS if (found := getattr(made, name, None)) is not None}


def check_made(made: Encoded, node: str, field: str, where: str) -> None:
  """Raises UserError where a node does not make what is asked of it."""
  has = list(outputs_of(made))
  if field not in has:
    raise UserError(f"{where}: {node!r} makes no {field}; it makes {', '.join(has)}: write {node}.{has[0]}")
