"""What makes no sense is refused before anything compiles, in one line that says what to change."""

from __future__ import annotations

from collections.abc import Mapping

from mmcontrast.errors import UserError, nearest
from mmcontrast.objectives.edge import Edge
from mmcontrast.objectives.embedding_path import of_momentum, one_dim, online, parse_embedding
from mmcontrast.objectives.term import Run


def check_combination(term: Edge, where: str) -> None:
  """Checks that the choices of one term go together; raises UserError naming `where`.

  What a criterion, a score or a target asks of its term it checks itself (`Criterion.check`, ...).
  """
  _check_keys(term, where)
  if term.score.joins or term.negatives in ("permuted", "combined"):
    _check_tuples(term, where)
  _check_anchor(term, where)
  term.criterion.check(term, where)
  _check_token_keys(term, where)
  term.score.check(term, where)
  _check_hard_negatives(term, where)
  term.target.check(term, where)
  _check_weights(term, where)
  _check_prototypes(term, where)
  if term.queue_length:
    _check_queue(term, where)


def _knows_every_column(term: Edge) -> bool:
  """Whether the target weighs any column for a query, one that is of no example of the batch, too."""
  return term.target.knows_every_column and term.direction == "rows"


def _check_keys(term: Edge, where: str) -> None:
  """Checks that queries and keys are the same list, of more than themselves, or have nothing in common."""
  both = list(term.on_both_sides)
  if both and term.query != term.key:
    raise UserError(
      f"{where}.key: {both} are queries too; make query and key equal lists "
      "(each embedding then leaves itself out) or have nothing in common"
    )
  if both and len(term.query) == 1 and term.target.kind == "itself":
    raise UserError(
      f"{where}.key: {term.key[0]!r} would be compared only with itself; name two or more views on both sides"
    )


def _check_anchor(term: Edge, where: str) -> None:
  """Checks that a criterion of each example's own pair is given one."""
  keys = 1 if term.score.joins else len(term.key)
  if term.criterion.needs_anchor and (term.on_both_sides or len(term.query) != 1 or keys != 1):
    raise UserError(f"{where}.criterion: hinge measures from the own pair; give it one query and one other key")


def _check_token_keys(term: Edge, where: str) -> None:
  """Checks keys that are tokens."""
  if term.token_keys and (
    term.on_both_sides
    or term.direction != "rows"
    or term.negatives != "batch"
    or term.score.tokens
    or term.target.kind == "soft"
    or term.criterion.needs_anchor
  ):
    raise UserError(
      f"{where}.token_keys: each token is a key for queries of one vector; use direction='rows', negatives='batch', "
      "other keys than queries, a score of vectors, a set of positives such as 'identity', and no hinge"
    )


def _check_hard_negatives(term: Edge, where: str) -> None:
  """Checks that some anchor sees them, and that what they weigh has a denominator."""
  if term.negative_weights and not (term.negative_keys or term.negative_queries):
    raise UserError(f"{where}.negative_weights: there are no hard negatives; name negative_keys or negative_queries")
  if term.negative_weights and not term.criterion.counts_negatives:
    raise UserError(f"{where}.negative_weights: weights are counts in a denominator; use criterion='softmax'")
  for side, direction in (("negative_keys", "rows"), ("negative_queries", "columns")):
    if getattr(term, side) and term.direction not in (direction, "both"):
      raise UserError(
        f"{where}.{side}: no anchor sees them in direction {term.direction!r}; use direction={direction!r} or 'both'"
      )


def _check_weights(term: Edge, where: str) -> None:
  """Checks that the target knows the weights of all pairs, and that the criterion can take them."""
  if term.criterion.needs_bounded_weights and not term.target.bounded:
    raise UserError(
      f"{where}.target.overlap: sigmoid needs weights up to 1, and a count has no bound; use overlap='jaccard'"
    )
  extra = [name for name in ("negative_keys", "negative_queries", "prototypes") if getattr(term, name)]
  if term.target.kind == "soft" and extra and not _knows_every_column(term):
    raise UserError(
      f"{where}.target: soft weights of {' and '.join(extra)} are unknown; leave {'it' if len(extra) == 1 else 'them'} "
      "out, or use a set of positives such as 'same_id'"
    )


def _check_prototypes(term: Edge, where: str) -> None:
  """Checks that prototypes are what the score compares."""
  if term.prototypes and term.score.tokens:
    raise UserError(
      f"{where}.prototypes: a prototype is one vector, and score {term.score.name!r} compares tokens; "
      "use score='cosine'"
    )


def _check_queue(term: Edge, where: str) -> None:
  """Checks that a queue holds vectors of one momentum embedding, of which the target knows the weights."""
  side = "query" if term.direction == "columns" else "key"
  names = getattr(term, side)
  if len(names) != 1 or not of_momentum(names[0]):
    raise UserError(
      f"{where}.{side}: a queue holds keys of one momentum embedding, "
      f"not {list(names)}; write '{online(names[0])}@momentum' "
      "or negatives='batch'"
    )
  if term.direction == "both":
    raise UserError(
      f"{where}.direction: 'both' does not go with a queue, whose keys "
      "have no query of their own; use 'rows', and a second term for the way back"
    )
  if term.score.tokens:
    raise UserError(
      f"{where}.negatives: a queue holds one vector for each example, and score {term.score.name!r} "
      "compares tokens; use negatives='batch'"
    )
  if term.target.kind == "soft" and not (_knows_every_column(term) and term.negatives == "batch+queue"):
    raise UserError(
      f"{where}.target: soft weights of queued keys are unknown; use "
      "negatives='batch', or a teacher without key and 'batch+queue'"
    )


