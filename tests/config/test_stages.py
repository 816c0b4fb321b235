"""Stages and initial values: what each starts from, exact resume, frozen parts, and mistakes."""

import json
import shutil

import jax
import pytest
from tiny import assert_same, tiny_config

from mmcontrast.config import load_config
from mmcontrast.config.stages import resolve, run_folder
from mmcontrast.cost.dry_run import dry_run
from mmcontrast.errors import UserError
from mmcontrast.runs.checkpoint import load_run
from mmcontrast.train import train
from mmcontrast.training.initialization import initial_arrays
from mmcontrast.training.observe import read_jsonl

ADAM = dict(name="adamw", learning_rate=1e-2, weight_decay=0.1)
IMAGES = dict(
  name="image",
  steps=2,
  heads=dict(image_ssl=dict(tower="image", name="mlp", dim=8, batch_norm=True)),
  objective=dict(image_image=dict(query="image[0]/image_ssl", key="image[1]/image_ssl")),
)
LOCKED = dict(
  name="locked",
  steps=4,
  init={"towers/image": "image:towers/image", "heads/image_joint": "image:heads/image_ssl"},
  optimizer=dict(frozen=("towers/image/.*", "heads/image_joint/.*")),
)


def staged(*stages, **changes) -> dict:
  """Two stages: an image tower and its head, then both locked, with a momentum branch of them."""
  heads = dict(
    image_joint=dict(tower="image", name="mlp", dim=8, batch_norm=True),
    text_joint=dict(tower="text", name="linear", dim=8),
  )
  objective = dict(image_text=dict(query="text[0]/text_joint", key="image[0]/image_joint@momentum"))
  checkpoint = {**tiny_config()["checkpoint"], "every_steps": 2, "keep_last": 2}
  return tiny_config(
    stages=stages or (IMAGES, LOCKED),
    heads=heads,
    objective=objective,
    optimizer=ADAM,
    checkpoint=checkpoint,
    **changes,
  )


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data_dir):
  """(workdir, final state) of an uninterrupted run of both stages."""
  workdir = tmp_path_factory.mktemp("staged")
  return workdir, train(staged(), workdir, data_dir)


def test_each_stage_is_an_ordinary_run(whole):
  workdir, state = whole
  assert [len(read_jsonl(workdir / name / "metrics.jsonl")) for name in ("image", "locked")] == [2, 4]
  config = json.loads((workdir / "image" / "config.json").read_text())
  assert config["steps"] == 2 and list(config["objective"]) == ["image_image"] and "stages" not in config
  assert json.loads((workdir / "config.json").read_text())["stages"][1]["name"] == "locked"
  assert_same(load_run(workdir)[1]["params"], state.params)  # the last stage's
  assert load_run(workdir / "image")[2] == 2


def test_a_locked_tower_starts_from_the_earlier_stage_and_stays_bit_identical(whole):
  workdir, state = whole
  source = load_run(workdir / "image")[1]
  for kind, name, origin in (("towers", "image", "image"), ("heads", "image_joint", "image_ssl")):
    assert_same(state.params[kind][name], source["params"][kind][origin])
    # The momentum branch follows the parts it started from, which do not move.
    assert_same(state.momentum["params"][kind][name], source["params"][kind][origin])
  assert_same(state.batch_stats["heads"]["image_joint"], source["batch_stats"]["heads"]["image_ssl"])
  moments = [
    jax.tree_util.keystr(path, simple=True, separator="/")
    for path, leaf in jax.tree_util.tree_flatten_with_path(state.opt_state)[0]
    if leaf.ndim
  ]
  assert moments and not [name for name in moments if "towers/image" in name or "image_joint" in name]


@pytest.mark.parametrize("left", [None, 2])
def test_a_killed_run_resumes_bit_equal(whole, tmp_path, data_dir, capsys, left):
  """Killed in the second stage: before its first checkpoint, or after that of step 2."""
  workdir, state = whole
  shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
  for step in (2, 4):
    if step != left:
      shutil.rmtree(tmp_path / "locked" / "checkpoints" / str(step))
  assert_same(train(staged(), tmp_path, data_dir), state)
  assert ("locked from step 2" in capsys.readouterr().out) == (left == 2)  # or else initialised anew
  assert len(read_jsonl(tmp_path / "image" / "metrics.jsonl")) == 2  # done, and not done again


