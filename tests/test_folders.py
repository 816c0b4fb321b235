"""Folders that a command fills: whole, or nothing."""

import pytest
from tiny import tiny_inference

from mmcontrast.errors import MissingData, UserError
from mmcontrast.folders import check_empty, whole
from mmcontrast.interop import stablehlo


@pytest.mark.parametrize("there", [False, True])
def test_what_was_written_is_there_at_the_end(tmp_path, there):
  out = tmp_path / "new" / "out"
  if there:
    (out / ".partial").mkdir(parents=True)  # what a process leaves that is killed
    (out / ".partial" / "old").write_text("")
  with whole(out, "--out") as folder:
    (folder / "file").write_text("written")
    (folder / "inside").mkdir()
    (folder / "inside" / "file").write_text("")
    assert [path.name for path in out.iterdir()] == [folder.name]
  assert sorted(path.name for path in out.rglob("*")) == ["file", "file", "inside"]
  assert (out / "file").read_text() == "written"


@pytest.mark.parametrize("there", [False, True])
def test_an_error_leaves_nothing_and_names_the_folder_that_was_given(tmp_path, there):
  if there:
    (tmp_path / "out").mkdir()
  with (pytest.raises(MissingData, match=f"^{tmp_path}/out/file: no space$"),
        whole(tmp_path / "out", "--out") as folder):
    (folder / "file").write_text("half")
    raise MissingData(f"{folder}/file: no space")
  assert [path.name for path in tmp_path.rglob("*")] == ["out"] * there


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
  (tmp_path / "mine").write_text("x")
  with (pytest.raises(UserError, match=f"--out {tmp_path}: is not empty; give an empty folder, or a new one"),
        whole(tmp_path, "--out")):
    raise AssertionError("the block was begun")
  assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_file_is_no_folder(tmp_path):
  (tmp_path / "mine").write_text("x")
  with pytest.raises(UserError, match=f"--out {tmp_path}/mine: is a file; give an empty folder"):
    check_empty(tmp_path / "mine", "--out")
  assert (tmp_path / "mine").read_text() == "x"


def test_a_program_whose_second_tower_fails_is_not_there(tmp_path, monkeypatch):
  write, calls = stablehlo.write_weights, []

  def fails(path, weights):
    calls.append(path.name)
    if len(calls) == 2:
      raise UserError(f"{path}: no space")
    write(path, weights)

  monkeypatch.setattr(stablehlo, "write_weights", fails)
  with pytest.raises(UserError, match=r"out/text\.safetensors: no space"):
    stablehlo.write(tiny_inference(), tmp_path / "out")
  assert calls == ["image.safetensors", "text.safetensors"] and not list(tmp_path.iterdir())
