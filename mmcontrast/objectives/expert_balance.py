"""Experts that are chosen equally often: the balance of mixtures in towers (encoders/experts.py).

balance = dict(module=dict(name="expert_balance"), weight=0.01,
               embeddings=("image[0]/image_joint", "text[0]/text_joint"))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.objectives.module_loss import Facts, ModuleLoss


class ExpertBalance(ModuleLoss):
  """E sum_e f_e P_e, over all blocks and tokens of the batch together, mean over the embeddings; at least `top`, which
  it is where all experts are chosen and likely equally often.

  f_e: of the tokens, the share that expert e was chosen for; P_e: its mean probability. Gradients go through P alone.
  Source: OpenSparseLLMs/CLIP-MoE@971b29f, load_balancing_loss_func.
  """

  TAKES: ClassVar = ("losses/routing",)
  ONE_SPACE: ClassVar = False

  def __call__(self, views: Sequence[Encoded], facts: Facts) -> tuple[jax.Array, dict[str, jax.Array]]:
    each = [balance(jnp.where(facts.valid[:, None], view.losses["routing"], 0)) for view in views]
    return sum(loss for loss, _ in each) / len(each), {"least_chosen": jnp.min(jnp.stack([least for _, least in each]))}


def balance(routing: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The loss of [B, 2 E + 1] (`experts.routing`), and the share of the tokens that the least chosen expert has."""
  total = jnp.sum(routing, 0)
  count = (len(total) - 1) // 2
  chosen, probable = jnp.split(total[:-1] / jnp.maximum(total[-1], 1), 2)
  return count * jnp.sum(chosen * probable), jnp.min(chosen)