def test_done_stages_are_not_done_again(whole, data_dir, capsys):
  workdir, state = whole
  before = (workdir / "image" / "metrics.jsonl").stat().st_mtime_ns
  assert_same(train(staged(), workdir, data_dir), state)
  assert "stage image: done" in capsys.readouterr().out
  assert (workdir / "image" / "metrics.jsonl").stat().st_mtime_ns == before


def test_another_run_is_refused(whole, tmp_path, data_dir):
  workdir, _ = whole
  with pytest.raises(UserError, match=r"image: its checkpoint is from another config: config\.seed was 0, now 1"):
    train(staged(seed=1), workdir, data_dir)
  with pytest.raises(UserError, match="holds a run of the stages image, locked"):
    train(tiny_config(), workdir, data_dir)
  with pytest.raises(UserError, match="holds a run without stages"):
    train(staged(), workdir / "image", data_dir)


@pytest.mark.parametrize(
  "stage, message",
  [
    (dict(LOCKED, name="image"), r"stages\[1\]: the name 'image' is an earlier stage's"),
    (dict(LOCKED, name=""), r"stages\[1\]: a stage is a dict with a name"),
    (dict(LOCKED, optimiser={}), r"stages\.locked: a stage has no key 'optimiser'; did you mean 'optimizer'"),
    (dict(LOCKED, optimizer=3), r"stages\.locked\.optimizer: a mapping is needed"),
    (
      dict(LOCKED, init={"towers/image": "imag:towers/image"}),
      r"stage 'locked': config\.init\['towers/image'\]: 'imag' is neither .* did you mean 'image'",
    ),
    (dict(LOCKED, init={"towers/image": "towers/image"}), r"'towers/image' is not 'WHERE:PATH'"),
    (
      dict(LOCKED, init={"towers/image": "image:towers/imag"}),
      r"image has no parameters under 'towers/imag'; did you mean 'towers/image'",
    ),
    (
      dict(LOCKED, init={"tower/image": "image:towers/image"}),
      r"this run has no parameters under 'tower/image'; did you mean 'towers/image'",
    ),
    (
      dict(LOCKED, init={"heads/text_joint": "image:heads/image_ssl"}),
      r"this run has no place for the source's 'bn1/bias'; \(one of: fc1/kernel\)",
    ),
    (dict(LOCKED, init={"*": "image:*"}), r"the source has no 'heads/image_joint/bn1/bias'; did you mean"),
    (
      dict(LOCKED, init={"towers/image": "image:towers/image", "towers": "image:towers"}),
      r"'towers/image/[a-z0-9_/]+' is set by another entry",
    ),
    (
      dict(LOCKED, init={"towers/image": "image:towers/image", "towers/image/norm": "image:towers/image/norm"}),
      r"'towers/image/norm/bias' is set by another entry",
    ),
    (
      dict(LOCKED, towers={**tiny_config()["towers"], "image": dict(name="vit", patch=4, width=16, depth=1, heads=2)}),
      r"'patch_embed/kernel' has the shape \[8, 8, 3, 16\] in the source and \[4, 4, 3, 16\] here",
    ),
    (dict(LOCKED, optimizer=dict(frozen=("towers/imag/.*",))), r"stage 'locked': .*matches no parameter"),
    (
      dict(LOCKED, objective=dict(a=dict(query="image[5]/image_joint", key="text[0]/text_joint"))),
      r"stage 'locked': .*image\[0\] to \[1\] exist",
    ),
  ],
)
def test_mistakes_stop_before_the_first_stage(stage, message, tmp_path, data_dir):
  with pytest.raises(UserError, match=message) as error:
    train(staged(IMAGES, stage), tmp_path / "run", data_dir)
  assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


