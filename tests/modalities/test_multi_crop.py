"""Small crops in training: through the same tower, and what stops a run before compilation."""

import functools

import jax
import numpy as np
import pytest
from tiny import tiny_config

from mmcontrast import train as training
from mmcontrast.cost import dry_run
from mmcontrast.data import pipeline
from mmcontrast.encoders.positions import resize_positions
from mmcontrast.errors import UserError
from mmcontrast.modalities import image_augmentation
from mmcontrast.modalities.image import ImagePreparation
from mmcontrast.parallel import sharding
from mmcontrast.training.observe import read_jsonl
from mmcontrast.training.program import build_program
from mmcontrast.training.step import train_step

LARGE = ["image[0]/embedding", "image[1]/embedding"]
SMALL = ["image_small[0]/embedding", "image_small[1]/embedding"]
OBJECTIVE = dict(
  large=dict(query=LARGE, key=LARGE, temperature=0.2), small=dict(query=SMALL, key=LARGE, temperature=0.2)
)


def config(size=8, **changes):
  """Two views of 16 pixels and two of `size`, of which every small one is drawn to both large ones."""
  made = tiny_config(**{
    "towers": dict(image=dict(name="resnet18", width=8, stages=(1,))), "steps": 2,
    "heads": dict(embedding=dict(tower="image", name="linear", dim=8)), "objective": OBJECTIVE,
    "augment": dict(image="swav", image_small="swav"), **changes})  # fmt: skip
  made["data"] = {**made["data"], "views": dict(image=2, text=0),
                  "multi_crop": dict(views=2, size=size, scale=(0.1, 0.3))}  # fmt: skip
  return made


@pytest.fixture(scope="module")
def spec(data_dir):
  return pipeline.spec(config()["data"], 16, data_dir)


def build(spec, **changes):
  return build_program(config(**changes), spec, sharding.make_mesh({"data": -1}))


def test_a_run_with_small_crops(tmp_path, data_dir):
  state = training.train(config(), tmp_path, data_dir)
  lines = read_jsonl(tmp_path / "metrics.jsonl")
  assert int(state.step) == 2 and np.isfinite([line["loss"] for line in lines]).all()
  # A small crop's two keys are its example's: chance is log 16 (two positives among 32).
  assert all(abs(line["small/loss"] - np.log(16)) < 2 for line in lines)
  assert all(line["loss"] == pytest.approx(line["large/loss"] + line["small/loss"], rel=1e-5) for line in lines)


def test_the_dry_runs_shapes_are_those_of_the_data(spec, tmp_path):
  assumed, line = dry_run.find_spec(config(), tmp_path)
  assert "not here" in line
  named = {name: entry for name, entry in spec.batch.items() if "image" in name}
  assert named == {name: entry for name, entry in assumed.batch.items() if "image" in name}
  assert named["image_small"] == ((16, 2, 8, 8, 3), np.uint8)


def test_small_views_draw_numbers_of_their_own():
  flips = image_augmentation.view_recipes("flip", 2)
  sets = {"image": flips, "image_small": flips}
  prepare = ImagePreparation((*sets, "mirror_safe"), tuple(sets.items()), (0,) * 3, (1,) * 3)
  pixels = np.random.default_rng(0).integers(0, 256, (16, 1, 8, 8, 3), np.uint8).repeat(2, 1)
  batch = dict(image=pixels, image_small=pixels, seed=np.arange(16, dtype=np.uint32), mirror_safe=np.ones(16, bool))
  views = prepare(batch, train=True)
  flipped = np.concatenate([np.abs(views[name].values - pixels / 255) > 1e-3 for name in sets], 1)
  flipped = flipped.any((2, 3, 4))  # [16, 4]: of each view of each example
  assert (flipped.sum(0) > 2).all() and (flipped.sum(0) < 14).all() and len(np.unique(flipped, axis=1).T) == 4


@pytest.mark.parametrize("changes, message", [
  (dict(augment=dict(image="swav")), r"config.augment.image_small: missing; name a recipe for the 2 views"),
  (dict(augment=dict(image="swav", image_small=["flip"])), r"config.augment.image_small: 1 recipes for 2 views"),
  (dict(objective=dict(a=dict(query="image_small[2]/embedding", key=LARGE[0]))),
   r"data.multi_crop.views is 2, so image_small\[0\] to \[1\] exist"),
  (dict(objective=dict(a=dict(query="image_smal[0]/embedding", key=LARGE[0]))), r"did you mean 'image_small'"),
  (dict(towers=dict(image=dict(name="vit", patch=8, width=16, depth=1, heads=2)), size=12),
   r"config.data.multi_crop.size=12: images of 12x12 do not split into patches of 8 px"),
])  # fmt: skip
def test_mistakes_stop_before_compilation(changes, message, data_dir):
  made = config(**changes)
  with pytest.raises(UserError, match=message):
    build_program(made, pipeline.spec(made["data"], 16, data_dir), sharding.make_mesh({"data": -1}))


def test_a_vit_with_learned_positions_takes_small_crops(spec):
  program = build(spec, towers=dict(image=dict(name="vit", patch=4, width=16, depth=1, heads=2)))
  assert program.state.params["towers"]["image"]["pos_embed"].shape == (1, 16, 16)  # of the large views


def test_small_crops_in_microbatches(spec):
  program = build(spec, towers=dict(image=dict(name="vit", patch=4, width=16, depth=1, heads=2)),
                  batch=dict(size=16, microbatches=2),
                  objective=dict(small=dict(query=SMALL[0], key=LARGE[0])))  # fmt: skip
  _, metrics = jax.eval_shape(functools.partial(train_step, program.method, None), program.state, program.batch)
  assert "small/loss" in metrics


def test_positions_are_resized_as_pytorch_resizes_a_picture():
  """Numbers of torch 2.13's interpolate(mode="bicubic")."""
  position = np.concatenate([[7.0], np.arange(9) ** 1.5]).reshape(1, 10, 1).astype(np.float32)
  assert resize_positions(position, (3, 3), 1) is position
  found = np.asarray(resize_positions(position, (5, 2), 1))
  assert found.shape == (1, 11, 1) and found[0, 0] == 7
  expected = [[-0.37122, 1.67086], [1.62018, 4.78399], [5.71959, 10.55837], [12.05561, 18.04125], [16.34989, 22.9135]]
  np.testing.assert_allclose(found[0, 1:].reshape(5, 2), expected, atol=2e-5)
  smooth = np.asarray(resize_positions(position, (1, 1), 1, antialias=True))[0, 1]
  np.testing.assert_allclose(smooth, np.mean(np.arange(9) ** 1.5), rtol=0.1)  # a smaller grid, of all it was made of
  with pytest.raises(UserError, match="12 learned positions are not a square"):
    resize_positions(np.zeros((1, 13, 1)), (6, 6), 1)
