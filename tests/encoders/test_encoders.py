"""Shapes, parameter counts, masks, dtypes and errors of every encoder and head."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from mmcontrast.encoders import ENCODERS, HEADS, build_encoder, build_head
from mmcontrast.encoders.layers import stack_layers
from mmcontrast.encoders.positions import sincos2d
from mmcontrast.errors import UserError

SMALL = {
  "resnet18": {"name": "resnet18", "width": 8, "stem": "small", "stages": (1, 2)},
  "resnet50": {"name": "resnet50", "width": 8, "stages": (2, 1), "zero_init_residual": True},
  "clip_resnet50": {"name": "clip_resnet50", "width": 8, "stages": (2, 1), "head_width": 16},
  "convnext_tiny": {"name": "convnext_tiny", "width": 8, "stages": (2, 1), "layer_scale": 0.5},
  "vit_gap": {"name": "vit", "width": 16, "depth": 2, "heads": 2, "patch": 8},
  "vit_cls": {"name": "vit", "width": 16, "depth": 1, "heads": 2, "patch": 8, "pool": "cls",
              "positions": "sincos2d"},
  "vit_map": {"name": "vit", "width": 16, "depth": 1, "heads": 2, "patch": 8, "pool": "map",
              "activation": "quick_gelu"},
}  # fmt: skip
TEXT = {"name": "text_transformer", "vocab_size": 50, "width": 16, "depth": 1, "heads": 2,
        "max_length": 12}  # fmt: skip
BERT = TEXT | {"name": "bert"}
MODERN_BERT = TEXT | {"name": "modern_bert", "depth": 2, "global_every": 2, "window": 2}
IMAGES = np.random.default_rng(0).standard_normal((4, 32, 32, 3), np.float32)
LENGTHS = np.array([3, 8, 1, 5])
IDS = np.random.default_rng(0).integers(3, 50, (4, 8)).astype(np.int32)
MASK = np.arange(8)[None] < LENGTHS[:, None]


def parameters(config, *inputs):
  module = build_encoder(config)
  shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs, train=False))
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes["params"]))


@pytest.mark.parametrize(
  "config, count",
  [
    ({"name": "resnet18"}, 11_176_512),  # torchvision, classifier removed
    ({"name": "resnet34"}, 21_284_672),
    ({"name": "resnet50"}, 23_508_032),
    ({"name": "resnet101"}, 42_500_160),
    ({"name": "resnet152"}, 58_143_808),
    ({"name": "clip_resnet50"}, 38_316_896 - (2048 + 1) * 1024),  # open_clip's visual without attnpool.c_proj
    ({"name": "clip_resnet101"}, 56_259_936 - (2048 + 1) * 512),
    ({"name": "clip_resnet50x4"}, 87_137_080 - (2560 + 1) * 640),
    ({"name": "clip_resnet50x16"}, 167_328_912 - (3072 + 1) * 768),
    ({"name": "clip_resnet50x64"}, 420_380_352 - (4096 + 1) * 1024),
    ({"name": "convnext_tiny"}, 27_820_128),  # timm, num_classes=0
    ({"name": "convnext_small"}, 49_454_688),
    ({"name": "convnext_base"}, 87_566_464),
    ({"name": "convnext_large"}, 196_230_336),
    ({"name": "vit_tiny", "pool": "cls"}, 5_524_416),  # timm *_patch16_224, num_classes=0
    ({"name": "vit_small", "pool": "cls"}, 21_665_664),
    ({"name": "vit_base", "pool": "cls"}, 85_798_656),
    ({"name": "vit_large", "pool": "cls"}, 303_301_632),
    ({"name": "vit_base", "pool": "map"}, 92_884_224),  # SigLIP's ViT-B/16 image tower
    ({"name": "vit_so400m", "patch": 14, "pool": "map", "scan": True}, 427_680_704),  # SigLIP's
    ({"name": "vit_huge", "patch": 14, "pool": "cls", "scan": True}, 630_764_800),
    ({"name": "vit_giant", "patch": 14, "pool": "cls", "scan": True}, 1_011_202_432),
    ({"name": "vit_giant_opt", "pool": "map", "scan": True}, 1_163_168_256 - 60 * 1536),  # timm's is for 256 px
    (
      {
        "name": "vit_giant_opt",
        "heads": 24,
        "patch": 14,
        "pool": "cls",
        "mlp": "swiglu",
        "mlp_ratio": 8 / 3,
        "layer_scale": 1e-5,
        "scan": True,
      },
      1_136_479_232 - 1113 * 1536,
    ),  # DINOv2's ViT-g/14; timm's is for 518 px
  ],
  ids=lambda x: "-".join(map(str, x.values())) if isinstance(x, dict) else "",
)
def test_published_parameter_counts(config, count):
  side = {"clip_resnet50x4": 288, "clip_resnet50x16": 384, "clip_resnet50x64": 448}.get(config["name"], 224)
  assert parameters(config, jnp.zeros((1, side, side, 3))) == count


@pytest.mark.parametrize("stem, cells", [("imagenet", 8), ("small", 32), ("patch2", 16), ("patch4", 8)])
def test_map_after_each_stem(stem, cells):
  module = build_encoder({"name": "resnet18", "width": 8, "stem": stem, "stages": (1,)})
  encoded, _ = jax.eval_shape(lambda: module.init_with_output(jax.random.key(0), IMAGES, train=False))
  assert encoded.tokens.shape == (4, cells**2, 8)


def test_text_parameter_count_is_clips():
  config = {"name": "text_transformer", "vocab_size": 49_408, "width": 512, "depth": 12}
  clip = 63_428_096 - 512 * 512  # ViT-B/32's text tower without its projection
  assert parameters(config, jnp.zeros((1, 77), jnp.int32)) == clip


@pytest.mark.parametrize("name, pool, count", [
  ("bert", "pooler", 109_482_240), ("bert_large", "pooler", 335_141_888),  # transformers' BertModel
  ("modern_bert", "cls", 149_014_272), ("modern_bert_large", "cls", 394_781_696),  # answerdotai/ModernBERT-*
])  # fmt: skip
def test_text_parameter_counts_are_berts(name, pool, count):
  words = 30_522 if name.startswith("bert") else 50_368
  assert parameters({"name": name, "vocab_size": words, "pool": pool}, jnp.zeros((1, 8), jnp.int32)) == count


def encode(config, *inputs, train=False, seed=0):
  module = build_encoder(config)
  variables = jax.jit(lambda *x: module.init(jax.random.key(seed), *x, train=False))(*inputs)
  apply = jax.jit(
    lambda v, *x: module.apply(v, *x, train=train, mutable=["batch_stats"], rngs={"dropout": jax.random.key(1)})[0]
  )
  return variables, lambda *x: apply(variables, *x)


@pytest.mark.parametrize("name", SMALL)
def test_image_encoders_keep_examples_apart(name):
  """Shapes are as promised, and permuting the batch permutes the outputs."""
  _, run = encode(SMALL[name], IMAGES)
  out, order = run(IMAGES), np.array([2, 0, 3, 1])
  assert out.pooled.shape == (4, out.tokens.shape[-1]) and out.mask is None
  assert out.tokens.shape[:2] == (4, {"resnet18": 256}.get(name, 16))
  permuted = run(IMAGES[order])
  np.testing.assert_allclose(permuted.pooled, out.pooled[order], rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(permuted.tokens, out.tokens[order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [
  {"pool": "mean"}, {"pool": "cls"}, {"pool": "eos"}, {"pool": "eos", "causal": True},
  {"pool": "eos", "eos_id": 2, "causal": True}, {"pool": "mean", "causal": True}, BERT, BERT | {"pool": "cls"},
  BERT | {"pool": "pooler"}, MODERN_BERT, MODERN_BERT | {"pool": "cls"},
], ids=lambda options: " ".join(str(value) for value in options.values()))  # fmt: skip
def test_padding_and_order_do_not_change_texts(options):
  ids = IDS.copy()
  ids[np.arange(4), LENGTHS - 1] = 2
  _, run = encode(TEXT | options, ids, MASK)
  out = run(ids, MASK)
  other = np.where(MASK, ids, 7)  # other ids under the padding
  np.testing.assert_allclose(run(other, MASK).pooled, out.pooled, rtol=1e-5, atol=1e-6)
  longer = [np.pad(a, ((0, 0), (0, 4))) for a in (other, MASK)]  # more padding
  np.testing.assert_allclose(run(*longer).pooled, out.pooled, rtol=1e-5, atol=1e-5)
  order = np.array([2, 0, 3, 1])
  permuted = run(ids[order], MASK[order])
  np.testing.assert_allclose(permuted.pooled, out.pooled[order], rtol=1e-5, atol=1e-6)


def test_eos_is_the_last_real_token_or_the_first_of_its_id():
  ids = IDS.copy()
  ids[0, 1] = 2
  _, run = encode(TEXT | {"pool": "eos"}, ids, MASK)
  out = run(ids, MASK)
  np.testing.assert_array_equal(out.pooled, out.tokens[np.arange(4), LENGTHS - 1])
  _, run = encode(TEXT | {"pool": "eos", "eos_id": 2}, ids, MASK)
  np.testing.assert_array_equal(run(ids, MASK).pooled[0], run(ids, MASK).tokens[0, 1])


def test_texts_in_a_loop_are_the_same():
  config = TEXT | {"depth": 2, "pool": "end_token", "causal": True}
  variables, run = encode(config, IDS, MASK)
  looped = traverse_util.unflatten_dict(stack_layers(traverse_util.flatten_dict(variables["params"], sep="/")), sep="/")
  module = build_encoder(config | {"scan": True, "remat": "full"})
  out = jax.jit(lambda params: module.apply({"params": params}, IDS, MASK, train=False))(looped)
  np.testing.assert_allclose(out.pooled, run(IDS, MASK).pooled, rtol=1e-5, atol=1e-6)


def test_a_causal_token_does_not_see_the_next():
  other = IDS.copy()
  other[:, 5] = 4
  for causal in (True, False):
    _, run = encode(TEXT | {"causal": causal}, IDS)
    same = np.allclose(run(IDS).tokens[:, :5], run(other).tokens[:, :5], atol=1e-6)
    assert same == causal


def test_with_attend_padding_the_last_position_sees_all_ids():
  options = TEXT | {"pool": "last", "attend_padding": True}
  _, run = encode(options, IDS, MASK)
  out, other = run(IDS, MASK), run(np.where(MASK, IDS, 7), MASK)
  np.testing.assert_array_equal(out.pooled, out.tokens[:, -1])
  changed = (np.asarray(out.pooled) != other.pooled).any(1)
  np.testing.assert_array_equal(changed, (np.where(MASK, IDS, 7) != IDS).any(1))


@pytest.mark.parametrize("pad_id", [None, 1])
def test_the_end_token_sees_the_text_and_the_first_padding(pad_id):
  ids = np.where(MASK, IDS, 1)
  _, run = encode(TEXT | {"pool": "end_token", "pad_id": pad_id, "causal": True}, ids, MASK)
  out = run(ids, MASK)
  assert out.tokens.shape == (4, 8, 16) and out.pooled.shape == (4, 16)
  assert not np.allclose(out.pooled[0], out.tokens[0, -1])
  seen = [not np.array_equal(run(np.where(np.arange(8) == i, 5, ids), MASK).pooled[0], out.pooled[0]) for i in range(6)]
  # Text 0 has 3 tokens. An id other than `pad_id` at a place counts as a token, and shows the next place too.
  assert seen == [True] * 4 + [False] * 2 if pad_id is None else seen[:4] == [True] * 4


@pytest.mark.parametrize("config", [TEXT, MODERN_BERT], ids=lambda config: config["name"])
def test_an_empty_text_is_finite_in_value_and_gradient(config):
  module = build_encoder(config)
  mask = np.zeros_like(MASK)
  variables, _ = encode(config, IDS, mask)
  total = lambda v: module.apply(v, IDS, mask, train=False).pooled.sum()  # noqa: E731
  grads = jax.jit(jax.grad(total))(variables)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize("config", [*SMALL.values(), TEXT, BERT, MODERN_BERT], ids=lambda config: config["name"])
def test_bfloat16_computes_so_and_keeps_float32_parameters(config):
  config = config | {"dtype": "bfloat16"}
  inputs = (IDS, MASK) if "vocab_size" in config else (IMAGES,)
  module = build_encoder(config)
  variables = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs, train=False))
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
  run = lambda v: module.apply(v, *inputs, train=True, mutable=["batch_stats"])  # noqa: E731
  out, changed = jax.eval_shape(run, variables)
  assert out.pooled.dtype == out.tokens.dtype == jnp.bfloat16
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(changed))


def test_dropout_and_drop_path_only_in_training():
  config = SMALL["vit_gap"] | {"dropout": 0.2, "drop_path": 0.5}
  _, still = encode(config, IMAGES)
  _, moving = encode(config, IMAGES, train=True)
  _, plain = encode(SMALL["vit_gap"], IMAGES)
  np.testing.assert_allclose(still(IMAGES).pooled, plain(IMAGES).pooled, rtol=1e-5)
  assert not np.allclose(moving(IMAGES).pooled, plain(IMAGES).pooled)


def test_zero_init_residual_starts_each_block_at_its_shortcut():
  variables, _ = encode(SMALL["resnet50"], IMAGES)
  block = variables["params"]["layer1_1"]
  assert not block["bn3"]["scale"].any() and block["bn2"]["scale"].all()


def test_sincos_positions_are_distinct_and_bounded():
  table = sincos2d(4, 5, 16)
  assert table.shape == (20, 16) and np.abs(table).max() <= 1
  assert len(np.unique(table.round(5), axis=0)) == 20


def test_a_head_of_tokens_says_where_there_is_none():
  tokens = jax.random.normal(jax.random.key(0), (4, 8, 10))
  head = build_head({"name": "token_linear", "dim": 3})
  out, variables = head.init_with_output(jax.random.key(0), tokens, MASK, train=True)
  assert out.pooled is None and out.tokens.shape == (4, 8, 3) and (out.mask == MASK).all()
  np.testing.assert_allclose(out.tokens[0, 0], tokens[0, 0] @ variables["params"]["fc1"]["kernel"], rtol=1e-5)


def test_heads():
  pooled = jax.random.normal(jax.random.key(0), (6, 10))
  assert {"linear", "mlp", "identity", "token_linear"} <= set(HEADS)
  shapes = {
    "linear": ({"dim": 4}, {"fc1": {"kernel": (10, 4)}}),
    "mlp": ({"dim": 4}, {"fc1": {"kernel": (10, 10), "bias": (10,)},
                         "fc2": {"kernel": (10, 4), "bias": (4,)}}),
  }  # fmt: skip
  for name, (options, shape) in shapes.items():
    out, variables = build_head({"name": name, **options}).init_with_output(jax.random.key(0), pooled, train=True)
    assert out.pooled.shape == (6, 4) and jax.tree.map(jnp.shape, variables["params"]) == shape
  identity = build_head({"name": "identity"})
  np.testing.assert_array_equal(identity.apply({}, pooled, train=False).pooled, pooled)
  deep = build_head({"name": "mlp", "dim": 4, "hidden": 7, "depth": 3, "batch_norm": True})
  params = deep.init(jax.random.key(0), pooled, train=True)["params"]
  assert set(params) == {"fc1", "bn1", "fc2", "bn2", "fc3"} and "bias" not in params["fc1"]


@pytest.mark.parametrize("config, message", [
  ({"name": "resnet51"}, r"towers.image.name: no such choice 'resnet51'; did you mean 'resnet5?0'"),
  ({"name": "resnet50", "stm": "small"}, r"towers.image: no option 'stm'; did you mean 'stem'"),
  ({"name": "resnet50", "stem": "smal"}, r"towers.image.stem: .*did you mean 'small'"),
  ({"name": "vit", "pool": "men"}, r"towers.image.pool: no such choice 'men'"),
  ({"name": "vit", "width": 384, "heads": 5}, r"the nearest is heads=4"),
  ({"name": "vit_base", "dtype": "float31"}, r"did you mean 'float32'"),
  ({"name": "text_transformer"}, r"towers.image.vocab_size: 'text_transformer' needs it; add vocab_size=..."),
  ({"name": "text_transformer", "vocab_size": 9, "causal": True, "pool": "cls"}, "use pool='eos'"),
  ({"name": "text_transformer", "vocab_size": 9, "pool": "end_token", "attend_padding": True}, "leave attend_padding"),
  ({"width": 3}, r"towers.image: 'name' is missing"),
  ({"name": "vit", "heads": 0}, r"towers.image.heads: 0 is not a whole number of 1 or more"),
  ({"name": "vit", "depth": -1}, r"towers.image.depth: -1 is not a whole number of 0 or more"),
  ({"name": "vit", "mlp_ratio": 0}, r"towers.image.mlp_ratio: 0 is no number above 0"),
  ({"name": "vit", "dropout": 1.5}, r"towers.image.dropout: 1.5 is no probability; give a number from 0 to below 1"),
  ({"name": "vit", "drop_path": -0.1}, r"towers.image.drop_path: -0.1 is no probability"),
  ({"name": "vit", "norm_epsilon": float("nan")}, r"towers.image.norm_epsilon: nan is no number of 0 or more"),
  ({"name": "vit", "registers": -1}, r"towers.image.registers: -1 is not a whole number of 0 or more"),
  ({"name": "series_transformer", "stem": 0}, r"towers.image.stem: 0 is not a whole number of 1 or more"),
  ({"name": "video_vit", "project": -1}, r"towers.image.project: -1 is not a whole number of 1 or more"),
  ({"name": "tubelet_vit", "tubelet": (0, 16)}, r"towers.image.tubelet: 0 in \(0, 16\) is not a whole number"),
  ({"name": "vit", "width": 8.5}, r"towers.image.width: 8.5 is not a whole number of 1 or more"),
], ids=str)  # fmt: skip
def test_a_wrong_config_is_one_line_with_the_nearest_choice(config, message):
  with pytest.raises(UserError, match=message) as error:
    build_encoder(config, "towers.image")
  assert "\n" not in str(error.value)


def test_a_head_of_no_numbers_is_one_line():
  with pytest.raises(UserError, match=r"heads\.groups\.dim: 0 is not a whole number of 1 or more"):
    build_head({"name": "token_prototypes", "dim": 0}, "heads.groups")


def test_wrong_inputs_say_what_does_not_fit():
  with pytest.raises(UserError, match="32x30 do not split into patches of 8"):
    encode(SMALL["vit_gap"], IMAGES[:, :, :30])
  with pytest.raises(UserError, match="13 tokens do not fit max_length=12"):
    encode(TEXT, np.zeros((1, 13), np.int32))


def test_every_registered_encoder_builds_from_its_name():
  for name in ENCODERS:
    required = {"vocab_size": 10} if name.startswith(("text", "bert", "modern_bert", "word")) else {}
    required |= {"of": {"name": "resnet18"}} if name == "frames" else {}
    assert build_encoder({"name": name, **required}) is not None
