"""The dry run: what it says, without data, and what stops it before compilation."""

import os
import subprocess
import sys

import jax
import pytest
from test_cli import assert_fails, config_file
from tiny import five_terms, tiny_config, tiny_spec

from mmcontrast.cost import dry_run as program
from mmcontrast.errors import UserError
from mmcontrast.parallel import sharding
from mmcontrast.training.program import build_program


@pytest.mark.slow
def test_it_describes_a_step_on_simulated_devices_and_needs_no_data(tmp_path):
  objective = dict(image_to_text=five_terms()["image_to_text"])
  file = config_file(
    tmp_path / "mine.py",
    objective=objective,
    sharding="fsdp_tp",
    mesh=dict(data=-1, fsdp=2, tensor=2),
    matrix=dict(impl="ring", tile=4),
  )
  command = [
    sys.executable,
    "-m",
    "mmcontrast",
    "train",
    "--config",
    file,
    "--dry_run",
    "--devices",
    "16",
    "--data_dir",
    str(tmp_path / "none"),
  ]
  done = subprocess.run(command, capture_output=True, text=True, env={**os.environ})
  assert done.returncode == 0, done.stderr
  out = done.stdout
  assert "16 cpu devices, mesh data 4 x fsdp 2 x tensor 2, sharding 'fsdp_tp', batch 16" in out
  assert "data: not here (dataset emoji_views is not in" in out and "assumed: 1,000,000 examples, 80 tags" in out
  assert any(
    line.split() == ["towers/image/blocks_0/attn/qkv/kernel", "16x48", "fsdp,", "tensor"] for line in out.splitlines()
  )
  assert "  image_to_text: 16 x 16 (batch), dim 8: ring\n  image_to_text: 16 x 32 (queue), dim 8: ring\n" in out
  for word in (
    "FLOPs a step:",
    "of temporaries",
    "collectives: ",
    "all-reduce ",
    "collective-permute ",
    "nothing was trained",
    "\nexports (mmcontrast export --to): ",
  ):
    assert word in out
  assert not (tmp_path / "none").exists()


def test_collectives_are_counted_once():
  assert program.collectives(
    "%a = f32[2] all-reduce-start(%x)\n %b = f32[2] all-reduce-done(%a)\n"
    " %c = (f32[2], f32[2]) all-gather(%x, %y), dimensions={0}"
  ) == {"all-reduce": 1, "all-gather": 1}


def test_the_spec_is_that_of_the_data_where_it_is_here(data_dir, tmp_path):
  config = tiny_config()
  spec, line = program.find_spec(config, data_dir)
  assert line == f"emoji_views, {spec.examples:,} examples"
  assumed, line = program.find_spec(config, tmp_path)
  assert "not here" in line and "32,000 token pieces" in line
  assert {name: entry for name, entry in assumed.batch.items() if name not in ("tags",)} == {
    name: entry for name, entry in spec.batch.items() if name != "tags" and not name.startswith("labels/")
  }


def test_mistakes(tmp_path, capsys):
  assert len(jax.devices()) == 8  # JAX has started, and stays as it is for the tests after this one
  file = config_file(tmp_path / "mine.py")
  common = ["train", "--config", file, "--data_dir", tmp_path]
  assert_fails(capsys, common, "--workdir is missing", "--workdir runs/mine")
  assert_fails(capsys, [*common, "--workdir", tmp_path / "run", "--devices", "8"], "for --dry_run only")
  dry = [*common, "--dry_run", "--devices"]
  assert_fails(capsys, [*dry, "0"], "--devices 0: give at least 1")
  assert_fails(capsys, [*dry, "512"], "JAX has started with 8")
  assert_fails(capsys, [*dry, "8", "--config.mesh.data=3"], "config.mesh", "does not multiply to the 8 devices")
  assert_fails(capsys, [*dry, "8", "--config.batch.size=12"], "config.batch.size=12 does not divide over 8")
  assert_fails(capsys, [*dry, "8", "--config.sharding=fsdpp"], "config.sharding", "did you mean 'fsdp'")
  assert_fails(capsys, [*dry, "8", "--config.data.dataset=emoji_view"], "did you mean 'emoji_views'")


def test_rules_may_stand_in_the_config_file(tmp_path):
  from mmcontrast.config import load_config

  (tmp_path / "mine.py").write_text(
    "from mmcontrast.config import base_config\n"
    "def get_config(arg=None):\n"
    "  c = base_config()\n"
    "  with c.ignore_type():\n"
    "    c.sharding = [('.*/kernel', 'fsdp'), ('.*', ())]\n"
    "  return c\n"
  )
  assert list(load_config(str(tmp_path / "mine.py"))["sharding"]) == [(".*/kernel", "fsdp"), (".*", ())]


def test_a_config_mistake_is_not_taken_for_missing_data(tmp_path):
  config = tiny_config()
  config["data"]["dataset"] = "emoji_noto"
  with pytest.raises(UserError, match="for evaluation only"):
    program.find_spec(config, tmp_path)


def test_tokens_and_hard_negatives_from_a_config():
  """Heads for tokens, FILIP's two terms and hard negatives of both sides: the step fits together."""
  heads = {
    name: dict(tower=tower, name=kind, dim=8)
    for name, tower, kind in (
      ("patches", "image", "token_linear"),
      ("words", "text", "token_linear"),
      ("image_joint", "image", "linear"),
      ("text_joint", "text", "linear"),
    )
  }
  objective = dict(
    there=dict(query="image[0]/patches", key="text[0]/words", score="token_max"),
    back=dict(query="text[0]/words", key="image[0]/patches", score="token_max", temperature="there"),
    hard=dict(
      query="image[0]/image_joint",
      key="text[0]/text_joint",
      direction="both",
      negative_keys="text[1]/text_joint",
      negative_queries="image[1]/image_joint",
      prototypes=12,
    ),
  )
  config = tiny_config(heads=heads, objective=objective)
  mesh = sharding.make_mesh({"data": -1})
  built = build_program(config, tiny_spec(), mesh)
  assert program.loss_lines(config, built, mesh) == [
    "  there: 16 x 16 (batch), dim 48: dense (auto)",
    "  back: 16 x 16 (batch), dim 32: dense (auto)",
    "  hard: 16 x 16 (batch), dim 8: dense (auto)",
    "  hard: 16 x 16 (hard negative keys), dim 8: dense (auto)",
    "  hard: 16 x 16 (hard negative queries), dim 8: dense (auto)",
    "  hard: 16 x 12 (prototypes), dim 8: dense (auto)",
  ]
  state, metrics = jax.eval_shape(built.step, built.state, built.batch)
  assert {"there/loss", "back/top1", "hard/negative"} <= set(metrics)
  assert state.params["heads"]["words"]["fc1"]["kernel"].shape == (16, 8)
