"""What towers of graphs are made of: messages along typed edges, and where a node is by the walks that come back."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.encoders.dense import Dense

NORMALIZE = ("mean", "symmetric")


class Edges(NamedTuple):
  """Edges of padded graphs: int32 [B, E, 3], from which node to which, of which kind, and bool [B, E], which of them
  are real: both nodes are and the kind is known."""

  ends: jax.Array
  real: jax.Array


def edges_between(edges: jax.Array | None, mask: jax.Array, kinds: int) -> Edges:
  """The edges [B, E, 3] between real nodes, mask [B, N]; None: there are none."""
  if edges is None:
    edges = jnp.full((len(mask), 1, 3), -1, jnp.int32)
  ends, kind = edges[..., :2], edges[..., 2]
  count = mask.shape[1]
  there = jnp.all((ends >= 0) & (ends < count), -1) & (kind >= 0) & (kind < kinds)
  safe = jnp.clip(ends, 0, count - 1)
  both = jnp.take_along_axis(mask, safe[..., 0], 1) & jnp.take_along_axis(mask, safe[..., 1], 1)
  return Edges(jnp.concatenate([safe, jnp.clip(kind, 0, kinds - 1)[..., None]], -1), there & both)


def return_probabilities(edges: Edges, count: int, steps: int) -> jax.Array:
  """float32 [B, N, steps]: how probable it is that a random walk of 1, 2, ... steps from a node ends there.

  Edges are taken in both directions, whatever their kind; a node without any is left, so that all are 0.
  Source: Dwivedi et al. (arXiv:2110.07875), as GraphCLIP's (arXiv:2410.10329) positions.
  """

  def of_one(ends, real):
    once = real.astype(jnp.float32)
    start, end = ends[:, 0], ends[:, 1]
    return jnp.zeros((count, count), jnp.float32).at[start, end].max(once).at[end, start].max(once)

  adjacency = jax.vmap(of_one)(edges.ends, edges.real)
  walk = adjacency / jnp.maximum(adjacency.sum(2, keepdims=True), 1)
  found, power = [], walk
  for _ in range(steps):
    found.append(jnp.diagonal(power, axis1=1, axis2=2))
    power = jnp.matmul(power, walk, precision="highest")
  return jnp.stack(found, -1)


class TypedMessages(nn.Module):
  """What a node hears of its neighbours: a matrix for each kind of edge and each direction, and one for itself.

      y_i = W_0 x_i + b + sum over kinds and directions r, over neighbours j by r:  c_ijr W_r x_j

  "mean": c = 1 / how many neighbours i has by r, as GraphSAGE (arXiv:1706.02216) and R-GCN (arXiv:1703.06103) with
  one matrix a kind; "symmetric": 1 / sqrt(that number times how many have j by r), as in the GCN (arXiv:1609.02907).

  Attributes:
    kinds: of edges.
  """

  IS_LAYER: ClassVar = True

  kinds: int = 1
  normalize: str = "mean"
  dtype: Any = None

  @nn.compact
  def __call__(self, x: jax.Array, edges: Edges) -> jax.Array:
    """x [B, N + more, D], nodes first -> the same; of what is no node W_0 x + b alone."""
    count, width = x.shape[1:]
    bins = 2 * self.kinds

    def of_one(x, ends, real):
      start, end, kind = ends[:, 0], ends[:, 1], ends[:, 2]
      source, target = jnp.concatenate([start, end]), jnp.concatenate([end, start])
      by = jnp.concatenate([kind, kind + self.kinds])  # along an edge, and against it
      weight = jnp.concatenate([real, real]).astype(jnp.promote_types(x.dtype, jnp.float32))
      heard = jnp.zeros((count, bins), weight.dtype).at[target, by].add(weight)
      scale = weight / jnp.maximum(heard[target, by], 1)
      if self.normalize == "symmetric":
        told = jnp.zeros((count, bins), weight.dtype).at[source, by].add(weight)
        scale = weight / jnp.sqrt(jnp.maximum(heard[target, by], 1) * jnp.maximum(told[source, by], 1))
      messages = x[source] * scale[:, None].astype(x.dtype)
      return jnp.zeros((count, bins, width), x.dtype).at[target, by].add(messages)

    neighbours = jax.vmap(of_one)(x, *edges).reshape(len(x), count, bins * width)
    dense = Dense(width, use_bias=False, dtype=self.dtype, name="neighbours")(neighbours)
    return Dense(width, dtype=self.dtype, name="itself")(x) + dense
