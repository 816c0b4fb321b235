"""What makes no sense is refused before anything compiles, in one line that says what to change."""

from __future__ import annotations

from collections.abc import Mapping

from mmcontrast.errors import UserError, choose, nearest
from mmcontrast.objectives.compositional import Compositional
from mmcontrast.objectives.criteria import Sigmoid, Softmax
from mmcontrast.objectives.edge import Edge
from mmcontrast.objectives.embedding_path import one_dim, parse_embedding
from mmcontrast.objectives.targets import Mixed, SharedLabels, SharedTags, Teacher
from mmcontrast.objectives.term import Run
from mmcontrast.objectives.view_criteria import MultiView


def check_combination(term: Edge, where: str) -> None:
  """Checks that the choices of one term go together; raises UserError naming `where`."""
  _check_keys(term, where)
  if term.score.joins or term.negatives in ("permuted", "combined"):
    _check_tuples(term, where)
  _check_criterion(term, where)
  _check_tokens(term, where)
  _check_hard_negatives(term, where)
  _check_target(term, where)
  if term.prototypes and term.score.tokens:
    raise UserError(
      f"{where}.prototypes: a prototype is one vector, and score {term.score.name!r} compares tokens; "
      "use score='cosine'"
    )
  if term.queue_length:
    _check_queue(term, where)


def _both(term: Edge) -> list[str]:
  """The embeddings that are queries and keys."""
  return sorted(set(term.query) & set(term.key))


def _follows(term: Edge) -> bool:
  """Whether the target is a teacher that says something of any column, a queued one too."""
  return isinstance(term.target, Teacher) and term.target.key is None and term.direction == "rows"


def _check_keys(term: Edge, where: str) -> None:
  """Checks that queries and keys are the same list, of more than themselves, or have nothing in common."""
  both = _both(term)
  if both and term.query != term.key:
    raise UserError(
      f"{where}.key: {both} are queries too; make query and key equal lists "
      "(each embedding then leaves itself out) or have nothing in common"
    )
  if both and len(term.query) == 1 and term.target.kind == "own":
    raise UserError(
      f"{where}.key: {term.key[0]!r} would be compared only with itself; name two or more views on both sides"
    )


def _check_criterion(term: Edge, where: str) -> None:
  """Checks that a criterion of own pairs, of whole examples or one that remembers is given these."""
  both, keys = _both(term), 1 if term.score.joins else len(term.key)
  if term.criterion.needs_anchor and (both or len(term.query) != 1 or keys != 1):
    raise UserError(f"{where}.criterion: hinge measures from the own pair; give it one query and one other key")
  if isinstance(term.criterion, MultiView) and (
    term.query != term.key
    or len(term.query) == 1
    or term.target.kind != "own"
    or term.negatives != "batch"
    or term.negative_keys
    or term.negative_queries
    or term.prototypes
  ):
    raise UserError(
      f"{where}.criterion: it joins the views of an example; make query and key the same list of two or more views, "
      "target 'identity', negatives 'batch', and leave negative_keys, negative_queries and prototypes out"
    )
  if not isinstance(term.criterion, Compositional):
    return
  if both or len(term.query) != 1 or len(term.key) != 1 or term.target.kind != "own" or term.token_keys:
    raise UserError(
      f"{where}.criterion: compositional stores one number for an example's own pair; give it one query, "
      "one other key and target='identity'"
    )
  if term.queue_length:
    raise UserError(
      f"{where}.negatives: compositional estimates the denominator over the whole dataset, which a queue only "
      "approximates; use negatives='batch', or criterion='softmax' with the queue"
    )


