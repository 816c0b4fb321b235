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


@pytest.mark.parametrize("pattern, message", [
  ("s-01.bin", "no such file; did you mean 's-001.bin'"),
  ("s-{001..004}.bin", r"s-003\.bin: no such file \(and 1 more\)"),
  ("*.png", "no file matches the pattern"),
  ("t", r"it is a folder: give the files in it, such as .*/t/\*"),
  ("none/x", "nor is there such a folder"),
])
def test_a_pattern_that_names_no_file(folder, pattern, message):
  with pytest.raises(UserError, match=message):
    files.find(f"{folder}/{pattern}")


def test_folders_that_are_none(folder):
  with pytest.raises(UserError, match="no such folder, or it is empty"):
    files.find_below(f"{folder}/none")
  with pytest.raises(UserError, match="is a file, not a folder"):
    files.find_below(f"{folder}/s-000.bin")


@pytest.mark.parametrize("read", [files.find, files.read, files.open_binary, files.find_below])
def test_a_protocol_that_is_not_there(read, monkeypatch):
  def missing(protocol):
    raise ImportError(f"install what gives {protocol}")

  with pytest.raises(UserError, match="'gd' is no known protocol; did you mean 'gs'"):
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
