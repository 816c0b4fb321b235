"""Tokens as one array, as references hold them: vectors of zeros are none, and the last number may be a weight."""

import jax
import jax.numpy as jnp

from mmcontrast.encoders import Encoded
from mmcontrast.objectives.tokens import Tokens


def pack(tokens: Tokens) -> jax.Array:
  vectors = jnp.where(tokens.mask[..., None], tokens.vectors, 0)
  return vectors if tokens.weights is None else jnp.concatenate([vectors, tokens.weights[..., None]], -1)


def unpack(array: jax.Array, weighted: bool = False) -> Tokens:
  vectors, weights = (array[..., :-1], array[..., -1]) if weighted else (array, None)
  return Tokens(vectors, jnp.any(vectors != 0, -1), weights)


def encoded(arrays, weighted: bool = False):
  """name -> array [N, L, D], as terms take it."""
  tokens = {name: unpack(array, weighted) for name, array in arrays.items()}
  return {name: Encoded(None, of.vectors, of.mask, of.weights) for name, of in tokens.items()}


def with_tokens(arrays):
  """Embeddings by name, those of heads named "tokens" as terms take them."""
  return {**arrays, **encoded({name: array for name, array in arrays.items() if "/tokens" in name})}
