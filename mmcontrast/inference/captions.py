"""Captions by a model, of images or what else its decoder reads, and how probable given ones are."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from mmcontrast.errors import UserError
from mmcontrast.inference.generation import Search, check, write, write_by_beams
from mmcontrast.inference.kinds import Kind, run_node
from mmcontrast.modalities import MODALITIES
from mmcontrast.models import decoding
from mmcontrast.models.model import Model
from mmcontrast.objectives.captioning import token_losses

if TYPE_CHECKING:
  from mmcontrast.encoders import Encoded


class Captioner:
  """The decoder of a run as functions of batches.

  Attributes:
    modality: of what is described.
    most: the most tokens of a caption, start and end among them.
  """

  def __init__(self, config: Mapping[str, Any], model: Model, tokenizer: Any, head: str = "", where: str = "caption"):
    """`config`: its data resolved. Raises UserError where the run cannot write captions."""
    self._config, self._model, self._tokenizer, self._where = config, model, tokenizer, where
    self._decoder = decoding.decoder_of(model, head, where)
    if len(self._decoder.reads) > 1:
      raise UserError(
        f"{where}: the decoder {self._decoder.tower!r} reads {' and '.join(self._decoder.reads)}; captions are written "
        "of one thing: let it read one beside its text tower"
      )
    self.modality = model.modality_of_tower[self._decoder.reads[0]]
    self._ids = config["data"]["token_ids"]
    for name, part in (("bos", "start"), ("eos", "end")):
      if self._ids[name] < 0:
        raise UserError(
          f"{where}: config.data.token_ids.{name} is {self._ids[name]}: the tokenizer of this run has no {part} token, "
          "with which captions " + ("begin" if name == "bos" else "end")
        )
    self.most = min(self._decoder.length, config["data"]["text_length"])
    self._write = jax.jit(self._written, static_argnums=0)
    self._losses = jax.jit(self._losses_of)

  def write(
    self, variables: Any, things: Sequence, batches: Callable[[Sequence], Any], search: Search, seed: int = 0
  ) -> list[str]:
    """A caption of each of N things.

    Args:
      variables: of the model.
      things: in the order of the captions.
      batches: things -> (batch of their modality, how many of it are things), one after the other.
      seed: of what is drawn; a caption depends on it and on the place of its thing.
    """
    search, rows, done = check(search, self.most, self._where), [], 0
    for batch, count in batches(things):
      size = len(jax.tree.leaves(batch)[0])
      keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), done + jnp.arange(size))
      rows.append(np.asarray(self._write(search, variables, batch, keys))[:count])
      done += count
    return self._tokenizer.decode(np.concatenate(rows)) if rows else []

  def losses(self, variables: Any, things: Any, texts: Any) -> tuple[np.ndarray, np.ndarray]:
    """(minus the log probability of each text, of how many tokens it is), float64 [N]; both are batches of N."""
    summed, count = self._losses(variables, things, texts)
    return np.asarray(summed, np.float64), np.asarray(count, np.float64)

  def _read(self, variables: Any, things: Any) -> Encoded:
    inputs = {self.modality: MODALITIES[self.modality].inputs(things, self._config)}
    of = Kind((self.modality,), self._decoder.reads[0], "", "tokens")
    return run_node(self._model, variables, of, inputs)

  def _written(self, search: Search, variables: Any, things: Any, keys: jax.Array) -> jax.Array:
    model, decoder = self._model, self._decoder
    read = self._read(variables, things)
    read = jax.tree.map(lambda x: jnp.repeat(x, search.beams, 0), read)
    start, end, pad = (self._ids[name] for name in ("bos", "eos", "pad"))
    first = jnp.full(jax.tree.leaves(read)[0].shape[0], start, jnp.int32)
    logits, cache = decoding.start(model, variables, decoder, [read], first)
    step = functools.partial(decoding.step, model, variables, decoder)
    if search.beams > 1:
      return write_by_beams(step, decoding.rows_of, logits, cache, search, start, end, pad)[0]
    return write(step, logits, cache, search, start, end, pad, keys)[0]

  def _losses_of(self, variables: Any, things: Any, texts: Any) -> tuple[jax.Array, jax.Array]:
    model, decoder = self._model, self._decoder
    inputs = MODALITIES["text"].inputs(texts, self._config)
    text = model.encode(variables, decoder.text, inputs)[0]
    fused = model.fuse(variables, decoder.tower, [text, self._read(variables, things)])[0]
    logits = model.project(variables, decoder.head, fused)[0].logits[:, :-1]
    real = inputs.mask[:, 1:]
    each = token_losses(logits, inputs.values[:, 1:])
    return jnp.sum(jnp.where(real, each, 0.0), 1), real.sum(1)
