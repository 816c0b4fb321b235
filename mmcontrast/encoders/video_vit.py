"""Vision transformers of videos that see each frame as ViT sees an image, and differ in how frames meet.

Parameters: patch_embed, cls_token, pos_embed, time_embed (of "divided"), norm_pre, blocks_0/... (transformer.py,
video_blocks.py), norm, proj, mit/{pos_embed, blocks_0/...}, norm_patches, proj_patches.
"""

from __future__ import annotations

import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.encoders.conv import Conv
from mmcontrast.encoders.dense import Dense
from mmcontrast.encoders.dtypes import DTYPES
from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.layer_norm import LayerNorm
from mmcontrast.encoders.lowering import lowering
from mmcontrast.encoders.positions import resize_positions
from mmcontrast.encoders.sizes import nearest_multiples
from mmcontrast.encoders.transformer import ACTIVATIONS, Block, check_heads
from mmcontrast.encoders.video_blocks import BLOCKS, TemporalTransformer
from mmcontrast.errors import UserError

TEMPORAL = ("mean", "transformer", *BLOCKS)


class VideoViT(nn.Module):
  """Videos [B, T, H, W, 3] to one vector, and tokens.

  Attributes:
    patch: side of a patch in pixels, which divides that of frames.
    mlp_ratio: hidden width of an MLP over `width`.
    temporal: how frames meet: "mean": not before their vectors are averaged (CLIP4Clip, arXiv:2104.08860);
      "transformer": a transformer of `temporal_depth` blocks over their vectors, added to them, and the mean;
      "xclip": messages between frames in each block, and such a transformer; "divided": each patch attends to itself
      at all times (TimeSformer); "ila": frames are aligned with their neighbours in each block, and such a transformer;
      its loss is "alignment", for a term with auxiliary="alignment".
    tokens: "frames" [B, T, D], or "patches" [B, L, D], each the mean over the frames, which video-specific prompts
      read.
    temporal_depth, temporal_heads: of that transformer; heads None: one for each 64 channels.
    temporal_positions: standard deviation with which its positions of frames begin. Beside vectors of frames that a
      norm has made large, 0.02 (X-CLIP's) is so little that a tower from nothing sees no order for long.
    project: width that frames, and patches, are projected to before the temporal transformer (CLIP's projection);
      None: none, and they stay as they are.
    activation: of the MLPs; CLIP's is "quick_gelu".
    pre_norm: a norm before the blocks, as in CLIP.
    patch_bias: whether the projection of patches has a bias.
  """

  CHOICES: ClassVar = {
    "temporal": TEMPORAL,
    "tokens": ("frames", "patches"),
    "activation": tuple(ACTIVATIONS),
    "dtype": DTYPES,
  }

  width: int = 384
  depth: int = 12
  heads: int = 6
  patch: int = 16
  mlp_ratio: float = 4.0
  temporal: str = "mean"
  temporal_depth: int = 1
  temporal_heads: int | None = None
  temporal_positions: float = 0.02
  tokens: str = "frames"
  project: int | None = None
  activation: str = "quick_gelu"
  norm_epsilon: float = 1e-5
  pre_norm: bool = True
  patch_bias: bool = False
  dtype: str = "float32"

  def __post_init__(self):
    super().__post_init__()
    check_heads(self.width, self.heads)

  @nn.compact
  def __call__(self, videos: jax.Array, mask: jax.Array | None = None, *, train: bool) -> Encoded:
    """videos [B, T, H, W, 3] normalised -> pooled [B, D], tokens as `tokens` says."""
    batch, times, height, width = videos.shape[:4]
    if mask is not None:
      raise UserError("tubelets are hidden from a tower that sees whole frames; use a tubelet_vit with leave_out")
    if height % self.patch or width % self.patch:
      side = height if height % self.patch else width
      raise UserError(
        f"frames of {height}x{width} do not split into patches of {self.patch} px; set config.data.video.size to "
        f"{nearest_multiples(side, self.patch)}, or patch to a divisor of it"
      )
    dtype = jnp.dtype(self.dtype)
    norm = functools.partial(LayerNorm, epsilon=self.norm_epsilon, dtype=dtype)
    embed = Conv(
      self.width, self.patch, self.patch, padding=0, use_bias=self.patch_bias, dtype=dtype,
      lowering=lowering().patches, kernel_init=nn.initializers.lecun_normal(), name="patch_embed",
    )  # fmt: skip
    patches = embed(videos.reshape(-1, *videos.shape[2:]))
    x = self._placed(patches)
    x = norm(name="norm_pre")(x) if self.pre_norm else x
    x = x.reshape(batch, times, *x.shape[1:])
    if self.temporal == "divided":
      time = self.param("time_embed", nn.initializers.normal(0.02), (1, times, 1, self.width), jnp.float32)
      x = x.at[:, :, 1:].add(time.astype(x.dtype))
    x, losses = self._blocks(x, train)
    front = norm(name="norm")(x[:, :, 0])
    if self.project:
      front = Dense(self.project, use_bias=False, dtype=dtype, name="proj")(front)
    if self.temporal in ("mean", "divided"):
      made = Encoded(front.mean(1), front)
    else:
      heads = self.temporal_heads or max(1, front.shape[-1] // 64)
      check_heads(front.shape[-1], heads)
      mix = TemporalTransformer(
        self.temporal_depth, heads, self.activation, self.norm_epsilon, self.temporal_positions, dtype, name="mit"
      )
      made = mix(front, train=train)
    if self.tokens == "patches":
      seen = norm(name="norm_patches")(x[:, :, 1:])
      if self.project:
        seen = Dense(self.project, use_bias=False, dtype=dtype, name="proj_patches")(seen)
      made = made.replace(tokens=seen.mean(1), grid=patches.shape[1:3])
    return made.replace(losses=losses)

  def _blocks(self, x: jax.Array, train: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
    """[B, T, L, D] through the blocks, and what they ask of themselves."""
    hidden, dtype = round(self.width * self.mlp_ratio), jnp.dtype(self.dtype)
    if self.temporal not in BLOCKS:
      block = functools.partial(Block, self.heads, hidden, self.activation, norm_epsilon=self.norm_epsilon, dtype=dtype)
      frames = x.reshape(-1, *x.shape[2:])
      for number in range(self.depth):
        frames = block(name=f"blocks_{number}")(frames, None, train=train)
      return frames.reshape(x.shape), {}
    unlike = jnp.zeros(len(x), jnp.float32)
    for number in range(self.depth):
      block = BLOCKS[self.temporal](
        self.heads, hidden, self.activation, self.norm_epsilon, dtype, name=f"blocks_{number}"
      )
      x, its = block(x, train=train)
      unlike = unlike + its
    return x, {"alignment": unlike} if self.temporal == "ila" else {}

  def _placed(self, patches: jax.Array) -> jax.Array:
    """Patches of frames [N, rows, columns, D] -> [N, 1 + L, D], with a learned token before them, and positions."""
    grid, normal = patches.shape[1:3], nn.initializers.normal(0.02)
    x = patches.reshape(len(patches), -1, self.width)
    token = self.param("cls_token", normal, (1, 1, self.width), jnp.float32).astype(x.dtype)
    x = jnp.concatenate([jnp.broadcast_to(token, (len(x), 1, self.width)), x], axis=1)
    made = self.get_variable("params", "pos_embed", default=jnp.zeros((1, x.shape[1], 1))).shape[1]
    position = self.param("pos_embed", normal, (1, made, self.width), jnp.float32)
    return x + resize_positions(position, grid, 1).astype(x.dtype)
