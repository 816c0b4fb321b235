"""Masked language modelling with momentum distillation, against its formula; on devices, with what is not there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from meshes import assert_close, compiled, make_mesh

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.objectives import terms as objective

pytestmark = pytest.mark.usefixtures("float64")
PATH = "fusion(text_masked[0], image[0])/words"
N, L, V = 8, 5, 7


def case():
  draw = np.random.default_rng(0)
  logits, teacher = draw.normal(size=(2, N, L, V))
  ids = draw.integers(0, V, (N, L))
  ids[:, 4] = -1
  return logits, teacher, {"ids": ids, "masked": (draw.random((N, L)) < 0.5) & (ids >= 0)}


def loss(logits, teacher, facts, share=0.4):
  names = (PATH, f"{PATH}@momentum") if share else PATH
  terms = objective.parse_terms({"w": dict(module=dict(name="masked_words", share=share), embeddings=names)})
  made = {PATH: Encoded(logits=logits), f"{PATH}@momentum": Encoded(logits=teacher)}
  return objective.evaluate(terms, made, facts, {}, {}, {})


def reference(logits, teacher, chosen, ids, share):
  """As BertForMaskedLM of salesforce/ALBEF's models/xbert.py has it."""
  log_q = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  p = np.exp(teacher) / np.exp(teacher).sum(-1, keepdims=True)
  hard = -np.take_along_axis(log_q, np.maximum(ids, 0)[..., None], -1)[..., 0][chosen].mean()
  return (1 - share) * hard + share * -(p * log_q).sum(-1)[chosen].mean(), np.exp(hard)


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_value_gradient_and_devices(share):
  logits, teacher, facts = case()
  valid = np.arange(N) != 2
  info = {"views": {"text_masked[0]": facts}, "valid": valid, "present": {"image": np.arange(N) != 5}}
  there = facts["masked"] & (valid & info["present"]["image"])[:, None]
  wanted, perplexity = reference(logits, teacher, there, facts["ids"], share)
  value_and_grad = compiled(jax.value_and_grad(lambda x, y, info: loss(x, y, info, share), (0, 1), has_aux=True))
  (value, metrics), (gradient, of_teacher) = value_and_grad(logits, teacher, info)
  np.testing.assert_allclose(value, wanted, rtol=1e-9)
  np.testing.assert_allclose(metrics["w/perplexity"], perplexity, rtol=1e-9)
  np.testing.assert_allclose(metrics["w/accuracy"], (logits.argmax(-1) == facts["ids"])[there].mean())
  assert (np.asarray(of_teacher) == 0).all() and (np.asarray(gradient)[~there] == 0).all()
  target = (1 - share) * np.eye(V)[facts["ids"]] + share * jax.nn.softmax(teacher, -1)
  by_hand = np.where(there[..., None], jax.nn.softmax(logits, -1) - target, 0) / there.sum()
  np.testing.assert_allclose(gradient, by_hand, atol=1e-12)
  cut = NamedSharding(make_mesh(4), PartitionSpec("data"))
  assert_close(
    value_and_grad(*jax.device_put((logits, teacher, info), cut)), ((value, metrics), (gradient, of_teacher)), 1e-12
  )
  order = np.random.default_rng(3).permutation(N)
  (other, _), moved = value_and_grad(*jax.tree.map(lambda x: x[order], (logits, teacher, info)))
  np.testing.assert_allclose(other, value, rtol=1e-12)
  np.testing.assert_allclose(moved[0], gradient[order], atol=1e-12)


def test_nothing_to_guess_is_zero():
  logits, teacher, facts = case()
  info = {"views": {"text_masked[0]": facts | {"masked": np.zeros((N, L), bool)}}}
  (value, _), gradient = jax.value_and_grad(lambda x: loss(x, teacher, info), has_aux=True)(jnp.asarray(logits))
  assert value == 0 and (np.asarray(gradient) == 0).all()
