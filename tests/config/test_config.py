"""Configs: overrides, and errors that name the key and the nearest valid one."""

import pytest

from mmcontrast.config import base_config, check_keys, check_same_run, from_json, load_config, to_json
from mmcontrast.errors import UserError


@pytest.fixture
def config_file(tmp_path):
  path = tmp_path / "mine.py"
  path.write_text(
    "from mmcontrast.config import base_config\n"
    "def get_config(arg=None):\n"
    "  c = base_config()\n"
    "  c.steps = 7 if arg == 'smoke' else 70\n"
    "  c.objective = dict(a=dict(weight=1.0))\n"
    "  return c\n"
  )
  return str(path)


def test_argument_and_overrides(config_file):
  assert load_config(config_file)["steps"] == 70
  config = load_config(f"{config_file}:smoke", ["--config.objective.a.weight=0.25", "--config.batch.size=64"])
  assert (config["steps"], config["objective"]["a"]["weight"], config["batch"]["size"]) == (7, 0.25, 64)


def test_options_of_a_source_need_not_be_there_before(config_file):
  words = ["--config.data.source.caption=['alt', 'title']", "--config.data.source.image=None"]
  assert load_config(config_file, words)["data"]["source"] == {"caption": ("alt", "title"), "image": None}
  with pytest.raises(UserError, match=r"the = is missing; write --config\.data\.source\.caption=VALUE"):
    load_config(config_file, ["--config.data.source.caption"])


@pytest.mark.parametrize(
  "override, expected",
  [
    ("--config.objective.a.wieght=1", "config.objective.a.weight"),
    ("--config.batch.sise=1", "config.batch.size"),
    ("--steps=1", "did you mean --config.steps=1?"),
  ],
)
def test_an_unknown_override_names_the_nearest_key(config_file, override, expected):
  with pytest.raises(UserError, match=r"no such key|unexpected argument") as error:
    load_config(config_file, [override])
  assert expected in str(error.value) and "\n" not in str(error.value)


def test_a_value_of_the_wrong_type_is_one_line(config_file):
  with pytest.raises(UserError) as error:
    load_config(config_file, ["--config.steps=many"])
  assert "many" in str(error.value) and "\n" not in str(error.value)


def test_an_unknown_key_in_the_file_names_the_nearest():
  config = base_config()
  config.data.image_sise = 3
  with pytest.raises(UserError, match=r"config\.data\.image_sise; did you mean 'image_size'"):
    check_keys(config.to_dict(), "mine.py")


def test_a_missing_file_and_a_failing_file(tmp_path):
  with pytest.raises(UserError, match="no such file"):
    load_config(str(tmp_path / "absent.py"))
  (tmp_path / "broken.py").write_text("def get_config(arg=None):\n  return 1 / 0\n")
  with pytest.raises(UserError, match="ZeroDivisionError") as error:
    load_config(str(tmp_path / "broken.py"))
  assert "\n" not in str(error.value)


def test_json_round_trip_keeps_every_value(config_file):
  config = load_config(config_file)
  again = from_json(to_json(config))
  assert to_json(again) == to_json(config)
  assert again["normalize"]["mean"] == (0.485, 0.456, 0.406)


def test_another_config_may_not_take_over_a_run():
  saved, given = base_config().to_dict(), base_config().to_dict()
  given["log"]["every_steps"] = 1  # how a run is watched may change
  given["data"]["on_error"]["max_share"] = 0.1  # and what it bears: the error of too many bad records says so
  check_same_run(saved, given, "runs/x")
  given["batch"]["size"] = 3
  with pytest.raises(UserError, match=r"runs/x.*config\.batch\.size was 256, now 3"):
    check_same_run(saved, given, "runs/x")
  with pytest.raises(UserError, match=r"config\.data\.missing was 'skip', now 'mask'"):
    check_same_run(saved, {**saved, "data": {**saved["data"], "missing": "mask"}}, "runs/x")
