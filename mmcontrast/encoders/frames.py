"""A tower of images applied to each frame of a video: `frames(of=dict(name="resnet18"), temporal="transformer")`.

Parameters: of/..., those of the image tower, and mit/{pos_embed, blocks_0/...} (video_blocks.py). So
init={"towers/video/of": "pictures:towers/image"} starts it from an image tower.
"""

from __future__ import annotations

from typing import ClassVar

import jax
from flax import linen as nn

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.transformer import check_heads
from mmcontrast.encoders.video_blocks import TemporalTransformer
from mmcontrast.errors import UserError


class Frames(nn.Module):
  """Videos [B, T, H, W, 3] to one vector, and that of each frame as tokens [B, T, D].

  All frames of a batch are one batch of the image tower: a batch norm in it is over them all.

  Source: CLIP4Clip (Luo et al., arXiv:2104.08860), "meanP" and "seqTransf".

  Attributes:
    of: the image tower, a `resnet18`, a `convnext_tiny`, a `vit`, ..., by name or with options.
    temporal: how frames meet: "mean": their vectors are averaged; "transformer": after `temporal_depth` blocks over
      them, added to them.
    temporal_depth, temporal_heads: of these blocks; heads None: one for each 64 channels.
    temporal_positions: standard deviation with which their positions of frames begin.
  """

  NESTED: ClassVar = ("of",)  # options that are towers themselves
  CHOICES: ClassVar = {"temporal": ("mean", "transformer")}

  of: nn.Module
  temporal: str = "mean"
  temporal_depth: int = 1
  temporal_heads: int | None = None
  temporal_positions: float = 0.02

  def __post_init__(self):
    super().__post_init__()
    if not getattr(self.of, "OF_IMAGES", False):
      raise UserError("of: no tower of images; give one, such as 'resnet18', 'convnext_tiny' or dict(name='vit', ...)")
    if getattr(self.of, "patches", ()):
      raise UserError("of.patches: each view has a size of patches, and frames have one; leave it out")

  @nn.compact
  def __call__(self, videos: jax.Array, mask: jax.Array | None = None, *, train: bool) -> Encoded:
    """videos [B, T, H, W, 3] normalised -> pooled [B, D], tokens [B, T, D] in the image tower's `dtype`."""
    if mask is not None:
      raise UserError("tubelets are hidden from a tower that sees whole frames; use a tubelet_vit with leave_out")
    batch, times = videos.shape[:2]
    options = {"pooled_only": True} if getattr(self.of, "POOLS_ALONE", False) else {}
    seen = self.of(videos.reshape(-1, *videos.shape[2:]), train=train, **options)
    # Of what the image tower asks of itself, a clip has the mean over its frames.
    losses = {name: loss.reshape(batch, times, *loss.shape[1:]).mean(1) for name, loss in seen.losses.items()}
    frames = seen.pooled.reshape(batch, times, -1)
    if self.temporal == "mean":
      return Encoded(frames.mean(1), frames, losses=losses)
    width = frames.shape[-1]
    heads = self.temporal_heads or max(1, width // 64)
    check_heads(width, heads)
    mix = TemporalTransformer(
      self.temporal_depth, heads, positions=self.temporal_positions, dtype=frames.dtype, name="mit"
    )
    return mix(frames, train=train).replace(losses=losses)
