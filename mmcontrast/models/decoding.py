"""A caption written by a model, one token after the other, with keys and values of what is written kept in a cache.

A decoder is a head of words on a causal tower that reads the tokens of a causal text tower first, and of others:

    towers.decoder = dict(name="fusion_transformer", reads=("text", "image"), causal=True, pool="last", ...)
    heads.words = dict(tower="decoder", name="words")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util

from mmcontrast.encoders import Encoded
from mmcontrast.encoders.layers import unstack_layers
from mmcontrast.errors import UserError, choose
from mmcontrast.models.graph import first_read
from mmcontrast.models.model import Model, Variables

Cache = dict[str, Any]
"""Tower -> what its modules keep of the positions so far, batch axis first."""


class Decoder(NamedTuple):
  """The nodes that write captions.

  Attributes:
    head: gives logits over words. tower: what it reads, a causal tower. text: the tower whose tokens go through that.
    reads: the other towers that it reads, of what is described; in the place of one that lets pass in evaluation what
      it reads first, that. length: the most tokens of a text, start and end
      among them.
  """

  head: str
  tower: str
  text: str
  reads: tuple[str, ...]
  length: int


def decoders_of(model: Model) -> dict[str, str]:
  """Head -> why it writes no captions, "" where it does: of all heads of words."""
  return {head: _hindrance(model, head) for head in model.heads if model.made_by_head[head] == {"logits", "mask"}}


def decoder_of(model: Model, head: str = "", where: str = "caption") -> Decoder:
  """The decoder of a run; `head`: which, where there are several. Raises UserError where the run has none."""
  known = decoders_of(model)
  able = [name for name, hindrance in known.items() if not hindrance]
  if head and head not in able:
    choose(head, able or known or model.heads, f"{where}: head")
  if not head and len(able) > 1:
    raise UserError(f"{where}: the heads {', '.join(able)} write captions; say which")
  head = head or next(iter(able or known), "")
  if head not in able:
    raise UserError(
      f"{where}: this run has no decoder of captions, "
      + (f"head {head!r} is none: {known[head]}" if head in known else "a head 'words' on a causal tower that reads ")
      + ("" if head in known else "a text tower and what is described (config coca has one)")
    )
  tower = model.tower_of_head[head]
  text = first_read(tower, model.reads)
  reads = tuple(_passed(model, read) for read in model.reads[tower][1:])
  return Decoder(head, tower, text, reads, model.towers[text].max_length)


def start(model: Model, variables: Variables, decoder: Decoder, read: Sequence[Encoded], ids: jax.Array) -> tuple:
  """The logits [B, V] of what follows the first token `ids` [B], and the cache; `read`: what `decoder.reads` made."""
  cache = {
    name: _empty(model.towers[name], _single(variables["params"]["towers"][name]), ids.shape[0], decoder.length)
    for name in (decoder.text, decoder.tower)
  }
  return _write(model, variables, decoder, cache, ids, read)


def step(model: Model, variables: Variables, decoder: Decoder, cache: Cache, ids: jax.Array) -> tuple:
  """The logits [B, V] of what follows `ids` [B], the token after those in the cache, and the cache with it."""
  return _write(model, variables, decoder, cache, ids, ())


def rows_of(cache: Cache, rows: jax.Array) -> Cache:
  """The cache of other rows, each of the same thing as that in its place: what was read of it stays."""

  def pick(path, leaf):
    kept = leaf.ndim == 0 or any(getattr(key, "key", "") == "cross_attn" for key in path)
    return leaf if kept else leaf[rows]

  return jax.tree_util.tree_map_with_path(pick, cache)


def _write(
  model: Model, variables: Variables, decoder: Decoder, cache: Cache, ids: jax.Array, read: Sequence[Encoded]
) -> tuple[jax.Array, Cache]:
  text, of_text = _apply(model, variables, cache, decoder.text, ids[:, None])
  fused, of_tower = _apply(model, variables, cache, decoder.tower, text.replace(mask=None), *read)
  made, _ = model.project(variables, decoder.head, fused)
  return made.logits[:, -1].astype(jnp.float32), {decoder.text: of_text, decoder.tower: of_tower}


def _apply(model: Model, variables: Variables, cache: Cache, name: str, *inputs: Any) -> tuple[Encoded, Any]:
  module = model.towers[name]
  module = module.clone(scan=False) if getattr(module, "scan", False) else module
  own = {"params": _single(variables["params"]["towers"][name]), "cache": cache[name]}
  made, new = module.apply(own, *inputs, train=False, mutable=["cache"])
  return made, new["cache"]


def _single(params: Mapping[str, Any]) -> Any:
  """Parameters of blocks one by one, also of a tower with `scan`."""
  flat = unstack_layers(traverse_util.flatten_dict(params, sep="/"))
  return traverse_util.unflatten_dict(flat, sep="/")


def _empty(module: nn.Module, params: Mapping[str, Any], batch: int, length: int) -> Any:
  """The cache of a tower before its first position."""
  made, at = {("at",): jnp.int32(0)}, jnp.int32(0)
  for path, kernel in traverse_util.flatten_dict(params).items():
    if path[-3:] == ("attn", "qkv", "kernel"):
      width = kernel.shape[1] // 3
      zeros = jnp.zeros((batch, length, module.heads, width // module.heads), jnp.dtype(module.dtype))
      made |= {(*path[:-2], "k"): zeros, (*path[:-2], "v"): zeros, (*path[:-2], "at"): at}
  return traverse_util.unflatten_dict(made)


def _hindrance(model: Model, head: str) -> str:
  """Why a head of words writes no captions; "" where it does."""
  tower = model.tower_of_head[head]
  if head in model.head_of_head or tower not in model.reads:
    return f"it reads {tower!r} alone; let a tower with reads attend to what is described"
  text, module = first_read(tower, model.reads), model.towers[tower]
  if getattr(module, "SECOND", False):
    return f"its tower {tower!r} gives no tokens of texts"
  if model.reads[tower][0] != text:
    return f"its tower {tower!r} reads {model.reads[tower][0]!r} first; let it read {text!r}"
  if not getattr(module, "causal", False):
    return f"its tower {tower!r} sees the words that come next; a decoder has causal=True (config coca trains one)"
  words = model.towers[text]
  if words.depth and not hasattr(words, "causal"):
    return f"its text tower {text!r} cannot be continued; take name='text_transformer'"
  if words.depth and not words.causal:
    return f"its text tower {text!r} sees the words that come next; set causal=True there"
  if others := [read for read in model.reads[tower][1:] if _passed(model, read) not in model.modality_of_tower]:
    return f"its tower {tower!r} reads {others[0]!r}, which reads other towers"
  return ""


def _passed(model: Model, tower: str) -> str:
  """The tower whose tokens come out of one in evaluation: itself, or what it reads first and lets pass."""
  while getattr(model.towers[tower], "PASSES", False):
    tower = model.reads[tower][0]
  return tower
