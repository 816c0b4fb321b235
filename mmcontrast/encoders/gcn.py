"""A convolutional network on graphs with typed edges: each layer mixes a node with its neighbours, by kind of edge.

Kipf and Welling's GCN (arXiv:1609.02907) with a matrix for each kind of edge and direction, and one for the node itself
in the place of an edge to itself, as R-GCN (arXiv:1703.06103). Ours: a layer norm before the activation.

Parameters: embed, layers_0/{itself, neighbours}, norms_0, ..., pool.
"""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.encoders.dense import Dense
from mmcontrast.encoders.dtypes import DTYPES
from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.graph_layers import NORMALIZE, TypedMessages, edges_between
from mmcontrast.encoders.graph_transformer import POOLS, pooled_nodes
from mmcontrast.encoders.layer_norm import LayerNorm
from mmcontrast.encoders.transformer import ACTIVATIONS


class Gcn(nn.Module):
  """Graphs, features of their nodes [B, N, F] and edges, to tokens of the nodes and one vector.

  A node knows of what is at most `depth` edges away. Neither the order of nodes, but for the centre, nor padding
  changes the vector.

  Attributes:
    kinds: of edges; that of the data where it is left out.
    normalize: what a neighbour counts: "symmetric", 1 / sqrt(its degree times the node's), as in the GCN; "mean".
    pool: "gap" (the mean of the nodes) or "mean_and_centre" (the mean of the nodes and the first node, projected).
  """

  CHOICES: ClassVar = {"pool": POOLS, "normalize": NORMALIZE, "activation": tuple(ACTIVATIONS), "dtype": DTYPES}

  width: int = 192
  depth: int = 2
  kinds: int = 1
  normalize: str = "symmetric"
  pool: str = "gap"
  activation: str = "relu"
  dropout: float = 0.0
  norm_epsilon: float = 1e-6
  dtype: str = "float32"

  @nn.compact
  def __call__(
    self, features: jax.Array, mask: jax.Array | None = None, edges: jax.Array | None = None, *, train: bool
  ) -> Encoded:
    """As of GraphTransformer."""
    dtype = jnp.dtype(self.dtype)
    mask = jnp.ones(features.shape[:2], bool) if mask is None else mask
    between = edges_between(edges, mask, self.kinds)
    x = Dense(self.width, dtype=dtype, name="embed")(features.astype(dtype))
    for number in range(self.depth):
      x = nn.Dropout(self.dropout)(x, deterministic=not train)
      x = TypedMessages(self.kinds, self.normalize, dtype, name=f"layers_{number}")(x, between)
      x = LayerNorm(epsilon=self.norm_epsilon, dtype=dtype, name=f"norms_{number}")(x)
      x = ACTIVATIONS[self.activation](x)
    return Encoded(pooled_nodes(self, x, mask), x, mask)
