"""Regions of an image as tokens, and a transformer over them: LXMERT's object-relationship encoder (arXiv:1908.07490).

    towers.cells = dict(name="region_cells", reads=("image",), cells=2)
    towers.regions = dict(name="region_transformer", reads=("cells",), width=128, depth=1, heads=4)

Where regions are comes with the image's view (`Encoded.boxes`): data.regions.views and data.facts=("box",). Parameters
of the transformer: embed_features, norm_features, embed_boxes, norm_boxes, blocks_0/... (see `transformer.Block`).
"""

from __future__ import annotations

import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.encoders.attention import ATTENTION
from mmcontrast.encoders.dense import Dense
from mmcontrast.encoders.dropout import ExampleNoise
from mmcontrast.encoders.dtypes import DTYPES
from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.layer_norm import LayerNorm
from mmcontrast.encoders.transformer import ACTIVATIONS, Block, apply_blocks, check_heads, masked_mean
from mmcontrast.errors import UserError
from mmcontrast.modalities.boxes import area, roi_align, upright

ZEROS, OTHER = 0.8, 0.1  # of the hidden regions: shown as zeros; as another region of the picture; the rest as they are


class RegionCells(nn.Module):
  """What an image tower's map has within each region: cells x cells, by RoI-align, one after the other.

  It learns nothing. Without boxes, as of an image to embed, the regions are a grid of `grid` x `grid`.

  Attributes:
    cells: a side, of the map of a region.
    grid: regions on a side of an image whose regions are not known.
  """

  READS: ClassVar = 1

  cells: int = 2
  grid: int = 3

  def __post_init__(self):
    super().__post_init__()
    for name in ("cells", "grid"):
      value = getattr(self, name)
      if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"{name}: {value!r} is not a whole number of 1 or more")

  @nn.compact
  def __call__(self, first: Encoded, *others: Encoded, train: bool) -> Encoded:
    """first: a map, tokens [B, L, C] -> tokens [B, R, cells * cells * C] with their boxes, and a mask: False where a
    region is not in the view; pooled, their mean."""
    del train
    if others:
      raise UserError(f"region_cells read one image tower, not {1 + len(others)} towers; name one")
    if first.map is None or len(first.grid) != 2:
      raise UserError("reads the map of an image, and these tokens are in no grid; let it read an image tower")
    boxes = first.boxes
    if boxes is None:
      boxes = jnp.broadcast_to(_grid(self.grid), (len(first.tokens), self.grid**2, 4))
    points = max(1, -(-max(first.grid) // self.cells))
    of_one = functools.partial(roi_align, size=(self.cells, self.cells), points=points)
    tokens = jax.vmap(of_one, (None, 1), 1)(first.map, boxes).reshape(*boxes.shape[:2], -1)
    flat = jax.vmap(upright, 1, 1)(boxes)
    mask = jax.vmap(area, 1, 1)(flat) > 0
    return Encoded(masked_mean(tokens, mask), tokens, mask, boxes=flat)


def _grid(side: int) -> jax.Array:
  """[side * side, 4]: the boxes of a grid."""
  low = jnp.stack(jnp.meshgrid(*[jnp.arange(side) / side] * 2), -1).reshape(-1, 2)
  return jnp.concatenate([low, low + 1 / side], 1)


class RegionTransformer(nn.Module):
  """Regions by what is in them and where they are, (LN(W f) + LN(W' b)) / 2, through post-norm blocks.

  In training a share of the regions is hidden, of which terms ask (`Encoded.hidden`): 80 % are shown as zeros, 10 % as
  another region of the picture, 10 % as they are; boxes stay. Source: VisualFeatEncoder and LXRTEncoder of
  airsplay/lxmert@0db1182, src/lxrt/modeling.py, where the other region is of any picture.

  Attributes:
    hide: the share (LXMERT: 0.15); 0: none ever is.
    depth: blocks; 0: the sum alone (LXMERT: 5).
  """

  READS: ClassVar = 1
  CHOICES: ClassVar = {"activation": tuple(ACTIVATIONS), "attention": ATTENTION, "dtype": DTYPES}

  width: int = 768
  depth: int = 5
  heads: int = 12
  hide: float = 0.15
  mlp_ratio: float = 4.0
  activation: str = "gelu"
  dropout: float = 0.0
  norm_epsilon: float = 1e-12
  attention: str = "xla"
  dtype: str = "float32"

  def __post_init__(self):
    super().__post_init__()
    check_heads(self.width, self.heads)
    if not 0 <= self.hide < 1:
      raise UserError(f"hide: {self.hide!r} is not a share of the regions; give 0 or more and less than 1")

  @nn.compact
  def __call__(self, first: Encoded, *others: Encoded, train: bool) -> Encoded:
    """first: tokens [B, R, C] with mask and boxes -> pooled [B, D], tokens [B, R, D], the same mask and boxes, and
    which were hidden [B, R], None where it hides none."""
    if others or first.boxes is None or len(first.boxes[0]) != first.tokens.shape[1]:
      raise UserError("reads regions with their boxes; let it read one tower 'region_cells'")
    dtype, features = jnp.dtype(self.dtype), first.tokens
    hidden = jnp.zeros(features.shape[:2], bool) if self.hide else None
    if train and self.hide:
      features, hidden = HideRegions(self.hide, name="hidden")(features, first.mask)
    norm = functools.partial(LayerNorm, epsilon=self.norm_epsilon, dtype=dtype)
    of_what = norm(name="norm_features")(Dense(self.width, dtype=dtype, name="embed_features")(features))
    of_where = norm(name="norm_boxes")(
      Dense(self.width, dtype=dtype, name="embed_boxes")(first.boxes.astype(features.dtype))
    )
    x = nn.Dropout(self.dropout, deterministic=not train)((of_what + of_where) / 2)
    block = functools.partial(
      Block, self.heads, round(self.width * self.mlp_ratio), self.activation, dropout=self.dropout,
      norm_epsilon=self.norm_epsilon, dtype=dtype, attention=self.attention, norm="post",
    )  # fmt: skip
    x = apply_blocks(block, self.depth, x, first.mask, train=train) if self.depth else x
    return Encoded(masked_mean(x, first.mask), x, first.mask, hidden=hidden, boxes=first.boxes)


class HideRegions(ExampleNoise):
  """Hides a share of each example's regions, each with that probability."""

  share: float

  @nn.compact
  def __call__(self, features: jax.Array, real: jax.Array) -> tuple[jax.Array, jax.Array]:
    """features [B, R, C] of regions that are `real` [B, R] -> (features as shown, bool [B, R], which are hidden)."""
    noise = self.noise((*features.shape[:2], 2))
    hidden, how = (noise[..., 0] < self.share) & real, noise[..., 1]
    other = jnp.roll(features, 1, 1)
    replaced = jnp.where((how < ZEROS)[..., None], 0, jnp.where((how < ZEROS + OTHER)[..., None], other, features))
    return jnp.where(hidden[..., None], replaced, features), hidden


class SecondStream(nn.Module):
  """What the second of two towers that read each other became: tokens of its length.

      towers.seen = dict(name="second_stream", reads=("fusion",))     # fusion: a cross_modal_transformer, second=True

  It learns nothing.
  """

  READS: ClassVar = 1
  SECOND: ClassVar = True  # its tokens are not those of the view at the first end of what it reads

  @nn.compact
  def __call__(self, first: Encoded, *others: Encoded, train: bool) -> Encoded:
    """The `beside` of what it reads."""
    del train
    if others or first.beside is None:
      raise UserError(
        "reads what a 'cross_modal_transformer' made of the second of two towers; let it read one alone, with "
        "second=True"
      )
    return first.beside
