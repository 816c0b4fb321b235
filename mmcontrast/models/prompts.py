"""Prompts that learn: vectors that stand among the tokens of frozen towers.

    coop      CoOp (arXiv:2109.01134): `length` vectors before the name of each class
    maple     MaPLe (arXiv:2210.03117): such vectors anew at the first `depth` blocks of the text tower; the image tower
              gets a linear image of each behind its patches
    ctp_tft   CTP-TFT-style (Task-Oriented Multi-Modal Mutual Learning, 2023, whose formulas could not be read: these
              are ours): the vectors of a class are moved by a small network of its name's embedding, and an image's
              embedding by its attention to the classes, which begins as nothing

In a text a vector takes the place of a token behind the first one (where texts begin with a mark), so that positions
and padding are as of any text. At later blocks what came out of the block before at these places is thrown away, and
that block's vectors are put in. No encoder needs to know of it: calls of its blocks are intercepted.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmcontrast.encoders.layer_norm import LayerNorm
from mmcontrast.encoders.transformer import Block
from mmcontrast.errors import UserError

Parameters = Mapping[str, Any]
SCALE = 0.02  # of what prompts start with
_SQUEEZE = 16  # of ctp_tft's small network, as in CoCoOp


class Sizes(NamedTuple):
  """What prompts are made for: vectors a block, blocks, widths of the tokens of both towers and of the joint space."""

  length: int
  depth: int
  text: int
  image: int
  joint: int


class Method(NamedTuple):
  """How prompts are made, pure functions.

  Attributes:
    init: (key, sizes, first tokens [length, text] or None) -> parameters.
    text: (parameters, names float32 [K, joint], unit rows of the classes' names) -> for each block the vectors
      [length, text], or [K, length, text], those of each class.
    image: (parameters) -> for each block the vectors [length, image]; None: the image tower gets none.
    rows: (parameters, images [N, joint], classes [K, joint], unit rows) -> images [N, joint]; None: as they are.
    length, depth: what is usual; depth 1: before the first block only.
  """

  init: Callable[[jax.Array, Sizes, jax.Array | None], Parameters]
  text: Callable[[Parameters, jax.Array], Sequence[jax.Array]]
  image: Callable[[Parameters], Sequence[jax.Array]] | None = None
  rows: Callable[[Parameters, jax.Array, jax.Array], jax.Array] | None = None
  length: int = 16
  depth: int = 1


def _linear(key: jax.Array, rows: int, columns: int, zero: bool = False) -> dict[str, jax.Array]:
  """A layer as torch.nn.Linear draws it; or one of zeros."""
  bound = 0.0 if zero else 1 / math.sqrt(rows)
  kernel, bias = jax.random.split(key)
  return {
    "kernel": jax.random.uniform(kernel, (rows, columns), jnp.float32, -bound, bound),
    "bias": jax.random.uniform(bias, (columns,), jnp.float32, -bound, bound),
  }


def _apply(layer: Mapping[str, jax.Array], x: jax.Array) -> jax.Array:
  return x @ layer["kernel"] + layer["bias"]


def _vectors(key: jax.Array, sizes: Sizes, first: jax.Array | None) -> jax.Array:
  """[depth, length, text]: drawn, those of the first block `first` where it is given."""
  drawn = SCALE * jax.random.normal(key, (sizes.depth, sizes.length, sizes.text), jnp.float32)
  return drawn if first is None else drawn.at[0].set(first)


def _init_coop(key: jax.Array, sizes: Sizes, first: jax.Array | None) -> Parameters:
  return {"text": _vectors(key, sizes, first)}


def _init_maple(key: jax.Array, sizes: Sizes, first: jax.Array | None) -> Parameters:
  of_text, *layers = jax.random.split(key, 1 + sizes.depth)
  return {
    "text": _vectors(of_text, sizes, first),
    "image": [_linear(layer, sizes.text, sizes.image) for layer in layers],
  }


def _init_ctp_tft(key: jax.Array, sizes: Sizes, first: jax.Array | None) -> Parameters:
  of_text, squeeze, expand, query, names = jax.random.split(key, 5)
  small = max(1, sizes.joint // _SQUEEZE)
  return {
    "text": _vectors(of_text, sizes, first),
    "squeeze": _linear(squeeze, sizes.joint, small),
    "expand": _linear(expand, small, sizes.text),
    "query": _linear(query, sizes.joint, sizes.joint),
    "names": _linear(names, sizes.joint, sizes.joint),
    "out": _linear(key, sizes.joint, sizes.joint, zero=True),
  }


def _text_of_class(parameters: Parameters, names: jax.Array) -> list[jax.Array]:
  moved = _apply(parameters["expand"], nn.relu(_apply(parameters["squeeze"], names)))
  return [parameters["text"][0] + moved[:, None, :]]


def _guided(parameters: Parameters, images: jax.Array, classes: jax.Array) -> jax.Array:
  query, keys = _apply(parameters["query"], images), _apply(parameters["names"], classes)
  seen = jax.nn.softmax(query @ keys.T / math.sqrt(keys.shape[-1]), axis=-1) @ classes
  return images + _apply(parameters["out"], seen)


METHODS: dict[str, Method] = {
  "coop": Method(_init_coop, lambda parameters, names: list(parameters["text"])),
  "maple": Method(
    _init_maple,
    lambda parameters, names: list(parameters["text"]),
    lambda parameters: [_apply(layer, text) for layer, text in zip(parameters["image"], parameters["text"])],
    length=2,
    depth=9,
  ),
  "ctp_tft": Method(_init_ctp_tft, _text_of_class, rows=_guided, length=4),
}


def check_tower(tower: nn.Module, depth: int, kind: str, where: str) -> None:
  """Raises UserError, which begins with `where`, unless prompts can stand among the tokens of a tower ("text" or
  "image") at `depth` blocks."""
  blocks = getattr(tower, "depth", None)
  if not isinstance(blocks, int) or not hasattr(tower, "heads") or (kind == "image" and not hasattr(tower, "patch")):
    instead = "; method 'coop' leaves the image tower alone" if kind == "image" else ""
    raise UserError(f"{where}: the {kind} tower is a {type(tower).__name__}, which has no tokens in blocks{instead}")
  if getattr(tower, "scan", False):
    raise UserError(
      f"{where}: the {kind} tower has scan=True, one loop for all blocks; set it to False to tune prompts"
    )
  if depth > max(blocks, 1):  # what goes in can be replaced without any block
    raise UserError(f"{where}: depth {depth}, and the {kind} tower has {blocks} blocks; give {blocks} or less")


@contextlib.contextmanager
def among_texts(vectors: Sequence[jax.Array], start: int) -> Iterator[None]:
  """In this block, what a text tower is applied to has vectors in the places `start`, ... of its tokens: those of block
  i, [length, D] or [B, length, D], for each of `vectors`."""

  def intercept(call, args, options, context):
    block = _block_of(context)
    if block is not None and 0 < block < len(vectors):
      args = (_put(args[0], vectors[block], start), *args[1:])
    made = call(*args, **options)
    is_embedding = context.method_name == "__call__" and context.module.name == "token_embedding"
    return _put(made, vectors[0], start) if is_embedding else made

  with nn.intercept_methods(intercept):
    yield


@contextlib.contextmanager
def behind_patches(vectors: Sequence[jax.Array], depth: int) -> Iterator[None]:
  """In this block, an image tower of `depth` blocks that is applied has vectors [length, D] behind its patches in each
  of the blocks, those of block i for each of `vectors`; what it makes is of the patches alone."""
  length, put_in = len(vectors[0]), []

  def behind(x: jax.Array, i: int, tokens: int) -> jax.Array:
    here = jnp.broadcast_to(vectors[i].astype(x.dtype), (x.shape[0], *vectors[i].shape))
    return jnp.concatenate([x[:, :tokens], here], axis=1)

  def intercept(call, args, options, context):
    is_norm = isinstance(context.module, LayerNorm) and context.module.name == "norm_pre"
    if is_norm and context.method_name == "__call__" and not put_in:
      put_in.append(True)
      return call(behind(args[0], 0, args[0].shape[1]), *args[1:], **options)
    block = _block_of(context)
    if block is None:
      return call(*args, **options)
    x, *others = args
    if block == 0 and not put_in:
      x = behind(x, 0, x.shape[1])
    elif 0 < block < len(vectors):
      x = behind(x, block, x.shape[1] - length)
    if len(others) > 1 and others[1] is not None:  # rope: none for what has no place
      others[1] = jnp.pad(others[1], ((0, 0), (0, length), (0, 0)))
    made = call(x, *others, **options)
    put_in.clear() if block == depth - 1 else None
    return made[:, :-length] if block == depth - 1 and made.shape[1] > 1 else made

  with nn.intercept_methods(intercept):
    yield


def _block_of(context: nn.module.InterceptorContext) -> int | None:
  """Which block of a tower is called; None where it is another module."""
  name = context.module.name or ""
  if not isinstance(context.module, Block) or context.method_name != "__call__" or not name.startswith("blocks_"):
    return None
  return int(name.removeprefix("blocks_"))


def _put(x: jax.Array, vectors: jax.Array, start: int) -> jax.Array:
  """x [B, L, D] with vectors [length, D] or [B, length, D] at the places `start`, ..."""
  here = jnp.broadcast_to(vectors.astype(x.dtype), (x.shape[0], *vectors.shape[-2:]))
  return jnp.concatenate([x[:, :start], here, x[:, start + here.shape[1] :]], axis=1)
