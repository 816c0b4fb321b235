"""Files by path or URL: patterns, parts of files, and what errors say."""

import fsspec
import pytest
from own_data import write

from mmcontrast.data.sources import files
from mmcontrast.errors import UserError


@pytest.fixture(params=["local", "memory"])
def folder(request, tmp_path):
  folder = str(tmp_path / "a b") if request.param == "local" else f"memory://{tmp_path.name}"
  for name in ("s-000.bin", "s-001.bin", "s-002.bin", "t/u.bin"):
    write(f"{folder}/{name}", f"bytes of {name}".encode())
  return folder


def test_patterns(folder):
  def found(pattern):
    return [path.rpartition("/")[2] for path in files.find(f"{folder}/{pattern}")]

  assert found("s-{000..002}.bin") == found("s-*.bin") == found("s-00?.bin") == ["s-000.bin", "s-001.bin", "s-002.bin"]
  assert found("{s-002,s-000}.bin") == ["s-000.bin", "s-002.bin"]
  assert found("{s-00{0,1},t/u}.bin") == ["s-000.bin", "s-001.bin", "u.bin"]
  assert found("**/u.bin") == ["u.bin"] and found("s-001.bin") == ["s-001.bin"]
  assert all(files.read(path) for path in files.find(f"{folder}/*.bin"))


def test_everything_below_a_folder(folder):
  found = files.find_below(folder)
  assert list(found) == ["s-000.bin", "s-001.bin", "s-002.bin", "t/u.bin"]
  assert files.read(found["t/u.bin"]) == b"bytes of t/u.bin"


def test_reading_in_part(folder):
  path = f"{folder}/s-001.bin"
  assert files.read(path) == b"bytes of s-001.bin" and files.read(path, 9) == b"s-001.bin"
  assert files.read(path, 6, 2) == b"of"
  with files.open_binary(path) as file:
    file.seek(9)
    assert file.read() == b"s-001.bin"
  with pytest.raises(OSError, match=r"s-001\.bin: ends at byte 18, before byte 29; it is truncated"):
    files.read(path, 9, 20)
  for read in (files.read, files.open_binary):
    with pytest.raises(FileNotFoundError, match=r"s-009\.bin: no such file"):
      read(f"{folder}/s-009.bin")


def test_a_relative_path_is_of_the_working_folder(tmp_path, monkeypatch):
  (tmp_path / "t").mkdir()
  (tmp_path / "t/u.bin").write_bytes(b"here")
  monkeypatch.chdir(tmp_path)
  assert files.read(files.find("t/*.bin")[0]) == files.read("t/u.bin") == b"here"


@pytest.mark.parametrize(
  "pattern, message",
  [
    ("s-01.bin", "no such file; did you mean 's-001.bin'"),
    ("s-{001..004}.bin", r"s-003\.bin: no such file \(and 1 more\)"),
    ("*.png", "no file matches the pattern"),
    ("t", r"it is a folder: give the files in it, such as .*/t/\*"),
    ("none/x", "nor is there such a folder"),
  ],
)
def test_a_pattern_that_names_no_file(folder, pattern, message):
  with pytest.raises(UserError, match=message):
    files.find(f"{folder}/{pattern}")


def test_a_missing_file_is_compared_with_like_names_alone(folder):
  for number in range(25):
    write(f"{folder}/other/unrelated{number}.dat", b"x")
  with pytest.raises(UserError, match=r"other/rows\.jsonl: no such file; of the 25 names in that folder none is"):
    files.find(f"{folder}/other/rows.jsonl")
  with pytest.raises(UserError, match=r"did you mean 'unrelated7\.dat' or 'unrelated17\.dat' or 'unrelated9\.dat'\?$"):
    files.find(f"{folder}/other/unrelated7.da")


@pytest.mark.parametrize(("name", "endings", "message"), [
  ("", (".bin",), r"such as .*/\*\.bin$"), ("", (".tar", ".bin"), r"such as .*/\*\.bin$"),
  ("", (".tar",), r"a folder without a file that ends in \.tar$"),
  ("deep", (".tar",), r"such as .*/deep/\*\*/\*\.tar$"),
])  # fmt: skip
def test_a_folder_instead_of_its_files(folder, name, endings, message):
  write(f"{folder}/deep/x/y.TAR" if name else f"{folder}/notes.json", b"x")
  with pytest.raises(UserError, match=message):
    files.find(f"{folder}/{name}", endings)


LEFT_BEHIND = (".DS_Store", "._s-000.bin", ".ipynb_checkpoints/s-000-checkpoint.bin", "__MACOSX/t/._u.bin", "Thumbs.db",
               "t/desktop.ini", "@eaDir/s-000.bin", "t/@eaDir/u.bin/SYNO.bin", ".hidden/s-009.bin", "_SUCCESS",
               "$RECYCLE.BIN/x.bin", "lost+found/y.bin", "s-003.bin.part", "s-003.bin~",
               "t/u.bin.crdownload", "~$s-000.bin", "#s-000.bin#", "s-000.bin.bak")  # fmt: skip