def _check_tuples(term: Edge, where: str) -> None:
  """Checks a term whose score joins keys, or whose negatives are tuples of keys."""
  if not term.score.joins:
    raise UserError(
      f"{where}.negatives: {term.negatives!r} mixes keys that score {term.score.name!r} does not join; "
      "use negatives='batch', or score='multilinear'"
    )
  if len(term.query) != 1:
    raise UserError(f"{where}.query: score {term.score.name!r} has one anchor, not {list(term.query)}; name one")
  if len(term.key) < 2:
    raise UserError(
      f"{where}.key: score {term.score.name!r} compares an anchor with two or more keys together, "
      f"not {list(term.key)}; name more, or use score='cosine'"
    )
  extra = {
    "negatives": term.queue_length,
    "negative_keys": term.negative_keys,
    "prototypes": term.prototypes,
    "token_keys": term.token_keys,
  }
  if any(extra.values()):
    raise UserError(
      f"{where}.{next(name for name in extra if extra[name])}: a column of score {term.score.name!r} is "
      f"made of {len(term.key)} keys of the batch; use negatives='batch', 'permuted' or 'combined'"
    )
  if term.negatives == "batch":
    return
  if term.direction != "rows" or term.negative_queries:
    raise UserError(
      f"{where}.direction: {term.negatives!r} tuples are negatives of an anchor and choose none themselves; "
      "use direction='rows', without negative_queries"
    )
  if term.target.kind != "itself":
    raise UserError(
      f"{where}.target: it is not known which tuples of different examples' keys are positive; use target='identity'"
    )
  if term.negatives == "combined" and "max" in term.criterion.reductions(True).values():
    raise UserError(f"{where}.criterion: the hardest of all combinations is not supported; use negatives='permuted'")


def check_in_run(term: Edge, run: Run) -> None:
  """Checks a term against the rest of a run; raises UserError before anything compiles."""
  where = f"objective.{term.name}"
  term.criterion.check_in_run(run, f"{where}.criterion")
  for name in term.compared:
    _check_head(term, name, run)
  _check_dims(term, run.head_dims)
  term.target.check_in_run(run, f"{where}.target")
  if term.queue_length % run.batch_size:
    whole = max(1, round(term.queue_length / run.batch_size)) * run.batch_size
    raise UserError(
      f"{where}.negatives: a queue of {term.queue_length} is not a multiple of the "
      f"global batch {run.batch_size}; use '{term.negatives}:{whole}'"
    )
  if run.examples is not None and term.queue_length > run.examples:
    most = run.examples // run.batch_size * run.batch_size
    raise UserError(
      f"{where}.negatives: a queue of {term.queue_length} is longer than an epoch of {run.examples} examples, so some "
      f"would be in it twice; use '{term.negatives}:{most}' or shorter"
    )
  _check_negatives(term, run.batch_size)


def _check_negatives(term: Edge, batch_size: int) -> None:
  """Checks that a row has other examples among its candidates: against its own alone a loss is constant, and 0."""
  others = term.queue_length or term.negative_keys or term.negative_queries or term.prototypes
  if batch_size == 1 and not others:
    raise UserError(
      f"objective.{term.name}: with config.batch.size=1 the only candidate of each row is its own pair, so there are "
      "no negatives and nothing is learned; raise it to 2 or more, or take keys of past batches with "
      "negatives='batch+queue:256' and one @momentum key"
    )


def _check_head(term: Edge, name: str, run: Run) -> None:
  """Checks that the head of an embedding gives what the term's score compares."""
  head = parse_embedding(name).head

  def gives(head: str) -> tuple[bool, bool] | None:
    fields = run.fields(head)
    return ("tokens" in fields, "weights" in fields) if fields & {"tokens", "pooled"} else None

  wanted = term.score.tokens or (term.token_keys and name in term.key), term.score.weighted
  if gives(head) == wanted:
    return
  kind = {(False, False): "one vector an example", (True, False): "tokens", (True, True): "tokens with weights"}[wanted]
  add = {(False, False): "linear", (True, False): "token_linear", (True, True): "token_weighted"}[wanted]
  fitting = sorted(other for other in run.heads if gives(other) == wanted)
  wants = f"score {term.score.name!r} compares" if wanted[0] == term.score.tokens else "token_keys wants"
  raise UserError(
    f"objective.{term.name}: {wants} {kind}, which head {head!r} does not give; "
    + (nearest(head, fitting) if fitting else f"add a head such as dict(name={add!r}, dim=256)")
  )


def _check_dims(term: Edge, head_dims: Mapping[str, int]) -> None:
  """Checks that a term's vectors are of one length, long enough for a volume."""
  dims = one_dim(term.name, term.compared, head_dims)
  count = 1 + len(term.key)
  if term.score.name == "gram_volume" and min(dims.values(), default=count) < count:
    raise UserError(
      f"objective.{term.name}.key: {count} vectors of length {min(dims.values())} span no volume; "
      f"name {min(dims.values()) - 1} keys at most, or make the heads' dim {count} or more"
    )
