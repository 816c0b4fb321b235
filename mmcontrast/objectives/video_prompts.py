"""X-CLIP's contrast of videos with texts that are told what is seen in the video (Ni et al., arXiv:2208.02816)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.video_prompts import VideoPrompts
from mmcontrast.errors import UserError
from mmcontrast.objectives.embedding_path import parse_embedding
from mmcontrast.objectives.means import mean_of_valid, of_valid
from mmcontrast.objectives.module_loss import Facts, ModuleLoss
from mmcontrast.objectives.score import normalize, widen
from mmcontrast.objectives.term import Run


class VideoPromptContrast(ModuleLoss):
  """Cross entropy both ways of cosines of videos with texts that a prompt of each video is added to.

      prompted = dict(module=dict(name="video_prompts", heads=2),
                      embeddings=("video[0]/video_joint", "video[0]/video_patches", "text[0]/text_joint"))

      S_bk = <n(v_b), n(t_k + alpha * P(t_k, patches_b))> / temperature

  `embeddings`: the vector of a video, tokens of what is seen in it, and the vector of a text. A text is another one for
  each video, so that the N x N texts of D numbers are made whole. The paper has names of classes for texts and one
  direction; retrieval by single vectors leaves the prompts out.

  Attributes:
    depth, heads: of P, layers that attend to the patches.
    alpha: what the learned factors of P start with.
    temperature: cosines are divided by it; a number or a schedule.
  """

  TAKES: ClassVar[tuple[str, ...]] = ("pooled", "tokens")
  SCHEDULED: ClassVar[tuple[str, ...]] = ("temperature",)

  depth: int = 2
  heads: int = 1
  alpha: float = 0.1
  temperature: Any = 0.07

  @nn.compact
  def __call__(self, views: Sequence[Encoded], facts: Facts) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`views`: pooled [N, D], tokens [N, L, D], pooled [N, D]."""
    video, seen, text = views
    clips, texts = (widen(of_valid(one.pooled, facts.valid)) for one in (video, text))
    tokens = widen(of_valid(seen.tokens, facts.valid))
    prompts = VideoPrompts(self.depth, self.heads, self.alpha, dtype=texts.dtype, name="prompts")
    each = jnp.broadcast_to(texts, (len(clips), *texts.shape))
    told = normalize(each + prompts(each, tokens))
    if self.is_initializing():
      return jnp.float32(0), {}
    logits = jnp.einsum("bd,bkd->bk", normalize(clips), told) / facts.scheduled["temperature"]
    logits = jnp.where(facts.valid[:, None] & facts.valid, logits, jnp.finfo(logits.dtype).min / 2)
    losses = [-jnp.diagonal(jax.nn.log_softmax(logits, axis)) for axis in (1, 0)]
    right = (jnp.argmax(logits, 1) == jnp.arange(len(logits))).astype(logits.dtype)
    return mean_of_valid((losses[0] + losses[1]) / 2, facts.valid), {"accuracy": mean_of_valid(right, facts.valid)}

  def takes(self, place: int) -> tuple[str, ...]:
    return ("tokens",) if place == 1 else ("pooled",)

  def check_views(self, names: Sequence[str], run: Run) -> None:
    if len(names) != 3:
      raise UserError(
        f"embeddings: {list(names)}; name the vector of a video, its tokens and the vector of a text: "
        "'video[0]/HEAD', 'video[0]/TOKENS', 'text[0]/HEAD'"
      )
    width = run.head_dims.get(parse_embedding(names[0]).head)
    if width and width % self.heads:
      raise UserError(f"module.heads: {self.heads} heads do not divide the {width} dimensions of {names[0]!r}")
