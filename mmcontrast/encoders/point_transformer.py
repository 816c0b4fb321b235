"""A transformer on groups of points, as in Point-BERT (arXiv:2111.14819) and Uni3D (arXiv:2310.06773).

Centres are chosen one after the other, each the point that is farthest from those before it; the points nearest to a
centre are its group, which two small layers and a maximum, twice, make one token of (PointNet, arXiv:1612.00593).
Ours: the first centre is the point farthest from the mean, so that the order of points changes nothing.

Parameters: point1, point2, point3, point4, embed, place1, place2, cls_token, cls_pos, blocks_0/..., norm.
"""

from __future__ import annotations

import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from mmcontrast.encoders.attention import ATTENTION
from mmcontrast.encoders.dense import Dense
from mmcontrast.encoders.dtypes import DTYPES
from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.token_transformer import encoded_tokens
from mmcontrast.encoders.transformer import ACTIVATIONS, REMAT, check_heads
from mmcontrast.errors import UserError


def farthest_points(places: jax.Array, count: int) -> jax.Array:
  """Which points of a cloud [P, 3] are its centres, int32 [count]."""
  squared = lambda point: jnp.sum((places - point) ** 2, -1)  # noqa: E731
  first = jnp.argmax(squared(jnp.mean(places, 0))).astype(jnp.int32)

  def step(number, found):
    chosen, nearest = found
    nearest = jnp.minimum(nearest, squared(places[chosen[number - 1]]))
    return chosen.at[number].set(jnp.argmax(nearest).astype(jnp.int32)), nearest

  chosen = jnp.zeros(count, jnp.int32).at[0].set(first)
  start = (chosen, jnp.full(len(places), jnp.inf, places.dtype))
  return lax.fori_loop(1, count, step, start)[0]


def nearest_points(centres: jax.Array, places: jax.Array, count: int) -> jax.Array:
  """Which points [P, 3] are nearest to each centre [G, 3]: int32 [G, count]."""
  product = jnp.matmul(centres, places.T, precision=lax.Precision.HIGHEST)
  return lax.top_k(2 * product - jnp.sum(places**2, -1), count)[1]


class PointTransformer(nn.Module):
  """Clouds [B, P, 3 + C], places and what else is known of each point, to tokens of groups and one vector.

  Attributes:
    groups: centres, each with a token.
    size: points of a group.
    hidden: width of the layers that see single points.
    pool: "cls" (a learned token) or "gap" (mean of the groups' tokens).
    drop_path: probability of leaving out the last block, rising linearly from zero at the first.
    scan: whether the blocks are one loop, which compiles once whatever the depth.
    remat: what of a block is not kept for the backward pass. Neither it nor `attention` changes an output.
  """

  CHOICES: ClassVar = {
    "pool": ("cls", "gap"), "activation": tuple(ACTIVATIONS), "remat": REMAT, "attention": ATTENTION, "dtype": DTYPES,
  }  # fmt: skip

  width: int = 192
  depth: int = 6
  heads: int = 3
  groups: int = 64
  size: int = 32
  hidden: int = 64
  mlp_ratio: float = 4.0
  pool: str = "cls"
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
  def __call__(self, points: jax.Array, mask: jax.Array | None = None, *, train: bool) -> Encoded:
    """points [B, P, 3 + C], places about 0 -> pooled [B, D], tokens [B, G, D] in `dtype`, and which point
    each group is about, int32 [B, G] (`Encoded.places`)."""
    del mask
    dtype = jnp.dtype(self.dtype)
    if points.shape[1] < max(self.groups, self.size):
      raise UserError(
        f"clouds of {points.shape[1]} points do not make {self.groups} groups of {self.size}; set groups and size to "
        f"{points.shape[1]} or less, or data.points.count higher"
      )
    places = lax.stop_gradient(points[..., :3])
    at = jax.vmap(functools.partial(farthest_points, count=self.groups))(places)
    centres = jnp.take_along_axis(points[..., :3], at[..., None], 1)
    near = jax.vmap(functools.partial(nearest_points, count=self.size))(lax.stop_gradient(centres), places)
    grouped = jax.vmap(lambda cloud, which: cloud[which])(points, near)  # [B, G, K, 3 + C]
    grouped = jnp.concatenate([grouped[..., :3] - centres[:, :, None], grouped[..., 3:]], -1).astype(dtype)
    dense = functools.partial(Dense, dtype=dtype)
    x = dense(2 * self.hidden, name="point2")(nn.relu(dense(self.hidden, name="point1")(grouped)))
    whole = jnp.broadcast_to(jnp.max(x, 2, keepdims=True), x.shape)
    x = nn.relu(dense(4 * self.hidden, name="point3")(jnp.concatenate([whole, x], -1)))
    x = dense(self.width, name="embed")(jnp.max(dense(4 * self.hidden, name="point4")(x), 2))
    place = dense(self.hidden, name="place1")(centres.astype(dtype))
    x = x + dense(self.width, name="place2")(ACTIVATIONS["gelu"](place))
    return encoded_tokens(self, x, train=train, placed_class=True).replace(places=at)
