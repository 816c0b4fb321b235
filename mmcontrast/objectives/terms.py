"""Terms: the weighted edges of the method graph, from their config to their sum.

    objective = dict(
        image_text=dict(
            query="image[0]/image_joint", key="text[0]/text_joint",  # or lists of them
            score="cosine", target="identity", criterion="softmax",  # or dict(name=..., ...)
            negatives="batch",       # "queue:K": own key and queue (MoCo); "batch+queue:K" (ALBEF)
            negative_keys=(),        # more keys for every query, positives of none: hard negatives
            negative_queries=(),     # and more queries for every key
            negative_weights=None,   # (w, v): a hard negative counts w times for its own example, v times for others;
                                     # (1, 0): no other example sees it
            token_keys=False,        # keys are of a token head, and each token is a key of its own
            prototypes=0,            # so many learned vectors that every anchor sees beside the others
            direction="both",        # "rows" (each query chooses a key), "columns", or their mean
            # or 0.1, or another term's name, or dict(schedule=dict(name="cosine", init=0.2, end=0.05))
            temperature=dict(init=0.07, learned=True, min=0.01),
            matryoshka=(),           # (64, 128, 512): at these widths of the embeddings at once (matryoshka.py)
            balance=False,           # True: a learned weight (balance.py)
            bias=None, weight=1.0))

A list of queries or keys stacks the views of each example (K captions an image); the same list on
both sides contrasts the views with each other, each embedding leaving itself out (NT-Xent, SupCon).
A queue holds keys; with direction "columns", where keys choose, it holds queries. Prototypes are
negatives, but under target same_label prototype k is a positive of class k.
A score of more than two modalities (gram_volume, multilinear) makes one column of an example's keys;
`negatives="permuted"` and "combined" are then tuples of different examples' keys (tuple_negatives.py).

An entry with "regularizer" asks something of embeddings themselves (regularizers.py). One with "module" is a
term that learns parameters or remembers arrays of its own: clusters, centres (module_term.py). One with "auxiliary"
adds a loss that a tower or a head makes itself (auxiliary.py).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError, choose, nearest
from mmcontrast.modalities import MODALITIES
from mmcontrast.objectives.comparison import Comparison
from mmcontrast.objectives.drawn_pairs import check_drawn
from mmcontrast.objectives.embedding_path import Source, online, parse_embedding
from mmcontrast.objectives.parse import Terms
from mmcontrast.objectives.parse import parse_terms as _parse
from mmcontrast.objectives.term import Memory, Now, Run


def parse_terms(objective: Mapping[str, Any]) -> Terms:
  """Makes the terms of a config; raises UserError naming term, key and nearest valid choice."""
  terms = _parse(objective)
  queues(terms)
  return terms


def check_terms(terms: Terms, *, views: Mapping[str, int], momentum: bool = True, **run: Any) -> None:
  """Checks the terms against the rest of a run; raises UserError before anything compiles.

  Args:
    views: set of views -> how many.
    momentum: whether there is a momentum branch.
    run: the attributes of `term.Run`.
  """
  known = Run(**run, views=views)
  for term in terms.values():
    for name in term.embeddings:
      check_path(name, f"objective.{term.name}: embedding {name!r}", views, known, momentum)
    term.check(known)
  check_drawn(terms, known)


def check_nodes(terms: Terms, nodes: Mapping[str, Encoded]) -> None:
  """Checks that nodes make what terms want of them, from their shapes; raises UserError naming what they do make."""
  for term in terms.values():
    for name, fields in term.wants.items():
      for field in fields:
        if field not in nodes[name].fields:
          made = ", ".join(sorted(nodes[name].fields))
          raise UserError(f"objective.{term.name}: wants {_of_field(field)} of {name!r}, which makes {made} only")


def _of_field(field: str) -> str:
  return "a feature map (grid)" if field == "grid" else field


def wanted_nodes(terms: Terms) -> tuple[str, ...]:
  """The embeddings whose shapes `check_nodes` must know."""
  return tuple(dict.fromkeys(name for term in terms.values() for name in term.wants))


def check_path(name: str, where: str, views: Mapping[str, int], run: Run, momentum: bool) -> None:
  """Checks that the views and the head of an embedding exist, and are of the towers that it names."""
  path = parse_embedding(name, where)
  _check_source(path.source, where, views, run)
  node = path.source.tower or path.modality
  if run.heads[choose(path.head, run.heads, f"{where}: head")] != node:
    fitting = [head for head, other in run.heads.items() if other == node]
    raise UserError(
      f"{where}: head {path.head!r} is on the {run.heads[path.head]} tower"
      + (f"; {nearest(path.head, fitting)}" if fitting else f", and no head is on {node!r}")
    )
  if path.momentum and not momentum:
    raise UserError(f"{where}: there is no momentum branch; set momentum=dict(decay=0.999) or write {online(name)!r}")


def _check_source(source: Source, where: str, views: Mapping[str, int], run: Run) -> None:
  """Checks that views exist, and that towers that read others are named with what these read."""
  if source.tower:
    reads = run.reads[choose(source.tower, run.reads, f"{where}: tower with reads")]
    if len(reads) != len(source.inputs):
      raise UserError(f"{where}: tower {source.tower!r} reads {', '.join(reads)}, and {len(source.inputs)} are named")
    for read, inner in zip(reads, source.inputs):
      if (inner.tower or inner.modality) != run.towers.get(read, read):
        raise UserError(
          f"{where}: tower {source.tower!r} reads {', '.join(reads)} in this order, and "
          f"{inner.tower or inner.views!r} stands where {read!r} is"
        )
      _check_source(inner, where, views, run)
    return
  count = views[choose(source.views, views, f"{where}: modality")]
  if source.view >= count:
    key = MODALITIES[source.modality].count_key(source.views)
    exist = f"{source.views}[0] to [{count - 1}] exist" if count else "there are none"
    raise UserError(f"{where}: {key} is {count}, so {exist}")


def required_embeddings(terms: Terms) -> tuple[str, ...]:
  """Every embedding the terms read, once, in order of first use."""
  return tuple(dict.fromkeys(name for term in terms.values() for name in term.embeddings))


def queues(terms: Terms) -> dict[str, int]:
  """Embedding -> length of its queue, shared by all terms that queue it."""
  found: dict[str, int] = {}
  for term in terms.values():
    if term.queued and found.setdefault(term.queued, term.queue_length) != term.queue_length:
      raise UserError(
        f"objective.{term.name}.negatives: the queue of {term.queued!r} has length "
        f"{found[term.queued]} in another term; use one length for one embedding"
      )
  return found


def tables(terms: Terms) -> dict[str, Mapping[str, float]]:
  """Term -> what it remembers of each example (stores.table): name -> the value of one not seen yet."""
  return {name: term.table for name, term in terms.items() if term.table}


def schedules(terms: Terms) -> dict[str, Mapping[str, tuple[Any, str]]]:
  """Term -> its numbers that follow a schedule, weight aside: name -> (schedule, where it is configured)."""
  return {name: term.schedules for name, term in terms.items() if term.schedules}


def comparisons(terms: Terms) -> list[Comparison]:
  """What terms compare, of those that compare something, in order."""
  return [found for term in terms.values() if (found := term.compares)]


def logits_between(
  objective: Mapping[str, Any], parameters: Mapping[str, Any], heads: Collection[str], query: str = ""
) -> tuple[float | None, float | None]:
  """(scale, bias) of the first term of a config that compares two heads, of what all terms have learned.

  (None, None) where no term compares them, or a schedule says the scale; the bias is None where there is none.
  `query`: of the two, the head that a term should have as its query where several compare them.
  """
  found = []
  for term in parse_terms(objective).values() if objective and len(set(heads)) == 2 else ():
    sides = (term.compares.query, term.compares.key) if term.compares else ((), ())
    queries, keys = ({parse_embedding(name).head for name in side} for side in sides)
    if queries | keys == set(heads) and (logits := term.logit_scale(parameters)):
      if query in ("", *queries):
        return logits
      found.append(logits)
  return found[0] if found else (None, None)


def trained_widths(objective: Mapping[str, Any], head: str) -> tuple[int, ...]:
  """At how many of the first numbers of a head's vectors the terms of a config train them (matryoshka.py), ascending;
  () where at all of them only."""
  found: set[int] = set()
  for term in parse_terms(objective).values() if objective else ():
    if head in {parse_embedding(path).head for path in term.compared}:
      found |= set(term.widths)
  return tuple(sorted(found))


def spaces(terms: Terms) -> tuple[str, ...]:
  """The embeddings whose shapes `init_parameters` and `init_states` must know."""
  return tuple(dict.fromkeys(name for term in terms.values() for name in term.spaces))


def init_parameters(
  terms: Terms, key: jax.Array | None = None, shapes: Mapping[str, Encoded] | None = None
) -> dict[str, dict[str, Any]]:
  """What terms learn, float32: term -> {"log_scale"|"tau", "bias", "prototypes" [K, D]}, or a module's arrays.

  Args:
    key, shapes: a PRNG key, and embedding -> Encoded of `spaces`, whose shapes count; only terms with such need them.
  """
  return {name: found[0] for name, found in _init(terms, key, shapes).items() if found[0]}


def init_states(
  terms: Terms, key: jax.Array | None = None, shapes: Mapping[str, Encoded] | None = None
) -> dict[str, Any]:
  """Term -> its own arrays before the first step, of those that have any (arguments as of `init_parameters`)."""
  return {name: found[1] for name, found in _init(terms, key, shapes).items() if found[1]}


def _init(terms: Terms, key: jax.Array | None, shapes: Mapping[str, Encoded] | None) -> dict[str, tuple[Any, Any]]:
  # Terms that compare are counted first: a term of another kind beside them does not change what they draw.
  order = sorted(terms.values(), key=lambda term: term.compares is None)
  return {
    term.name: term.init(None if key is None else jax.random.fold_in(key, number), shapes or {})
    for number, term in enumerate(order)
  }


def clamp_after_step(terms: Terms, parameters: Mapping[str, Any]) -> dict[str, Any]:
  """What terms have learned, after the optimizer's step: moved back to where it must stay."""
  return {name: terms[name].after_step(own) for name, own in parameters.items()}