def _check_tokens(term: Edge, where: str) -> None:
  """Checks keys that are tokens, and keys of which some tokens are kept."""
  if term.token_keys and (
    _both(term)
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
  if getattr(term.score, "kept", 0) and (
    len(term.query) > 1 or len(term.key) > 1 or term.negative_keys or term.negative_queries
  ):
    raise UserError(
      f"{where}.score.kept: the query decides which tokens of a key are kept; use one query and one key without "
      "hard negatives, or kept=0"
    )


def _check_hard_negatives(term: Edge, where: str) -> None:
  """Checks that some anchor sees them, and that what they weigh has a denominator."""
  if term.negative_weights and not (term.negative_keys or term.negative_queries):
    raise UserError(f"{where}.negative_weights: there are no hard negatives; name negative_keys or negative_queries")
  if term.negative_weights and not isinstance(term.criterion, Softmax):
    raise UserError(f"{where}.negative_weights: weights are counts in a denominator; use criterion='softmax'")
  for side, direction in (("negative_keys", "rows"), ("negative_queries", "columns")):
    if getattr(term, side) and term.direction not in (direction, "both"):
      raise UserError(
        f"{where}.{side}: no anchor sees them in direction {term.direction!r}; use direction={direction!r} or 'both'"
      )


def _check_target(term: Edge, where: str) -> None:
  """Checks that a target knows the weights of all pairs."""
  if isinstance(term.target, Mixed) and (both := _both(term)):
    raise UserError(
      f"{where}.target: 'mixed' mixes the queries, and keys that are queries too would not be; "
      f"name other keys than {both}"
    )
  counted = isinstance(term.target, SharedTags) and term.target.weighted and term.target.overlap == "count"
  if counted and isinstance(term.criterion, Sigmoid):
    raise UserError(
      f"{where}.target.overlap: sigmoid needs weights up to 1, and a count has no bound; use overlap='jaccard'"
    )
  extra = [name for name in ("negative_keys", "negative_queries", "prototypes") if getattr(term, name)]
  if term.target.kind == "soft" and extra and not _follows(term):
    raise UserError(
      f"{where}.target: soft weights of {' and '.join(extra)} are unknown; leave {'it' if len(extra) == 1 else 'them'} "
      "out, or use a set of positives such as 'same_id'"
    )


def _check_queue(term: Edge, where: str) -> None:
  """Checks that a queue holds vectors of one momentum embedding, of which the target knows the weights."""
  side = "query" if term.direction == "columns" else "key"
  names = getattr(term, side)
  if len(names) != 1 or not names[0].endswith("@momentum"):
    raise UserError(
      f"{where}.{side}: a queue holds keys of one momentum embedding, "
      f"not {list(names)}; write '{names[0].removesuffix('@momentum')}@momentum' "
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
  if term.target.kind == "soft" and not (_follows(term) and term.negatives == "batch+queue"):
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
  if term.target.kind != "own":
    raise UserError(
      f"{where}.target: it is not known which tuples of different examples' keys are positive; use target='identity'"
    )
  if term.negatives == "combined" and "max" in term.criterion.reductions(True).values():
    raise UserError(f"{where}.criterion: the hardest of all combinations is not supported; use negatives='permuted'")


def check_in_run(term: Edge, run: Run) -> None:
  """Checks a term against the rest of a run; raises UserError before anything compiles."""
  where = f"objective.{term.name}"
  if isinstance(term.criterion, Compositional) and not run.examples:
    raise UserError(
      f"{where}.criterion: compositional stores a number for each example, and the length of the dataset is not "
      "known; use criterion='softmax', or a dataset with a length"
    )
  for name in term.compared:
    _check_head(term, name, run)
  _check_dims(term, run.head_dims)
  if "tags" in term.target.needs and not run.tag_count:
    raise UserError(f"{where}.target: the dataset has no tags; use target='identity' or 'same_id'")
  if "labels" in term.target.needs:
    several = isinstance(term.target, SharedLabels)
    for label in term.target.labels if several else (term.target.label,):
      choose(label, run.labels, f"{where}.target.label{'s' * several}")
  if term.queue_length % run.batch_size:
    whole = max(1, round(term.queue_length / run.batch_size)) * run.batch_size
    raise UserError(
      f"{where}.negatives: a queue of {term.queue_length} is not a multiple of the "
      f"global batch {run.batch_size}; use '{term.negatives}:{whole}'"
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

  def gives(head: str) -> tuple[bool, bool]:
    return head in run.token_heads, head in run.weighted_heads

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
