"""SwAV: the cluster of one view is predicted from another (Caron et al. 2020, arXiv:2006.09882)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError
from mmcontrast.objectives.module_loss import Facts, ModuleLoss
from mmcontrast.objectives.score import normalize, products
from mmcontrast.objectives.term import Run


class Swav(ModuleLoss):
  """Codes of the first `codes` views, by Sinkhorn over the global batch; every other view predicts them.

      mean over codes v and views w != v of  -q_v . log softmax(z_w P / temperature),  z and P of unit length

  As facebookresearch/swav@06b1b7c trains: a code view's queue stands before the batch in its Sinkhorn problem, is
  scored with the prototypes of now, and counts once it is full; it is filled after use. In the first
  `freeze_steps` the prototypes have no gradient.

  Attributes:
    prototypes: how many.
    codes: views, the first of `embeddings`, that give codes; the others only predict (small crops).
    queue: embeddings that each code view remembers; 0: none. A multiple of the global batch.
    queue_from: the step from which the queue counts (the released code: epoch 15).
    temperature: of the softmax that predicts, a number or a schedule.
    epsilon: how soft the codes are: scores are divided by it.
    iterations: rounds of Sinkhorn.
    freeze_steps: in so many first steps prototypes get no gradient.
  """

  SCHEDULED: ClassVar[tuple[str, ...]] = ("temperature",)

  prototypes: int = 3000
  codes: int = 2
  temperature: Any = 0.1
  epsilon: float = 0.05
  iterations: int = 3
  queue: int = 0
  queue_from: int = 0
  freeze_steps: int = 0

  def __post_init__(self):
    super().__post_init__()
    for name, least in (("prototypes", 2), ("codes", 1), ("iterations", 1), ("queue", 0), ("freeze_steps", 0)):
      value = getattr(self, name)
      if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f"{name}: {value!r} is not a whole number of {least} or more")
    if not self.epsilon > 0:
      raise UserError(f"epsilon: {self.epsilon} is not above 0; SwAV uses 0.05")

  @nn.compact
  def __call__(self, views: Sequence[Encoded], facts: Facts) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`views`: pooled [N, D] each."""
    z = [normalize(view.pooled) for view in views]
    table = Table(self.prototypes, name="prototypes")(z[0].shape[-1])
    table = jnp.where(facts.step < self.freeze_steps, lax.stop_gradient(table), table)
    scores = [products(x, table) for x in z]
    queues = [self._queue(number, x, facts) for number, x in enumerate(z[: self.codes])] if self.queue else []
    codes = []
    for number in range(self.codes):
      before, use = (products(queues[number][0], table), queues[number][1]) if self.queue else (None, False)
      codes.append(lax.stop_gradient(self._codes(scores[number], facts.valid, before, use)))
    logs = [jax.nn.log_softmax(x / facts.scheduled["temperature"], -1) for x in scores]
    pairs = [(v, w) for v in range(self.codes) for w in range(len(z)) if w != v]
    count = jnp.maximum(jnp.sum(facts.valid), 1)
    each = [-jnp.sum(jnp.where(facts.valid[:, None], codes[v] * logs[w], 0.0)) / count for v, w in pairs]
    used = sum(jnp.sum(jnp.where(facts.valid[:, None], code, 0.0), 0) for code in codes) / (count * self.codes)
    entropy = -jnp.sum(used * jnp.log(jnp.maximum(used, 1e-12)))
    return sum(each) / len(each), {"perplexity": jnp.exp(entropy)}

  def _queue(self, number: int, x: jax.Array, facts: Facts) -> tuple[jax.Array, jax.Array]:
    """A code view's queue as it was before this batch, newest first; and whether it counts."""
    stored = self.variable("state", f"queue_{number}", jnp.zeros, (self.queue, x.shape[-1]), jnp.float32)
    filled = self.variable("state", f"filled_{number}", jnp.zeros, (), jnp.int32)
    old_queue, full = stored.value, (filled.value >= self.queue) & (facts.step >= self.queue_from)
    order = jnp.argsort(~facts.valid, stable=True)  # what does not take part is not remembered
    new, arrived = lax.stop_gradient(x)[order], jnp.sum(facts.valid)
    place = jnp.arange(self.queue)
    old = stored.value[jnp.clip(place - arrived, 0, self.queue - 1)]
    queue = jnp.where((place < arrived)[:, None], new[jnp.clip(place, 0, len(new) - 1)].astype(old.dtype), old)
    if not self.is_initializing():
      stored.value, filled.value = queue, jnp.minimum(filled.value + arrived, self.queue).astype(jnp.int32)
    return old_queue, full

  def _codes(self, scores: jax.Array, valid: jax.Array, before: jax.Array | None, use: Any) -> jax.Array:
    """Codes [N, K] of the batch, each of sum one: of it alone, or of it behind a queue that counts."""
    if before is None:
      return sinkhorn(scores, valid, self.epsilon, self.iterations)
    everything = jnp.concatenate([before.astype(scores.dtype), scores])
    counts = jnp.concatenate([jnp.broadcast_to(use, before.shape[:1]), valid])
    return sinkhorn(everything, counts, self.epsilon, self.iterations)[len(before) :]

  def check_views(self, names: Sequence[str], run: Run) -> None:
    if len(names) < 2 or self.codes > len(names):
      raise UserError(
        f"embeddings: {self.codes} views give codes that another predicts, and there are {len(names)}; "
        f"name {max(2, self.codes)} or more, or lower module.codes"
      )
    if self.queue % run.batch_size:
      whole = max(1, round(self.queue / run.batch_size)) * run.batch_size
      raise UserError(f"module.queue: {self.queue} is not a multiple of the global batch {run.batch_size}; use {whole}")
    if run.examples and self.queue > run.examples:
      raise UserError(
        f"module.queue: {self.queue} embeddings are more than an epoch of {run.examples}, so "
        f"some would be in it twice; use {run.examples // run.batch_size * run.batch_size} or fewer"
      )

  def after_step(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """Prototypes of unit length."""
    return {**parameters, "prototypes": {"kernel": normalize(parameters["prototypes"]["kernel"])}}

  def after_cut(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Queued embeddings of unit length."""
    return {name: normalize(x) if name.startswith("queue_") else x for name, x in state.items()}


class Table(nn.Module):
  """Prototypes, which `Swav.after_step` keeps at unit length: a layer, so that it is decayed as one."""

  count: int

  @nn.compact
  def __call__(self, width: int) -> jax.Array:
    """[count, width]."""
    return self.param("kernel", lambda key, shape: normalize(jax.random.normal(key, shape)), (self.count, width))


def sinkhorn(scores: jax.Array, valid: jax.Array, epsilon: float, iterations: int) -> jax.Array:
  """Equal shares of prototypes among examples, and of examples among prototypes, after so many rounds.

  Args:
    scores: [N, K]. valid: bool [N]; who is not takes no share.
  Returns:
    [N, K], each row of sum one, zeros where not valid.
  """
  logits = jnp.where(valid[:, None], scores / epsilon, -jnp.inf)
  shares = jnp.exp(logits - jnp.max(logits))  # one factor for all: Sinkhorn does not see it
  number = jnp.maximum(jnp.sum(valid), 1)
  for _ in range(iterations):
    by_prototype = jnp.sum(shares, 0, keepdims=True)
    shares = shares / jnp.where(by_prototype > 0, by_prototype, 1.0) / scores.shape[1]
    by_example = jnp.sum(shares, 1, keepdims=True)
    shares = shares / jnp.where(by_example > 0, by_example, 1.0) / number
  return shares * number
