"""A config turned into a program: its steps, and all that does not fit the data said at once."""

import dataclasses
import functools
import pathlib
import re

import jax
import own_data
import pytest
from tiny import tiny_batch, tiny_config, tiny_spec

from mmcontrast.config import load_config
from mmcontrast.data import pipeline
from mmcontrast.data.order import Epochs
from mmcontrast.encoders.lowering import lowered_for
from mmcontrast.errors import UserError
from mmcontrast.evaluate import check_sets
from mmcontrast.training import step
from mmcontrast.training.program import make_method, make_plans


def spec(run, examples=64):
  """What `pipeline.spec` says of so many examples."""
  size = run["batch"]["size"]
  return dataclasses.replace(
    tiny_spec(size), examples=examples, steps_per_epoch=Epochs(examples, 0, size).steps_per_epoch
  )


def test_epochs_say_how_many_steps():
  (plan,) = make_plans(tiny_config(steps=0, epochs=2.5), spec).values()
  assert plan.config["steps"] == 10  # 64 examples, 16 a step
  with pytest.raises(UserError, match=r"config\.epochs is 2 and config\.steps 6: give one of them"):
    make_plans(tiny_config(epochs=2), spec)


def test_all_that_does_not_fit_a_small_set_is_said_at_once():
  config = tiny_config(
    optimizer=dict(name="adamw", learning_rate=dict(name="warmup_cosine", peak=1e-3, warmup_steps=100)),
    momentum=dict(decay=dict(name="linear", init=0.9, end=1.0, begin_steps=50), update="before_keys"),
  )
  with pytest.raises(UserError) as error:
    make_plans(config, lambda run: spec(run, 10))
  text = str(error.value)
  assert "3 settings do not fit 10 examples and 6 steps" in text and "\n" not in text
  for part in (
    "config.batch.size: batch_size 16 is more than the 10 examples",
    "config.momentum.decay: begins after 50 steps, the run has 6",
    "config.optimizer.learning_rate: 100 warm-up steps do not fit in 6 steps",
  ):
    assert part in text, text


def test_a_single_one_is_said_as_ever():
  with pytest.raises(UserError, match=r"^config\.batch\.size: batch_size 16 is more than the 10 examples of the split"):
    make_plans(tiny_config(), lambda run: spec(run, 10))


def test_a_queue_takes_batches_of_one_size():
  with pytest.raises(UserError, match=r"objective\.image_image\.negatives: .*makes batches of 16 and 8 examples; set"):
    make_plans(tiny_config(), lambda run: dataclasses.replace(spec(run), sizes=(16, 8)))


def test_own_data_trains_for_epochs_of_a_set_of_any_size():
  config = load_config(
    "own_data:size=tiny,image_size=32,patch=8,text_length=6,epochs=3,batch=32,held_out=0.25",
    ["--config.data.dataset=jsonl:/data/mine.jsonl", "--config.towers.image.depth=1"],
  )
  assert config["data"]["source"] == {"splits": {"train": 0.75, "validation": 0.25}}
  shapes = tiny_spec(32)
  shapes = dataclasses.replace(
    shapes,
    examples=200,
    steps_per_epoch=6,
    batch={
      **shapes.batch,
      "image": ((32, 1, 32, 32, 3), shapes.batch["image"][1]),
      "text": ((32, 1, 6), shapes.batch["text"][1]),
    },
  )
  (plan,) = make_plans(config, lambda run: shapes).values()
  assert plan.config["steps"] == 18


@pytest.mark.parametrize(
  "argument, message",
  [
    ("sice=tiny", r"the argument after the colon: no such choice 'sice'; did you mean 'size'"),
    ("size=huge", r"the argument size: no such choice 'huge'"),
    ("size", r"needs a value, such as size='small'"),
    ("image_size=big", r"the argument image_size=big: a whole number is needed, such as 224"),
    ("image_size=50", r"image_size=50 is not a multiple of patch=16"),
  ],
)
def test_arguments_of_own_data(argument, message):
  with pytest.raises(UserError, match=message):
    load_config(f"own_data:{argument}")


def test_the_example_of_the_readme_fits_own_data(tmp_path, data_dir):
  readme = (pathlib.Path(__file__).parents[2] / "README.md").read_text()
  (example,) = re.findall(r"```python\n(from mmcontrast.configs import own_data.*?)```", readme, re.DOTALL)
  dataset = own_data.write_own_data(str(tmp_path), "jsonl")
  tokenizer = data_dir / "emoji_views" / "tokenizer.model"
  (tmp_path / "mine.py").write_text(
    example.replace("jsonl:/data/mine.jsonl", dataset).replace("/data/mine.model", str(tokenizer))
  )
  config = load_config(
    str(tmp_path / "mine.py"),
    [
      "--config.batch.size=8",
      "--config.evaluation.every_steps=1",
      "--config.data.source.splits.train=0.6",
      "--config.data.source.splits.validation=0.4",
    ],
  )
  found = pipeline.spec(config["data"], config["batch"]["size"])
  assert list(found.label_names) == ["kind"] and 8 <= found.examples < own_data.COUNT
  check_sets(config)


@pytest.mark.parametrize(
  "changes, message",
  [
    (dict(momentum=dict(decay=1.5, update="before_keys")), r"config\.momentum\.decay: 1\.5 .* from 0 to 1"),
    (dict(momentum=dict(decay=dict(name="cosine", init=0.9, end=1.01), update="before_keys")), r"\.decay: 1\.01"),
    (dict(ema=dict(decay=-0.1)), r"config\.ema\.decay: -0\.1 .* from 0 to 1"),
    (dict(optimizer=dict(name="sgd", learning_rate=-1e-3)), r"\.learning_rate: -0\.001 .* of 0 or more"),
    (dict(normalize=dict(mean=(0, 0, 0), std=(1, 0, 1))), r"\.std: .*\(1, 0, 1\); give numbers above 0"),
  ],
)
def test_numbers_that_make_no_sense_are_refused_before_compilation(changes, message):
  with pytest.raises(UserError, match=message):
    make_plans(tiny_config(**changes), spec)


@pytest.mark.parametrize(
  "platform, tile, asked", [("cpu", 0, 512), ("tpu", 0, 1024), ("tpu", 64, 64)], ids=["cpu", "tpu", "given"]
)
def test_the_tile_of_the_global_matrix_is_the_platforms_where_the_config_leaves_it(monkeypatch, platform, tile, asked):
  def evaluate(*_, tile, **__):
    raise ZeroDivisionError(tile)  # nothing after it is of interest

  monkeypatch.setattr(step.objective, "evaluate_and_remember", evaluate)
  method = make_method(tiny_config(matrix=dict(impl="auto", tile=tile, precision="highest")), tiny_spec())
  state = jax.eval_shape(functools.partial(step.init_state, method), tiny_batch())
  with lowered_for(platform), pytest.raises(ZeroDivisionError) as error:
    jax.eval_shape(functools.partial(step.train_step, method, None), state, tiny_batch())
  assert error.value.args == (asked,)