def test_another_run_as_the_source(whole, data_dir, tmp_path):
  workdir, state = whole
  init = {"towers/text": f"{workdir}:towers/text", "heads/text_joint": f"{workdir}/locked:heads/text_joint"}
  variables = dict(params=state.params, batch_stats=state.batch_stats)
  found = initial_arrays({"init": init}, variables, {})
  assert_same(found["params/heads/text_joint/fc1/kernel"], state.params["heads"]["text_joint"]["fc1"]["kernel"])
  assert all(name.startswith(("params/towers/text/", "params/heads/text_joint/")) for name in found)
  assert len(initial_arrays({"init": {"*": f"{workdir}:*"}}, variables, {})) == len(jax.tree.leaves(variables))
  (tmp_path / "empty").mkdir()
  with pytest.raises(UserError, match="empty: no checkpoints there"):
    initial_arrays({"init": {"*": f"{tmp_path}/empty:*"}}, variables, {})


def test_a_stage_lies_over_the_config():
  runs = resolve(staged())
  assert runs["image"]["optimizer"] == ADAM and runs["image"]["batch"] == staged()["batch"]
  assert runs["locked"]["optimizer"] == {**ADAM, "frozen": ("towers/image/.*", "heads/image_joint/.*")}
  assert list(runs["image"]["heads"]) == ["image_ssl"] and runs["image"]["init"] == {}
  assert list(resolve(tiny_config())) == [""]
  rule = dict(name="project_conflicts", on="towers/.*")
  summed = resolve(staged({**IMAGES, "update_rule": dict(name="sum")}, LOCKED, update_rule=rule))
  assert summed["image"]["update_rule"] == dict(name="sum") and summed["locked"]["update_rule"] == rule


def test_overrides(tmp_path):
  file = tmp_path / "mine.py"
  file.write_text(
    "from mmcontrast.config import base_config, smoke\n"
    "def get_config(arg=None):\n"
    "  c = base_config()\n"
    "  c.towers.image = dict(name='vit', width=64, depth=3, heads=4)\n"
    "  c.stages = (dict(name='one', steps=500, towers=c.towers), dict(name='two', steps=200,\n"
    "              optimizer=dict(learning_rate=dict(name='cosine', init=0.1, warmup_steps=50))))\n"
    "  return smoke(c) if arg == 'smoke' else c\n"
  )
  words = [
    "--config.stages.one.steps=7",
    "--config.stages.two.towers.image.width=32",
    "--config.stages.two.data.lower=false",
    "--config.batch.size=64",
  ]
  runs = resolve(load_config(str(file), words))
  assert [run["steps"] for run in runs.values()] == [7, 200]
  assert [run["batch"]["size"] for run in runs.values()] == [64, 64]
  assert [run["towers"]["image"]["width"] for run in runs.values()] == [64, 32]
  assert [run["data"]["lower"] for run in runs.values()] == [True, False]
  for word, message in [
    ("--config.steps=5", r"config\.steps: every stage gives its own; override --config\.stages\.one\.steps"),
    ("--config.stages.on.steps=5", r"no stage 'on'; did you mean 'one'"),
    ("--config.stages.one.stepz=5", r"no such key; did you mean '--config\.stages\.one\.steps'"),
    ("--config.stages.one.steps=many", r"stages\.one\.steps=many: a whole number"),
  ]:
    with pytest.raises(UserError, match=message) as error:
      load_config(str(file), [word])
    assert "\n" not in str(error.value)
  small = resolve(load_config(f"{file}:smoke"))
  assert [run["steps"] for run in small.values()] == [3, 3]
  assert small["one"]["towers"]["image"]["width"] == 16
  assert small["two"]["optimizer"]["learning_rate"]["warmup_steps"] == 1


def test_the_dry_run_covers_each_stage(data_dir):
  text = dry_run(staged(), data_dir=data_dir)
  assert text.startswith("stage image: 8 cpu devices") and "\n\nstage locked: 8 cpu devices" in text
  assert "  image_image: 16 x 16 (batch)" in text and "  image_text: 16 x 16 (batch)" in text


@pytest.mark.parametrize("text", ["{", "", "[1]", '{"stages": [{}]}'])
def test_a_damaged_config_of_a_folder_is_one_line(tmp_path, text):
  (tmp_path / "config.json").write_text(text)
  with pytest.raises(UserError, match=r"config\.json: damaged .*; remove it, and run the training command again"):
    run_folder(tmp_path)
