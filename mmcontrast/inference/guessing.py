"""How well a run guesses words that are taken from a text: the loss and the hits of a head of masked words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mmcontrast.errors import UserError
from mmcontrast.inference.kinds import Kind, run_node
from mmcontrast.modalities import MODALITIES
from mmcontrast.modalities.masked_words import Masking
from mmcontrast.models.model import Model
from mmcontrast.objectives.masked_words import guess_losses

SHARE = 0.15
"""Of a text's words, at least one; each becomes the mask token."""


def make_guess(config: Mapping[str, Any], model: Model, tokenizer: Any) -> Callable[..., Any]:
  """(head, variables, batches by modality, seeds uint32 [B]) -> (loss, hits, words), [B] each: sums over the words of a
  text that were taken, and how many they are.

  Args:
    config: of a run, its data resolved.
  Raises UserError for a tokenizer without a mask token.
  """
  if tokenizer.mask_id < 0:
    raise UserError(
      f"evaluation.evaluators.masked_words: tokenizer {tokenizer.name} has no mask token; leave this evaluator out"
    )
  special = {tokenizer.pad_id, tokenizer.eos_id, tokenizer.mask_id} | ({tokenizer.bos_id} - {-1})
  masking = Masking(SHARE, 1.0, 0.0, True, tokenizer.mask_id, tuple(sorted(special)), tokenizer.vocab_size)

  def guess(head, variables, values, seeds):
    inputs = {name: MODALITIES[name].inputs(part, config) for name, part in values.items()}
    ids, real = inputs["text"].values, inputs["text"].mask
    masked, chosen = masking(ids, real, seeds, 0)
    inputs["text"] = inputs["text"]._replace(values=masked)
    of = Kind(tuple(inputs), model.tower_of_head[head], head, "logits")
    logits = run_node(model, variables, of, inputs).logits.astype("float32")
    loss, _ = guess_losses(logits, ids, None, 0.0)
    hits = jnp.argmax(logits, -1) == ids
    return tuple(jnp.sum(jnp.where(chosen, x, 0), 1) for x in (loss, hits, chosen))

  return jax.jit(guess, static_argnums=0)
