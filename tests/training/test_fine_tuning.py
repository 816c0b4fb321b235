"""LoRA and the average of the weights: what trains, what stays, what is saved and what is loaded."""

import contextlib
import functools
import itertools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import assert_same, tiny_batch, tiny_config, tiny_spec

from mmcontrast import cli
from mmcontrast.config import check_same_run
from mmcontrast.errors import UserError
from mmcontrast.models.lora import Lora
from mmcontrast.runs.checkpoint import Checkpoints, load_run, save_untrained
from mmcontrast.train import train
from mmcontrast.training.initialization import initial_arrays
from mmcontrast.training.program import make_method
from mmcontrast.training.step import init_state, train_step, variables_of

TARGETS = "towers/image/.*/attn/(qkv|proj)/kernel"


def config(**changes):
  """CLIP of which the image tower trains by LoRA alone, with an average of all weights."""
  heads = dict(
    image_joint=dict(tower="image", name="mlp", dim=8, batch_norm=True),
    text_joint=dict(tower="text", name="linear", dim=8),
  )
  return tiny_config(
    **{
      **dict(
        steps=4,
        heads=heads,
        lora=dict(targets=TARGETS, rank=2, alpha=6.0),
        ema=dict(decay=0.75),
        objective=dict(
          image_text=dict(
            query="image[0]/image_joint",
            key="text[0]/text_joint",
            direction="both",
            temperature=dict(init=0.07, learned=True),
          )
        ),
        optimizer=dict(name="adamw", learning_rate=1e-2, weight_decay=0.1, frozen=("towers/image/.*",)),
        checkpoint={**tiny_config()["checkpoint"], "every_steps": 2, "keep_last": 2},
      ),
      **changes,
    }
  )


@functools.cache
def first_state(make=config):
  """(method, state before the first step) of the config that `make` makes."""
  method = make_method(make(), tiny_spec())
  return method, jax.jit(functools.partial(init_state, method))(tiny_batch())


def leaves(tree):
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
  }


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data_dir):
  """(workdir, final state) of an uninterrupted run."""
  workdir = tmp_path_factory.mktemp("tuned")
  return workdir, train(config(), workdir, data_dir)


def test_merge_by_hand():
  params = {
    "towers": {"t": {"kernel": np.array([[1.0, 2.0], [3.0, 4.0]]), "bias": np.zeros(2)}},
    "terms": {},
    "lora": {"towers": {"t": {"kernel": {"a": np.array([[1.0], [2.0]]), "b": np.array([[10.0, 20.0]])}}}},
  }
  merged = Lora("x", rank=1, alpha=3.0).merge(params)
  np.testing.assert_array_equal(merged["towers"]["t"]["kernel"], [[31, 62], [63, 124]])
  assert merged["towers"]["t"]["bias"] is params["towers"]["t"]["bias"] and set(merged) == {"towers", "terms"}


def test_scanned_blocks_have_matrices_of_their_own():
  params = {"towers": {"t": {"blocks": {"qkv": {"kernel": jnp.ones((3, 4, 5))}}}}, "heads": {}, "terms": {}}
  lora = Lora("towers/t/blocks/qkv/kernel", rank=2, alpha=2.0)
  made = lora.init(params, jax.random.key(0))["lora"]["towers"]["t"]["blocks"]["qkv"]["kernel"]
  assert made["a"].shape == (3, 4, 2) and made["b"].shape == (3, 2, 5)
  assert np.abs(made["a"]).max() <= 0.5 and np.unique(made["a"]).size == 24 and not np.any(made["b"])
  b = np.arange(30.0).reshape(3, 2, 5)
  params["lora"] = {"towers": {"t": {"blocks": {"qkv": {"kernel": {"a": made["a"], "b": b}}}}}}
  merged = lora.merge(params)["towers"]["t"]["blocks"]["qkv"]["kernel"]
  np.testing.assert_allclose(merged, 1 + np.stack([a @ each for a, each in zip(made["a"], b)]), rtol=1e-6)


def test_step_0_is_the_model_without_lora():
  _, adapted = first_state()
  _, plain = first_state(lambda: config(lora=dict(targets="", rank=8, alpha=16.0), ema=dict(decay=0.0)))
  assert {name for name in leaves(adapted.params) if name.startswith("lora")} == {
    f"lora/towers/image/blocks_0/attn/{name}/kernel/{side}" for name in ("qkv", "proj") for side in "ab"
  }
  assert_same(adapted.ema["params"], plain.params)  # merged
  assert plain.ema is None and set(plain.params) == {"towers", "heads", "terms"}


