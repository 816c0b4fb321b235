"""Config files: by name from any folder, each with the imports of its own folder, run once, checked arguments."""

import os
import sys
import types

import pytest
import setuptools

from mmcontrast import cli
from mmcontrast.config import load_config
from mmcontrast.config.config_files import SHIPPED, run, shipped, split
from mmcontrast.data.sources.furniture import ORDERS
from mmcontrast.errors import UserError
from mmcontrast.objectives.embedding_path import parse_embedding
from mmcontrast.objectives.terms import parse_terms

BASE = "from mmcontrast.config import base_config\n"


def write(folder, **files):
  """Python files of the folder by name; returns the path of the first."""
  folder.mkdir(parents=True, exist_ok=True)
  for name, text in files.items():
    (folder / f"{name}.py").write_text(text)
  return str(folder / f"{next(iter(files))}.py")


def test_configs_of_the_package_work_from_any_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  whole = load_config("methods/clip")
  assert load_config("clip") == whole == load_config(str(SHIPPED / "methods" / "clip.py"))
  assert load_config("quickstart:smoke")["steps"] == 3 < load_config("quickstart")["steps"]
  assert split("clip:") == (SHIPPED / "methods" / "clip.py", None)
  assert split("clip:a:b") == (SHIPPED / "methods" / "clip.py", "a:b")


def test_they_are_in_the_package_and_listed(capsys):
  assert {"mmcontrast.configs", "mmcontrast.configs.methods"} <= set(
    setuptools.find_packages(str(SHIPPED.parent.parent), include=["mmcontrast", "mmcontrast.*"])
  )
  assert cli.main(["configs"]) == 0
  lines = capsys.readouterr().out.splitlines()
  for name, line in shipped().items():
    assert line.endswith((".", ":")) and any(shown.split() == [name, *line.split()] for shown in lines), name
  assert "emoji" not in shipped()  # what others start from, no config


