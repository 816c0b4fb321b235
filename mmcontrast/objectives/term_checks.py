"""What makes no sense is refused before anything compiles, in one line that says what to change."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from mmcontrast.errors import UserError, choose, nearest
from mmcontrast.objectives.compositional import Compositional
from mmcontrast.objectives.criteria import Sigmoid, Softmax
from mmcontrast.objectives.embedding_path import parse_embedding
from mmcontrast.objectives.regularizers import Regularizer
from mmcontrast.objectives.targets import Mixed, SharedLabels, SharedTags, Teacher
from mmcontrast.objectives.view_criteria import MultiView

if TYPE_CHECKING:
  from mmcontrast.objectives.terms import Term, Terms


def check_combination(term: Term, where: str) -> None:
  """Checks that the choices of one term go together; raises UserError naming `where`."""
  both = set(term.query) & set(term.key)
  if both and term.query != term.key:
    raise UserError(
      f"{where}.key: {sorted(both)} are queries too; make query and key equal lists "
      "(each embedding then leaves itself out) or have nothing in common"
    )
  if both and len(term.query) == 1 and term.target.kind == "own":
    raise UserError(
      f"{where}.key: {term.key[0]!r} would be compared with itself alone; "
      "name two or more views on both sides"
    )
  if term.score.joins or term.negatives in ("permuted", "combined"):
    _check_tuples(term, where)
  keys = 1 if term.score.joins else len(term.key)
  if term.criterion.needs_anchor and (both or len(term.query) != 1 or keys != 1):
    raise UserError(
      f"{where}.criterion: hinge measures from the own pair; give it one query and one other key"
    )
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
  if isinstance(term.criterion, Compositional):
    if both or len(term.query) != 1 or len(term.key) != 1 or term.target.kind != "own" or term.token_keys:
      raise UserError(
        f"{where}.criterion: compositional remembers one number of an example's own pair; give it one query, "
        "one other key and target='identity'"
      )
    if term.queue_length:
      raise UserError(
        f"{where}.negatives: compositional remembers the denominator of the whole dataset, which a queue only "
        "approximates; use negatives='batch', or criterion='softmax' with the queue"
      )
  if term.token_keys and (
    both
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
      f"{where}.score.kept: which tokens of a key are kept, its one query says; use one query and one key without "
      "hard negatives, or kept=0"
    )
  if term.negative_weights and not (term.negative_keys or term.negative_queries):
    raise UserError(f"{where}.negative_weights: there are no hard negatives; name negative_keys or negative_queries")
  if term.negative_weights and not isinstance(term.criterion, Softmax):
    raise UserError(f"{where}.negative_weights: weights are counts in a denominator; use criterion='softmax'")
  for side, direction in (("negative_keys", "rows"), ("negative_queries", "columns")):
    if getattr(term, side) and term.direction not in (direction, "both"):
      raise UserError(
        f"{where}.{side}: no anchor sees them in direction {term.direction!r}; "
        f"use direction={direction!r} or 'both'"
      )
  if isinstance(term.target, Mixed) and both:
    raise UserError(
      f"{where}.target: 'mixed' mixes the queries, and keys that are queries too would not be; "
      f"name other keys than {sorted(both)}"
    )
  counted = isinstance(term.target, SharedTags) and term.target.weighted and term.target.overlap == "count"
  if counted and isinstance(term.criterion, Sigmoid):
    raise UserError(
      f"{where}.target.overlap: sigmoid wants weights up to 1, and a count has no bound; use overlap='jaccard'"
    )
  follows = isinstance(term.target, Teacher) and term.target.key is None
  extra = [name for name in ("negative_keys", "negative_queries", "prototypes") if getattr(term, name)]
  if term.target.kind == "soft" and extra and (not follows or term.direction != "rows"):
    raise UserError(
      f"{where}.target: soft weights of {' and '.join(extra)} are unknown; leave {'it' if len(extra) == 1 else 'them'} "
      "out, or use a set of positives such as 'same_id'"
    )
  if term.prototypes and term.score.tokens:
    raise UserError(
      f"{where}.prototypes: a prototype is one vector, and score {term.score.name!r} compares tokens; "
      "use score='cosine'"
    )
  if term.queue_length:
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
        f"{where}.negatives: a queue holds one vector an example, and score {term.score.name!r} "
        "compares tokens; use negatives='batch'"
      )
    follows = follows and term.direction == "rows"
    if term.target.kind == "soft" and not (follows and term.negatives == "batch+queue"):
      raise UserError(
        f"{where}.target: soft weights of queued keys are unknown; use "
        "negatives='batch', or a teacher without key and 'batch+queue'"
      )


def _check_tuples(term: Term, where: str) -> None:
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
      f"{where}.target: whose tuple of different examples' keys is positive is unknown; use target='identity'"
    )
  if term.negatives == "combined" and "max" in term.criterion.reductions(True).values():
    raise UserError(f"{where}.criterion: the hardest of all combinations is not sought; use negatives='permuted'")


def check_terms(
  terms: Terms,
  *,
  views: Mapping[str, int],
  heads: Mapping[str, str],
  batch_size: int,
  momentum: bool = True,
  tag_count: int = 0,
  labels: Collection[str] = (),
  token_heads: Collection[str] = (),
  weighted_heads: Collection[str] = (),
  head_dims: Mapping[str, int] | None = None,
  examples: int | None = None,
) -> None:
  """Checks the terms against the rest of a run; raises UserError before anything compiles.

  Args:
    views: modality, or "image_small" -> number of views.
    heads: head -> modality of its tower.
    batch_size: of the global batch.
    momentum: whether there is a momentum branch.
    tag_count: tags the dataset has.
    labels: names of the labels the dataset has.
    token_heads: heads that give an embedding for each token.
    weighted_heads: those of them that give a weight for each token too.
    head_dims: head -> length of its vectors, of the heads where it is known.
    examples: how many the dataset has; None where that is not known.
  """
  for term in terms.values():
    for name in term.embeddings:
      where = f"objective.{term.name}: embedding {name!r}"
      path = parse_embedding(name, where)
      count = views[choose(path.views, views, f"{where}: modality")]
      if path.view >= count:
        key = "data.multi_crop.views" if path.views == "image_small" else f"data.views.{path.views}"
        exist = f"{path.views}[0] to [{count - 1}] exist" if count else "there are none"
        raise UserError(f"{where}: {key} is {count}, so {exist}")
      if heads[choose(path.head, heads, f"{where}: head")] != path.modality:
        fitting = [head for head, modality in heads.items() if modality == path.modality]
        raise UserError(
          f"{where}: head {path.head!r} is on the {heads[path.head]} tower; "
          f"{nearest(path.head, fitting)}"
        )
      if path.momentum and not momentum:
        raise UserError(
          f"{where}: there is no momentum branch; set momentum=dict(decay=0.999) "
          f"or write {name.removesuffix('@momentum')!r}"
        )
    where = f"objective.{term.name}"
    if isinstance(term, Regularizer):
      for name in term.embeddings:
        if (head := parse_embedding(name).head) in token_heads:
          raise UserError(
            f"{where}.embeddings: head {head!r} gives a vector for each token, and a regularizer takes one an "
            f"example; {nearest(head, set(heads) - set(token_heads))}"
          )
      if term.function.across:
        _one_dim(term.name, term.embeddings, head_dims or {})
      continue
    if isinstance(term.criterion, Compositional) and not examples:
      raise UserError(
        f"{where}.criterion: compositional remembers something of each example, and how many the dataset has "
        "is not known; use criterion='softmax', or a dataset with a length"
      )
    for name in (*term.query, *term.key, *term.negative_keys, *term.negative_queries):
      _check_head(term, name, heads, token_heads, weighted_heads)
    _check_dims(term, head_dims or {})
    if "tags" in term.target.needs and not tag_count:
      raise UserError(
        f"{where}.target: the dataset has no tags; use target='identity' or 'same_id'"
      )
    if "labels" in term.target.needs:
      several = isinstance(term.target, SharedLabels)
      for label in term.target.labels if several else (term.target.label,):
        choose(label, labels, f"{where}.target.label{'s' * several}")
    if term.queue_length % batch_size:
      whole = max(1, round(term.queue_length / batch_size)) * batch_size
      raise UserError(
        f"{where}.negatives: a queue of {term.queue_length} is not a multiple of the "
        f"global batch {batch_size}; use '{term.negatives}:{whole}'"
      )
    _check_negatives(term, batch_size)


def _check_negatives(term: Term, batch_size: int) -> None:
  """Checks that a row has other examples among its candidates: against its own alone a loss is constant, and 0."""
  others = term.queue_length or term.negative_keys or term.negative_queries or term.prototypes
  if batch_size == 1 and not others:
    raise UserError(
      f"objective.{term.name}: with config.batch.size=1 the only candidate of each row is its own pair, so there are "
      "no negatives and nothing is learned; raise it to 2 or more, or take keys of past batches with "
      "negatives='batch+queue:256' and one @momentum key"
    )


def _check_head(term: Term, name: str, heads, token_heads, weighted_heads) -> None:
  """Checks that the head of an embedding gives what the term's score compares."""
  head = parse_embedding(name).head

  def gives(head: str) -> tuple[bool, bool]:
    return head in token_heads, head in weighted_heads

  wanted = term.score.tokens or (term.token_keys and name in term.key), term.score.weighted
  if gives(head) == wanted:
    return
  kind = {(False, False): "one vector an example", (True, False): "tokens", (True, True): "tokens with weights"}[wanted]
  add = {(False, False): "linear", (True, False): "token_linear", (True, True): "token_weighted"}[wanted]
  fitting = sorted(other for other in heads if gives(other) == wanted)
  wants = f"score {term.score.name!r} compares" if wanted[0] == term.score.tokens else "token_keys wants"
  raise UserError(
    f"objective.{term.name}: {wants} {kind}, which head {head!r} does not give; "
    + (nearest(head, fitting) if fitting else f"add a head such as dict(name={add!r}, dim=256)")
  )


def _check_dims(term: Term, head_dims: Mapping[str, int]) -> None:
  """Checks that a term's vectors are of one length, long enough for a volume."""
  names = (*term.query, *term.key, *term.negative_keys, *term.negative_queries)
  dims = _one_dim(term.name, names, head_dims)
  count = 1 + len(term.key)
  if term.score.name == "gram_volume" and min(dims.values(), default=count) < count:
    raise UserError(
      f"objective.{term.name}.key: {count} vectors of length {min(dims.values())} span no volume; "
      f"name {min(dims.values()) - 1} keys at most, or make the heads' dim {count} or more"
    )


def _one_dim(entry: str, names: Iterable[str], head_dims: Mapping[str, int]) -> dict[str, int]:
  """The heads of the embeddings `names` and their dims, which must be one."""
  dims = {head: head_dims[head] for head in (parse_embedding(name).head for name in names) if head in head_dims}
  if len(set(dims.values())) > 1:
    found = ", ".join(f"{head!r} {dim}" for head, dim in dims.items())
    raise UserError(f"objective.{entry}: heads give vectors of different lengths ({found}); make their dim equal")
  return dims