def test_the_base_stays_bit_identical_and_has_no_optimizer_state(whole):
  _, state = whole
  _, start = first_state()
  before, after = leaves(start.params), leaves(state.params)
  tower = [name for name in before if name.startswith("towers/image")]
  assert tower and all(before[name].tobytes() == after[name].tobytes() for name in tower)
  assert not [name for name in before if name not in tower and np.array_equal(before[name], after[name])]
  moments = [name for name, leaf in leaves(state.opt_state).items() if leaf.ndim]
  assert [name for name in moments if "lora/towers/image" in name]
  assert not [name for name in moments if "towers/image" in name and "lora/towers/image" not in name]


def test_only_targets_are_frozen_without_frozen():
  method = make_method(config(optimizer=dict(learning_rate=0.1)), tiny_spec())
  frozen = [name for name, still in leaves(method.frozen).items() if still]
  assert frozen == [f"towers/image/blocks_0/attn/{name}/kernel" for name in ("proj", "qkv")]


def test_the_average_by_hand():
  """0.75 of the last average and 0.25 of the new weights: LoRA's sum and batch statistics too."""
  method, state = first_state()
  step = jax.jit(functools.partial(train_step, method, None))
  expected = {"params": method.lora.merge(state.params), "batch_stats": state.batch_stats}
  for number in range(2):
    state, _ = step(state, tiny_batch(seed=number))
    now = {"params": method.lora.merge(state.params), "batch_stats": state.batch_stats}
    expected = jax.tree.map(lambda old, new: 0.75 * old + 0.25 * new, expected, now)
  found, expected = leaves(state.ema), leaves(expected)
  for name, leaf in found.items():
    np.testing.assert_allclose(leaf, expected[name], rtol=1e-5, atol=1e-7, err_msg=name)
  _, start = first_state()
  assert not np.array_equal(
    found["batch_stats/heads/image_joint/bn1/mean"], start.batch_stats["heads"]["image_joint"]["bn1"]["mean"]
  )
  still = "params/towers/image/blocks_0/mlp/fc1/kernel"  # frozen: rounding does not move it
  assert found[still].tobytes() == leaves(start.ema)[still].tobytes()


def test_what_is_loaded_is_the_average(whole):
  workdir, state = whole
  assert_same(load_run(workdir)[1], state.ema)
  method = make_method(config(), tiny_spec())
  assert variables_of(method, state) is state.ema
  now = method.lora.merge(state.params)
  kernel = ("towers", "image", "blocks_0", "attn", "qkv", "kernel")
  values = [
    functools.reduce(lambda tree, key: tree[key], kernel, tree) for tree in (state.ema["params"], now, state.params)
  ]
  assert all(not np.array_equal(a, b) for a, b in itertools.pairwise(values))


def test_resume_is_bit_equal(whole, tmp_path, data_dir):
  workdir, state = whole
  shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
  shutil.rmtree(tmp_path / "checkpoints" / "4")
  assert_same(train(config(), tmp_path, data_dir), state)


def test_loading_sums_what_is_saved_apart(whole, tmp_path):
  _, state = whole
  alone = config(ema=dict(decay=0.0))
  with contextlib.closing(Checkpoints(tmp_path, alone["checkpoint"])) as checkpoints:
    checkpoints.save(state.replace(ema=None), alone, None)
  found = load_run(tmp_path)[1]
  assert set(found) == {"params", "batch_stats"} and "lora" not in found["params"]
  merged = make_method(alone, tiny_spec()).lora.merge(state.params)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7), found["params"], merged)


def test_a_run_from_before_these_options_is_loaded_and_resumed():
  """Its config has neither section, its checkpoint no average."""
  old = {key: value for key, value in tiny_config().items() if key not in ("lora", "ema")}
  check_same_run(old, tiny_config(), "run")
  with pytest.raises(UserError, match=r"config\.ema\.decay was 0\.0, now 0\.9"):
    check_same_run(old, tiny_config(ema=dict(decay=0.9)), "run")