@pytest.mark.parametrize(
  "name, meant",
  [
    ("siglp", "did you mean 'methods/siglip'"),
    ("configs/quickstart.py", "did you mean 'quickstart'"),
    ("methods/simclr.py", "did you mean 'methods/simclr'"),
    ("mine", "did you mean 'mine.py'"),
    ("mime.py", "did you mean 'mine.py'"),
    ("zzzzzzzz", "`mmcontrast configs` lists"),
    ("", "--config ''"),
    ("/", "no such config"),
    ("clip.txt", "no such config"),
  ],
)
def test_a_config_that_is_not_there(name, meant, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  write(tmp_path, mine="")
  with pytest.raises(UserError) as error:
    split(name)
  assert meant in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 250


def test_a_path_that_exists_is_that_path(tmp_path, monkeypatch):
  file = write(tmp_path / "a:b", **{"vit.b-32": BASE + "def get_config(arg='x'):\n  return dict(seed=arg)\n"})
  assert run(file)["seed"] == "x" and run(f"{file}:y")["seed"] == "y"
  monkeypatch.chdir(tmp_path)
  (tmp_path / "clip").mkdir()
  assert split("clip")[0] == SHIPPED / "methods" / "clip.py"  # a folder is no config


def test_a_config_builds_on_those_of_the_package(tmp_path, monkeypatch):
  for name in ("emoji", "clip", "quickstart", "simclr"):  # whatever others have imported under these names
    monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
  file = write(
    tmp_path,
    mine="from mmcontrast.configs.methods import clip\n"
    "def get_config(arg=None):\n"
    "  c = clip.get_config(arg)\n"
    "  c.seed = 5\n"
    "  return c\n",
  )
  assert load_config(file) == {**load_config("clip"), "seed": 5}
  assert load_config("mct_emoji")["steps"] == 18_000
  with pytest.raises(UserError, match=r"mine\.py:smok: the argument after the colon: .*did you mean 'smoke'"):
    load_config(f"{file}:smok")


USES_CLIP = "import clip\ndef get_config(arg=None):\n  return clip.get_config()\n"


@pytest.mark.parametrize(
  "text, other",
  [
    ("import clip\n", False),
    ("from clip import get_config\n", False),
    ("from clip import get_config\n", True),
    (USES_CLIP, False),
    (USES_CLIP, True),
  ],
)
def test_the_habit_of_importing_a_method_by_its_bare_name_is_told_the_way(text, other, tmp_path, monkeypatch):
  if other:
    monkeypatch.setitem(sys.modules, "clip", types.ModuleType("clip"))
  with pytest.raises(UserError, match=r"from mmcontrast\.configs\.methods import clip"):
    load_config(write(tmp_path, mine=text))


def test_a_file_above_is_not_the_folder_s(tmp_path):
  write(tmp_path, base="")
  with pytest.raises(UserError, match=r"No module named 'base'.*base\.py is in another folder"):
    load_config(write(tmp_path / "ablations", mine="import base\n"))


def test_two_folders_do_not_share_a_module(tmp_path, monkeypatch):
  config = (
    "import shared_bits, parts.sizes as sizes\n" + BASE + "def get_config(arg=None):\n"
    "  from shared_bits import SEED\n  import deep\n"
    "  c = base_config()\n  c.seed, c.steps = SEED + shared_bits.SEED, sizes.STEPS + deep.LAZY()\n  return c\n"
  )
  deep = "def LAZY():\n  from parts import sizes\n  from parts.more import MORE\n  return sizes.STEPS + MORE\n"
  found = []
  for number, name in ((1, "one"), (20, "two")):
    folder = tmp_path / name
    write(
      folder / "parts",
      sizes="from . import more\nimport shared_bits\nSTEPS = shared_bits.SEED",
      more=f"MORE = {number}",
    )
    found.append(write(folder, mine=config, shared_bits=f"SEED = {number}", deep=deep))
  stranger = types.ModuleType("shared_bits")
  stranger.SEED = 1000
  monkeypatch.setitem(sys.modules, "shared_bits", stranger)
  monkeypatch.setattr(sys, "path", [str(tmp_path / "one"), *sys.path])
  monkeypatch.chdir(tmp_path / "one")
  before = (list(sys.path), sys.modules["shared_bits"])
  assert [(c["seed"], c["steps"]) for c in map(load_config, found)] == [(2, 3), (40, 60)]
  assert (list(sys.path), sys.modules["shared_bits"]) == before
  (tmp_path / "one" / "shared_bits.py").write_text("SEED = 3")  # an edit is seen, within the same second too
  assert load_config(found[0])["seed"] == 6


def test_a_folder_does_not_hide_what_is_installed(tmp_path):
  for name in ("mmcontrast", "numpy", "data"):  # a checkout of ours, and two bare folders of files
    (tmp_path / name).mkdir()
  (tmp_path / "mmcontrast" / "__init__.py").write_text("raise AssertionError")
  file = write(
    tmp_path,
    mine="import numpy as np\nimport os.path\nfrom dataclasses import dataclass\n"
    + BASE
    + "@dataclass\nclass Size:\n  side: 'int' = 3\n"
    "def get_config(arg=None):\n  c = base_config()\n  c.seed = int(np.int32(Size().side))\n  return c\n",
  )
  assert load_config(file)["seed"] == 3


def test_the_file_is_run_once(tmp_path):
  file = write(
    tmp_path,
    mine=f"open({str(tmp_path / 'log')!r}, 'a').write('file ')\n" + BASE + "def get_config(arg=None):\n"
    f"  open({str(tmp_path / 'log')!r}, 'a').write('get_config ')\n  return base_config()\n",
  )
  load_config(file, ["--config.steps=3", "--config.batch.size=8", "--config.data.source.caption=alt"])
  assert (tmp_path / "log").read_text() == "file get_config "
  assert not (tmp_path / "__pycache__").exists()


@pytest.mark.parametrize(
  "body, message",
  [
    ("def get_config(arg=None):\n  return smoke(base_config()) if arg == 'smoke' else base_config()", "'smoke'"),
    ("def get_config(arg=None):\n  if arg in ('smoke', 'large'):\n    pass\n  return base_config()", "'smoke'"),
    ("def get_config(arg=None):\n  return base_config()", "takes no argument, but 'smok'"),
    ("def get_config():\n  return base_config()", "takes no argument, but 'smok'"),
    ("def get_config(arg=None):\n  return sized(base_config(), arg)", "did you mean 'smoke'"),
  ],
)
def test_an_unknown_argument_is_refused(body, message, tmp_path):
  file = write(tmp_path, mine="from mmcontrast.config import base_config, sized, smoke\n" + body + "\n")
  load_config(file)
  with pytest.raises(UserError) as error:
    load_config(f"{file}:smok")
  assert message in str(error.value)


@pytest.mark.parametrize("name", [name for name in shipped() if name != "pretrained_text"])
def test_every_config_of_the_package_refuses_an_unknown_argument(name):
  with pytest.raises(UserError, match="smok"):
    load_config(f"{name}:smok")


def test_an_argument_that_is_not_compared_is_the_configs_affair(tmp_path):
  file = write(
    tmp_path,
    mine=BASE + "def get_config(arg=None):\n  c = base_config()\n"
    "  c.steps = 7 if arg is None else int(arg)\n  return c\n",
  )
  assert (load_config(file)["steps"], load_config(f"{file}:9")["steps"]) == (7, 9)
  with pytest.raises(UserError, match=r"ValueError.*'many' \(mine\.py, line 4\)"):
    load_config(f"{file}:many")


@pytest.mark.parametrize(
  "text, message",
  [
    ("def get_config(arg=None)\n", r"SyntaxError.*line 1"),
    ("x = 1\n", "has a function get_config"),
    ("def get_config(arg=None):\n  return 3\n", "must return the config"),
    ("import bits\n", r"ZeroDivisionError.*\(bits\.py, line 1\)"),
  ],
)
def test_a_file_that_fails_is_one_line(text, message, tmp_path):
  with pytest.raises(UserError, match=message) as error:
    load_config(write(tmp_path, mine=text, bits="1 / 0"))
  assert "\n" not in str(error.value) and os.linesep not in str(error.value)


@pytest.mark.parametrize(
  ("name", "dataset", "terms"),
  [
    (
      "clip4clip:orders",
      "furniture_turns",
      {"motion", "reversed_motion", *(f"{a}_{order}" for a in ("text_video", "video_text") for order in ORDERS)},
    ),
    ("cico:video", "furniture_turns", {"video_among_words", "words_among_video"}),
    ("macil:video", "furniture", {"video_text", "bags"}),
    ("valor:silent", ("emoji_spoken", "emoji_views"), {"vision", "sound", "both"}),
    ("more:simulated", "simulated_ecg", {"text_image", "text_series"}),
    ("valor:stamps", "tux_stamps", {"vision", "sound", "both"}),
  ],
)
def test_methods_on_other_data(name, dataset, terms):
  """What their terms name is there: heads, and as many views as they read."""
  c = load_config(f"methods/{name}")
  mixed = tuple(sorted(part["dataset"] for part in c["data"]["mixture"].values()))
  assert (mixed or c["data"]["dataset"]) == dataset and set(c["objective"]) == terms
  for term in parse_terms(c["objective"]).values():
    for path in map(parse_embedding, term.embeddings):
      assert path.head in c["heads"]
      for source in path.source.inputs or (path.source,):
        assert source.view < c["data"]["views"][source.modality]