def keys_to_push(terms: Terms, embeddings: Mapping[str, Any]) -> dict[str, jax.Array]:
  """Queue name -> its new keys [N, D], prepared as the term's score wants them (unit float32)."""
  nodes = _as_encoded(embeddings)
  return {term.queued: term.new_keys(nodes) for term in terms.values() if term.queued}


def _number(value: Any, where: str, argument: str) -> float:
  """A number of a config that is not given now; raises UserError when it follows a schedule."""
  if hasattr(value, "keys"):
    raise UserError(f"{where}: follows the schedule {value.get('name')!r}; give its value now in {argument}")
  return value


def evaluate(*arguments: Any, **options: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
  """`evaluate_and_remember` of terms that remember nothing: (loss, metrics)."""
  return evaluate_and_remember(*arguments, **options)[:2]


def evaluate_and_remember(
  terms: Terms,
  embeddings: Mapping[str, Any],
  info: Mapping[str, Any],
  parameters: Mapping[str, Any],
  queues: Mapping[str, Any],
  weights: Mapping[str, Any],
  *,
  mesh: jax.sharding.Mesh | None = None,
  impl: str = "auto",
  tile: int = 512,
  precision: str = "highest",
  scheduled: Mapping[str, Mapping[str, Any]] | None = None,
  remembered: Mapping[str, Mapping[str, jax.Array]] | None = None,
  states: Mapping[str, Any] | None = None,
  step: Any = 0,
) -> tuple[jax.Array, dict[str, jax.Array], dict[str, dict[str, jax.Array]], dict[str, Any]]:
  """The weighted sum of all terms over the global batch.

  Args:
    embeddings: name -> Encoded of any float type, not normalised; an array [N, D] is one of vectors.
    info: what targets read ("id" [N], "tags" [N, T], "labels" {name: [N]}) and "valid" bool [N];
      examples that are not valid are neither anchors, positives nor negatives, and not counted.
      "present" {modality: bool [N]}: an example that lacks a modality is not valid in the terms
      that read it.
      "weight" [N] >= 0, if there: of each anchor in the mean over anchors (metrics are unweighted).
    parameters: what the terms learn, as from `init_parameters`.
    queues: embedding -> queue (stores.queue); what it does not know cannot be a positive.
    weights: term -> its weight now; of a term that is not there, the one of its config, which must be a number.
    mesh, impl, tile, precision: how the matrix is computed (global_matrix.reduce_tiles).
    scheduled: term -> the values now of its `schedules`; those that are numbers need not be there.
    remembered: term -> the rows [N] of its table (`tables`) for the examples of the batch.
    states: term -> its own arrays, as from `init_states`.
    step: steps done, int32 [].

  Returns:
    (loss, metrics, new rows of the tables, new states). Metrics are "<term>/loss" (unweighted), "/weight", what is
    scheduled ("/gamma"), and of terms that compare "/temperature", "/anchors" (how many of the batch are there and
    have a positive), "/top1" (share of those whose best positive beats every negative), "/positive" and "/negative"
    (mean scores); of others "/anchors" (how many examples take part) where some may be missing.
  """
  nodes, matrix = _as_encoded(embeddings), {"mesh": mesh, "impl": impl, "size": tile, "precision": precision}
  total, metrics, new_rows, new_states = jnp.zeros(()), {}, {}, {}
  for name, term in terms.items():
    now = dict((scheduled or {}).get(name, {}))
    for key, (schedule, where) in term.schedules.items():
      if key not in now:
        now[key] = _number(schedule, where, "`scheduled`")
    rows, state = (remembered or {}).get(name, {}), (states or {}).get(name, {})
    memory = Memory(queues.get(term.queued), rows, jax.lax.stop_gradient(state))
    found = term.loss(nodes, parameters, memory, info, Now(step, now, matrix))
    weight = weights[name] if name in weights else _number(term.weight, f"objective.{name}.weight", "`weights`")
    total = total + weight * found.loss
    if found.rows:
      new_rows[name] = found.rows
    if found.state:
      new_states[name] = jax.lax.stop_gradient(found.state)
    for key, value in {**found.metrics, "loss": found.loss, "weight": weight, **now}.items():
      metrics[f"{name}/{key}"] = jax.lax.stop_gradient(jnp.asarray(value))
  return total, metrics, new_rows, new_states


def _as_encoded(embeddings: Mapping[str, Any]) -> dict[str, Encoded]:
  return {name: x if isinstance(x, Encoded) else Encoded(x) for name, x in embeddings.items()}