@pytest.mark.parametrize(
  "lora, says",
  [
    (dict(targets="towers/imag/.*/kernel"), r"targets: 'towers/imag/\.\*/kernel' matches no parameter; .*did you mean"),
    (dict(targets="towers/image/norm/scale"), r"targets: 'towers/image/norm/scale' \[16\] is not a matrix"),
    (dict(targets="towers/image/patch_embed/kernel"), r"\[8, 8, 3, 16\] is not a matrix"),
    (dict(targets="towers/image/(.*"), r"is not a regex"),
    (dict(targets=TARGETS, rank=17), r"rank: 1 to 16, the smaller side of 'towers/image/blocks_0/attn/"),
    (dict(targets=TARGETS, rank=0), r"not 0"),
    (dict(targets=TARGETS, alpha=0.0), r"alpha: must be above 0"),
  ],
)
def test_mistakes_stop_before_compilation(lora, says):
  with pytest.raises(UserError, match=says) as error:
    make_method(config(lora=dict(rank=2, alpha=6.0) | lora), tiny_spec())
  assert "\n" not in str(error.value)


def run_of(folder, variables, **changes):
  """A run of `variables` in the folder `folder`; the folder."""
  own = config(ema=dict(decay=0.0), lora=dict(targets="", rank=8, alpha=16.0), **changes)
  save_untrained(folder, own, variables)
  return str(folder)


def test_interpolation(whole, tmp_path):
  """WiSE-FT: towers, heads and batch statistics between two runs', all else the second's."""
  workdir, state = whole
  start = jax.tree.map(jnp.cos, state.ema)
  first = run_of(tmp_path / "first", start)
  for alpha, made in ((0.25, tmp_path / "between"), (0.0, tmp_path / "zero"), (1.0, tmp_path / "one")):
    assert cli.main(["interpolate", first, str(workdir), "--alpha", str(alpha), "--workdir", str(made)]) == 0
  saved, between, step = load_run(tmp_path / "between")
  assert step == 0 and saved["init"]["towers"] == ((f"{first}:towers", 0.75), (f"{workdir}:towers", 0.25))
  assert (tmp_path / "between/tokenizer").is_dir()
  found, zero, one, (a, b) = (
    leaves(between),
    leaves(load_run(tmp_path / "zero")[1]),
    leaves(load_run(tmp_path / "one")[1]),
    (leaves(start), leaves(state.ema)),
  )
  assert found.keys() == a.keys()
  for name, leaf in found.items():
    own = "/terms/" in name
    np.testing.assert_allclose(leaf, b[name] if own else 0.75 * a[name] + 0.25 * b[name], atol=1e-7, err_msg=name)
    np.testing.assert_array_equal(zero[name], b[name] if own else a[name])
    np.testing.assert_array_equal(one[name], b[name])


def test_interpolation_writes_nothing_on_a_mistake(whole, tmp_path, capsys):
  workdir, state = whole
  towers = {**config()["towers"], "image": {**config()["towers"]["image"], "activation": "relu"}}
  other = run_of(tmp_path / "other", state.ema, towers=towers)
  (tmp_path / "full").mkdir()
  (tmp_path / "full/file").write_text("")
  for words, says in (
    ([other, str(workdir), "--workdir", "new"], "config.towers.image.activation is 'gelu_tanh', and 'relu' is needed"),
    ([other, other, "--workdir", str(tmp_path / "full")], "is not empty"),
    ([other, other, "--alpha", "1.5", "--workdir", "new"], "--alpha 1.5: give a number from 0"),
  ):
    words = [str(tmp_path / word) if word == "new" else word for word in words]
    assert cli.main(["interpolate", *words]) == 2
    assert says in capsys.readouterr().err and not (tmp_path / "new").exists()


def test_sums_of_sources(whole, tmp_path):
  workdir, state = whole
  shapes = jax.eval_shape(lambda: state.ema)
  halves = ((f"{workdir}:towers", 0.5), ("stage:towers", 0.5))
  doubled = jax.tree.map(lambda leaf: 3 * leaf, state.ema)
  found = initial_arrays(config(init={"towers": halves}), shapes, {"stage": lambda: doubled})
  name = "params/towers/text/blocks_0/attn/qkv/kernel"
  np.testing.assert_allclose(found[name], 2 * leaves(state.ema)[name], rtol=1e-6)
  for given, says in (((halves[0],), r"sum to 0\.5; make it 1"), (3, "neither"), ((("a", "b", "c"),), "neither")):
    with pytest.raises(UserError, match=says):
      initial_arrays(config(init={"towers": given}), shapes, {})