def test_what_systems_leave_behind_is_not_data(folder):
  wanted = {name: files.find(f"{folder}/{name}") for name in ("*", "**", "**/*.bin", "*/*", "?-*.bin", "[st]-*.bin")}
  below = files.find_below(folder)
  for name in LEFT_BEHIND:
    write(f"{folder}/{name}", b"not data")
  assert {name: files.find(f"{folder}/{name}") for name in wanted} == wanted
  assert files.find_below(folder) == below
  # What is spelt is meant.
  spelt = {".hidden/*.bin": 1, ".hid*/*": 1, "@eaDir/*": 1, "._s-000.bin": 1, "._*.bin": 1, "*.part": 1}
  for name, count in spelt.items():
    assert len(files.find(f"{folder}/{name}")) == count, name


def test_a_hidden_folder_that_is_named_holds_data(tmp_path):
  write(f"{tmp_path}/.cache/@eaDir/a.bin", b"x")
  assert len(files.find(f"{tmp_path}/.cache/@eaDir/*.bin")) == 1
  with pytest.raises(UserError, match="no file matches the pattern"):
    files.find(f"{tmp_path}/.cache/**/*.bin")
  assert list(files.find_below(f"{tmp_path}/.cache/@eaDir")) == ["a.bin"]


def test_a_path_that_exists_is_no_pattern(tmp_path):
  for name in ("run1/m", "run2/m", "run[12]/m", "a*b", "ab", "x{1,2}", "x1", "x2", "run[12]/n1", "run1/n2"):
    write(f"{tmp_path}/{name}", name.encode())

  def found(pattern):
    return [files.read(path).decode() for path in files.find(f"{tmp_path}/{pattern}")]

  assert found("run[12]/m") == ["run[12]/m"] and found("a*b") == ["a*b"] and found("x{1,2}") == ["x{1,2}"]
  assert found("run[12]/n*") == ["run[12]/n1"]  # neither is a folder, before the pattern in it
  assert found("run[1]/m") == ["run1/m"] and found("x{2,1}") == ["x1", "x2"]


def test_links_are_followed_and_loops_are_not(tmp_path):
  folder, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
  write(f"{folder}/a/1.bin", b"1")
  write(f"{elsewhere}/deep/2.bin", b"2")
  (folder / "b").symlink_to(elsewhere)
  (folder / "3.bin").symlink_to(elsewhere / "deep/2.bin")
  (folder / "a/up").symlink_to(folder)
  (elsewhere / "deep/round").symlink_to(elsewhere)
  (folder / "gone.bin").symlink_to(tmp_path / "nowhere")
  assert list(files.find_below(str(folder))) == ["3.bin", "a/1.bin", "b/deep/2.bin", "gone.bin"]
  assert [path.removeprefix(f"{folder}/") for path in files.find(f"{folder}/*/*/*.bin")] == [
    "a/up/3.bin", "b/deep/2.bin"]  # fmt: skip
  assert [path.removeprefix(f"{folder}/") for path in files.find(f"{folder}/**/*.bin")] == [
    "3.bin", "a/1.bin", "b/deep/2.bin"]  # fmt: skip


def test_folders_that_are_none(folder):
  with pytest.raises(UserError, match="no such folder, or it is empty"):
    files.find_below(f"{folder}/none")
  with pytest.raises(UserError, match="is a file, not a folder"):
    files.find_below(f"{folder}/s-000.bin")


@pytest.mark.parametrize("read", [files.find, files.read, files.open_binary, files.find_below])
def test_a_protocol_that_is_not_there(read, monkeypatch):
  def missing(protocol):
    raise ImportError(f"install what gives {protocol}")

  with pytest.raises(UserError, match="'gd' is not a known protocol; did you mean 'gs'"):
    read("gd://bucket/x")
  monkeypatch.setattr(fsspec.core, "get_filesystem_class", missing)
  with pytest.raises(UserError, match=r"gs://bucket/x: reading gs:// needs .* pip install gcsfs"):
    read("gs://bucket/x")
  with pytest.raises(UserError, match="install what gives ftp"):
    read("ftp://host/x")


def test_paths_beside_a_table():
  assert files.folder_of("gs://bucket/a/b.jsonl") == "gs://bucket/a"
  assert files.join("gs://bucket/a", "c/d.png") == "gs://bucket/a/c/d.png"
  assert files.join("gs://bucket/a", "s3://other/d.png") == "s3://other/d.png"
  assert files.join("/a", "/b/d.png") == "/b/d.png" and files.join("", "d.png") == "d.png"
