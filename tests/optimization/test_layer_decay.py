"""Layer-wise learning rates against numbers worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcontrast.encoders import build_encoder
from mmcontrast.errors import UserError
from mmcontrast.optimization.layer_decay import layer_multipliers
from mmcontrast.optimization.optim import make_optimizer
from mmcontrast.parameter_paths import path_name


def tree():
  def block():
    return {"attn": {"qkv": {"kernel": jnp.ones((2, 6))}}, "norm1": {"scale": jnp.ones(2)}}

  text = {
    "token_embedding": {"embedding": jnp.ones((3, 2))},
    "blocks": jax.tree.map(lambda x: x[None].repeat(3, 0), block()),
  }
  image = {
    "patch_embed": {"kernel": jnp.ones((1, 2))},
    "pos_embed": jnp.ones((1, 4, 2)),
    **{f"blocks_{i}": block() for i in range(2)},
    "norm": {"scale": jnp.ones(2)},
    "attn_pool": {"norm": {"scale": jnp.ones(2)}},
  }
  matrices = {"a": jnp.ones((2, 1)), "b": jnp.ones((1, 6))}
  lora = {"towers": {"image": {"blocks_0": {"attn": {"qkv": {"kernel": matrices}}}}}}
  return {
    "towers": {"image": image, "text": text},
    "heads": {"image_joint": {"fc1": {"kernel": jnp.ones((2, 2))}}},
    "terms": {"image_text": {"log_scale": jnp.ones(())}},
    "lora": lora,
  }


def rates(**options):
  """Path -> how far SGD at rate 1 moves a parameter whose gradient is 1."""
  transformation, _ = make_optimizer(dict(name="sgd", momentum=0.0, learning_rate=1.0, **options), tree(), 10)
  updates, _ = transformation.update(jax.tree.map(jnp.ones_like, tree()), transformation.init(tree()), tree())
  return {path_name(path): -np.asarray(leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(updates)[0]}


def test_numbers_by_hand():
  found = rates(layer_decay=0.5)
  # Two blocks: 0.5^3 below them, 0.5^2 and 0.5 in them.
  expected = {
    "towers/image/patch_embed/kernel": 0.125,
    "towers/image/pos_embed": 0.125,
    "towers/image/blocks_1/attn/qkv/kernel": 0.5,
    "towers/image/blocks_1/norm1/scale": 0.5,
    "towers/image/blocks_0/norm1/scale": 0.25,
    "towers/image/norm/scale": 1.0,
    "lora/towers/image/blocks_0/attn/qkv/kernel/a": 0.25,
    "lora/towers/image/blocks_0/attn/qkv/kernel/b": 0.25,
    "towers/image/attn_pool/norm/scale": 1.0,
    "heads/image_joint/fc1/kernel": 1.0,
    "terms/image_text/log_scale": 1.0,
    "towers/text/token_embedding/embedding": 0.0625,
  }
  for path, rate in expected.items():
    np.testing.assert_array_equal(found[path], np.full(found[path].shape, rate), err_msg=path)
  assert np.all(found["towers/image/blocks_0/attn/qkv/kernel"] == 0)  # LoRA adapts it
  scanned = found["towers/text/blocks/attn/qkv/kernel"]
  np.testing.assert_array_equal(scanned, np.broadcast_to(np.array([0.125, 0.25, 0.5])[:, None, None], (3, 2, 6)))


def test_one_tower_and_other_multipliers():
  found = rates(layer_decay=dict(image=0.5), learning_rate_multipliers=[("towers/.*", 3.0)])
  assert np.all(found["towers/image/pos_embed"] == 0.375) and np.all(found["towers/image/norm/scale"] == 3.0)
  assert np.all(found["towers/text/blocks/norm1/scale"] == 3.0)


@pytest.mark.parametrize(
  "decay, says",
  [
    (dict(imag=0.5), "did you mean 'image'"),
    (0.0, "above 0"),
    (1.5, "at most 1"),
    (dict(image="x"), "not 'x'"),
    (True, "not True"),
    ("0.75", "not '0.75'"),
  ],
)
def test_mistakes(decay, says):
  with pytest.raises(UserError, match=says):
    rates(layer_decay=decay)


STAGES, BLOCKS = dict(stages=(1, 1), width=8), dict(width=8, depth=2, heads=2)
TOWERS = {  # options, what comes before the blocks
  "resnet18": (STAGES, {"conv1", "bn1"}),
  "clip_resnet50": (dict(STAGES, head_width=4), {f"{kind}{i}" for kind in ("conv", "bn") for i in (1, 2, 3)}),
  "convnext_tiny": (STAGES, {"stem_0", "stem_1"}),
  "vit": (BLOCKS, {"patch_embed", "pos_embed"}),
  "text_transformer": (dict(BLOCKS, vocab_size=5), {"token_embedding", "pos_embed"}),
  "bert": (dict(BLOCKS, vocab_size=5, pool="pooler"), {"token_embedding", "pos_embed", "type_embed", "norm_pre"}),
}


@pytest.mark.parametrize("name", TOWERS)
def test_layers_of_real_towers(name):
  """Of two blocks or stages: what comes before them, each of them, and what comes after has a rate of its own."""
  options, before = TOWERS[name]
  inputs = jnp.zeros((1, 4), jnp.int32) if "vocab_size" in options else jnp.zeros((1, 32, 32, 3))
  encoder = build_encoder(dict(name=name, **options))
  params = jax.eval_shape(lambda: encoder.init(jax.random.key(0), inputs, train=False))["params"]
  shapes = {f"towers/t/{path_name(path)}": leaf.shape for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]}
  found = layer_multipliers(0.1, shapes)
  by_part = {}
  for path in shapes:
    by_part.setdefault(path.split("/")[2], set()).add(round(found.get(path, 1.0), 6))
  assert {part for part, rate in by_part.items() if rate == {0.001}} == before
  after = set() if name == "resnet18" else {1.0}
  assert {next(iter(rate)) for rate in by_part.values()} == {0.001, 0.01, 0.1} | after
  assert all(len(rate) == 1 for rate in by_part.values())
