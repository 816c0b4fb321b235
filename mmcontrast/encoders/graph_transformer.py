"""A transformer on the nodes of a graph: in each block messages along edges, then attention between all nodes.

As GraphCLIP's tower (arXiv:2410.10329, ZhuYun97/GraphCLIP@c016277), which is a GPS transformer (arXiv:2205.12454): node
features with the probabilities that random walks come back, blocks, [mean of all nodes ; centre] to one vector. Ours:
the two come one after the other, each with its norm before it, where GPS adds both to what came in, with batch norms
after; and messages have a matrix for each kind of edge.

Parameters: place, embed, cls_token, blocks_0/{norm_messages, messages/{itself, neighbours}, norm1, attn, norm2, mlp},
norm, pool.
"""

from __future__ import annotations

import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.encoders.attention import ATTENTION
from mmcontrast.encoders.dense import Dense
from mmcontrast.encoders.dtypes import DTYPES
from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.graph_layers import Edges, TypedMessages, edges_between, return_probabilities
from mmcontrast.encoders.token_transformer import encoded_tokens
from mmcontrast.encoders.transformer import ACTIVATIONS, REMAT, check_heads, masked_mean

POOLS = ("mean_and_centre", "gap")


class GraphTransformer(nn.Module):
  """Graphs, features of their nodes [B, N, F] and edges, to tokens of the nodes and one vector.

  Neither the order of nodes, but for the centre, nor that of edges changes the vector, nor does padding.

  Attributes:
    kinds: of edges; that of the data where it is left out.
    steps: of the random walks whose probabilities to come back say where a node is; 0: none are looked at.
    places: numbers that these become.
    pool: "mean_and_centre" (the mean of the nodes and the first node, projected), "gap" (the mean), "cls" (a learned
      token, which hears no messages) or "features" (a mean of what nodes came in with, [B, F], each weighed by the
      softmax of a layer on what the node became: the tower says which nodes matter, not what they are).
    drop_path: probability of leaving out the last block, rising linearly from zero at the first.
    scan: whether the blocks are one loop, which compiles once whatever the depth.
    remat: what of a block is not kept for the backward pass. Neither it nor `attention` changes an output.
  """

  CHOICES: ClassVar = {
    "pool": (*POOLS, "cls", "features"), "activation": tuple(ACTIVATIONS), "remat": REMAT, "attention": ATTENTION,
    "dtype": DTYPES,
  }  # fmt: skip

  width: int = 192
  depth: int = 4
  heads: int = 3
  kinds: int = 1
  steps: int = 16
  places: int = 8
  mlp_ratio: float = 2.0
  pool: str = "mean_and_centre"
  activation: str = "gelu_tanh"
  dropout: float = 0.0
  drop_path: float = 0.0
  norm_epsilon: float = 1e-6
  dtype: str = "float32"
  scan: bool = False
  remat: str = "none"
  attention: str = "xla"

  def __post_init__(self):
    super().__post_init__()
    check_heads(self.width, self.heads)

  @nn.compact
  def __call__(
    self, features: jax.Array, mask: jax.Array | None = None, edges: jax.Array | None = None, *, train: bool
  ) -> Encoded:
    """features [B, N, F], mask [B, N] bool or None, edges int32 [B, E, 3] (from, to, kind; -1 of padding) or None ->
    pooled [B, D], tokens [B, N, D] in `dtype`, their mask [B, N]."""
    dtype = jnp.dtype(self.dtype)
    mask = jnp.ones(features.shape[:2], bool) if mask is None else mask
    between = edges_between(edges, mask, self.kinds)
    x = features.astype(dtype)
    if self.steps:
      come_back = return_probabilities(between, x.shape[1], self.steps)
      x = jnp.concatenate([x, Dense(self.places, dtype=dtype, name="place")(come_back.astype(dtype))], -1)
    x = Dense(self.width, dtype=dtype, name="embed")(x)
    front = int(self.pool == "cls")
    messages = functools.partial(TypedMessages, self.kinds, dtype=dtype)
    made = encoded_tokens(
      self, x, mask, train=train, context=Edges(between.ends.at[..., :2].add(front), between.real),
      branches=("messages", "attn", "mlp"), messages=messages,
    )  # fmt: skip
    if self.pool == "features":
      scores = Dense(1, dtype=dtype, name="pool")(made.tokens)[..., 0].astype(jnp.float32)
      weights = jnp.where(mask, nn.softmax(jnp.where(mask, scores, -1e9), -1), 0)
      return made.replace(pooled=jnp.einsum("bn,bnf->bf", weights.astype(dtype), features.astype(dtype)))
    return made if front else made.replace(pooled=pooled_nodes(self, made.tokens, mask))


def pooled_nodes(tower: nn.Module, nodes: jax.Array, mask: jax.Array) -> jax.Array:
  """Nodes [B, N, D] as one vector [B, D], as the `pool` of a tower says, whose parameter "pool" the projection is."""
  mean = masked_mean(nodes, mask)
  if tower.pool == "gap":
    return mean
  centre = jnp.where(mask[:, :1], nodes[:, 0], 0)  # of an example without a graph there is none
  both = jnp.concatenate([mean, centre], -1)
  return Dense(tower.width, dtype=jnp.dtype(tower.dtype), name="pool")(both)
