"""A trained model as functions: images and captions in, unit rows out."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mmcontrast import augment
from mmcontrast.checkpoint import load_run
from mmcontrast.data.loader import open_tokenizer
from mmcontrast.data.settings import resolve
from mmcontrast.data.sources import open_source
from mmcontrast.errors import UserError, choose
from mmcontrast.model import Model, build_model
from mmcontrast.objectives.embedding_path import parse_embedding
from mmcontrast.objectives.score import Score
from mmcontrast.objectives.terms import parse_terms

KINDS = ("image", "text", "image_features")


class Inference:
  """Embeds images and captions with fixed variables; any number of them, in padded batches."""

  def __init__(self, config: Mapping, model: Model, variables: Mapping[str, Any], tokenizer: Any):
    """`config.evaluation` says which heads make the joint space and which tower the features."""
    options = config["evaluation"]
    self.config, self._tokenizer = config, tokenizer
    self._batch_size = options["batch_size"]
    recipe, mean, std = augment.parse_recipe("none"), config["normalize"]["mean"], config["normalize"]["std"]
    heads = {kind: options[kind] for kind in ("image", "text") if options[kind]}
    for kind, head in heads.items():
      choose(head, model.heads, f"config.evaluation.{kind}")
    self._scores = _token_scores(config, model, heads)
    if options["features"]:
      choose(options["features"], model.towers, "config.evaluation.features")

    def encode(kind, variables, values):
      if kind != "text":
        seeds = np.zeros(len(values), np.uint32)
        safe = np.zeros(len(values), bool)
        values = augment.normalize(augment.augment(recipe, values, seeds, 0, safe), mean, std)
      head = heads.get(kind)
      tower = model.tower_of_head[head] if head else options["features"]
      encoded = model.encode(variables, tower, values)[0]
      rows = model.project(variables, head, encoded)[0] if head else encoded.pooled
      if head and self._scores:
        return self._scores[kind][0].prepare(rows)
      return _unit_rows(rows) if head else rows.astype("float32")

    self.kinds = (*heads, *(("image_features",) if options["features"] else ()))
    self._encode = jax.jit(encode, static_argnums=0)
    self._variables = jax.tree.map(jax.numpy.asarray, variables)

  def embed(self, kind: str, values: Sequence) -> np.ndarray:
    """Rows for images or captions: the evaluators' only view of a model.

    Args:
      kind: "image" or "text" (unit rows in the joint space), or "image_features"
        (the tower's pooled output, for probes).
      values: uint8 images [N, H, W, 3], or N strings.
    Returns:
      [N, D] float32; of a head of tokens [N, L, D], for `compare` alone.
    Raises UserError for a kind this model has no head for.
    """
    choose(kind, self.kinds, "embed")
    if kind == "text":
      values = self._tokenizer.encode(list(values), self.config["data"]["text_length"])
    values = np.asarray(values)
    rows = []
    for start in range(0, len(values), self._batch_size):
      chunk = values[start:start + self._batch_size]
      padding = [(0, self._batch_size - len(chunk))] + [(0, 0)] * (chunk.ndim - 1)
      rows.append(np.asarray(self._encode(kind, self._variables, np.pad(chunk, padding)))[:len(chunk)])
    return np.concatenate(rows)

  @property
  def compares_tokens(self) -> bool:
    """Whether "image" and "text" are embedded as tokens."""
    return bool(self._scores)

  def compare(self, kind: str, queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """How well each of a gallery matches each query, as the terms compare tokens.

    Args:
      kind: of the queries, "image" or "text"; the gallery is of the other.
      queries: [Q, ...], and gallery: [G, ...], as `embed` gives them.
    Returns:
      [Q, G] float32.
    """
    score, exchanged = self._scores[kind]
    return np.asarray(_tile(score, gallery, queries)).T if exchanged else np.asarray(_tile(score, queries, gallery))


def load(workdir: str | pathlib.Path, step: int | None = None, data_dir: str | None = None) -> Inference:
  """The model of a run, from its newest checkpoint (or that of `step`).

  Raises UserError when there is no such checkpoint or its tokenizer is missing.
  """
  config, variables, _ = load_run(workdir, step)
  tokenizer = load_tokenizer(config, data_dir)
  model = build_model(config, tokenizer.vocab_size if tokenizer else None)
  return Inference(config, model, variables, tokenizer)


def load_tokenizer(config: Mapping, data_dir: str | None = None) -> Any:
  """The tokenizer a config names, or None where there are no text views."""
  settings = resolve(config["data"])
  own = settings["views"]["text"] and settings["tokenizer"] == "sentencepiece"  # else the data need not be there
  return open_tokenizer(settings, open_source(settings, settings["split"], data_dir) if own else None)


@functools.partial(jax.jit, static_argnums=0)
def _tile(score: Score, rows: jax.Array, columns: jax.Array) -> jax.Array:
  return score.tile(rows, columns)


def _token_scores(config: Mapping, model: Model, heads: Mapping[str, str]) -> dict[str, tuple[Score, bool]]:
  """Kind of a query -> the score of tokens it is compared by, and whether it is that score's column.

  It is that of the term whose query has the kind's head and whose key has the other's, or the other way
  round. Empty when the heads give vectors.
  """
  if not set(heads.values()) & model.token_heads:
    return {}
  terms, found = parse_terms(config["objective"]), {}
  for kind, other in (("image", "text"), ("text", "image")):
    wanted = heads.get(kind), heads.get(other)
    sides = {(parse_embedding(term.query[0]).head, parse_embedding(term.key[0]).head): term.score
             for term in reversed(terms.values()) if term.score.tokens}
    if wanted not in sides and wanted[::-1] not in sides:
      raise UserError(f"config.evaluation.{kind}: no term compares the tokens of {wanted[0]!r} and {wanted[1]!r}; "
                      "name two heads that one does, or heads that give one vector")
    found[kind] = (sides[wanted], False) if wanted in sides else (sides[wanted[::-1]], True)
  return found


def _unit_rows(rows: jax.Array) -> jax.Array:
  rows = rows.astype("float32")
  return rows / jax.numpy.maximum(jax.numpy.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)
