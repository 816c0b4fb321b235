"""The fusion transformer beside BERT with cross-attention (golden/make_fusion.py)."""

import pathlib

import jax
import numpy as np
import pytest
from flax import traverse_util

from mmcontrast.encoders import Encoded
from mmcontrast.encoders.fusion import FusionTransformer

GOLDEN = pathlib.Path(__file__).parent.parent / "golden" / "fusion.npz"


@pytest.mark.parametrize("kind", ["bidirectional", "causal"])
@pytest.mark.parametrize("remat", ["none", "full"])
def test_post_norm_is_bert_with_cross_attention(kind, remat):
  golden = dict(np.load(GOLDEN))
  params = traverse_util.unflatten_dict({name: x for name, x in golden.items() if "/" in name}, sep="/")
  module = FusionTransformer(
    width=12, depth=2, heads=3, mlp_ratio=2.0, norm="post", causal=kind == "causal", pool="mean", activation="gelu",
    norm_epsilon=1e-12, remat=remat, dtype="float64",
  )  # fmt: skip
  with jax.enable_x64(True):
    first, other = (Encoded(None, golden[x], golden[mask]) for x, mask in (("x", "mask"), ("context", "seen")))
    made = jax.jit(lambda params: module.apply({"params": params}, first, other, train=False))(params)
    tokens = np.asarray(made.tokens)
  np.testing.assert_allclose(tokens[golden["mask"]], golden[kind][golden["mask"]], atol=1e-6)
  mean = (golden[kind] * golden["mask"][..., None]).sum(1) / golden["mask"].sum(1, keepdims=True)
  np.testing.assert_allclose(made.pooled, mean, atol=1e-6)
