"""Addresses in object stores as folders, against stand-ins of both stores on loopback."""

import builtins
import errno
import importlib.util
import pathlib

import fsspec
import loopback_stores
import numpy as np
import pytest
from own_data import picture

from mmcontrast import cli, folders, object_stores
from mmcontrast.data.tokenizers import keep_file, kept_name, make_tokenizer, train
from mmcontrast.errors import UserError
from mmcontrast.inference.embeddings import Embeddings, Rows, begin
from mmcontrast.modalities import MODALITIES
from mmcontrast.report.losses import draw_losses
from mmcontrast.runs import orbax_on_stores, run_lock, store_lock
from mmcontrast.runs.checkpoint import load_run
from mmcontrast.search import read_query
from mmcontrast.training import metric_files
from mmcontrast.training.observe import read_jsonl

SCHEMES = ("gs", "s3")


@pytest.fixture(scope="module", autouse=True)
def stores():
  with loopback_stores.in_this_process():
    yield


@pytest.fixture(params=SCHEMES)
def folder(request):
  """An empty folder of a store."""
  found = folders.at(
    f"{request.param}://{loopback_stores.BUCKET}/{request.node.name.partition('[')[0]}/run", "--workdir"
  )
  yield found
  folders.remove(found)


def test_what_a_path_says_and_does(folder):
  assert str(folder / "a" / "b.txt") == f"{folder}/a/b.txt" and (folder / "b.txt").with_name("c").parent == folder
  assert folder.resolve() == folder and folder.bucket == "bucket"
  assert not folder.exists() and not folder.is_dir() and not list(folder.glob("*"))
  (folder / "a.txt").write_text("ä")
  (folder / "inside" / "b.bin").write_bytes(b"123")
  with (folder / "c[1].txt").open("w") as file:
    file.write("x")
  assert sorted(path.name for path in folder.iterdir()) == ["a.txt", "c[1].txt", "inside"]
  assert [path.name for path in folder.glob("*.txt")] == ["a.txt", "c[1].txt"]
  assert {path.name for path in folder.files()} == {"a.txt", "b.bin", "c[1].txt"}
  assert folder.is_dir() and not folder.is_file() and (folder / "inside").is_dir() and (folder / "a.txt").is_file()
  assert (folder / "a.txt").read_text() == "ä" and (folder / "inside/b.bin").stat().length == 3
  assert (folder / "a.txt").rename(folder / "d.txt").read_text() == "ä" and not (folder / "a.txt").exists()
  (folder / "d.txt").unlink()
  (folder / "d.txt").unlink(missing_ok=True)
  with pytest.raises(ValueError, match="'a': an object is read, or written whole"):
    (folder / "c").open("a")
  folder.rmtree()
  assert not folder.exists()
  folder.rmtree(missing_ok=True)


def test_of_several_that_make_an_object_one_does(folder):
  (folder / "lock").create(b"1")
  with pytest.raises(FileExistsError):
    (folder / "lock").create(b"2")
  assert (folder / "lock").read_bytes() == b"1"


def test_what_is_not_there_is_an_error_of_the_system(folder, tmp_path):
  for ask in (
    (folder / "none").read_bytes,
    lambda: list(folder.iterdir()),
    lambda: (folder / "none").download(tmp_path / "none"),
  ):
    with pytest.raises(FileNotFoundError) as error:
      ask()
    assert error.value.filename.startswith(str(folder)) and error.value.errno == errno.ENOENT
    assert folders.of_the_system(error.value) == f"{error.value.filename}: not there"


def test_a_bucket_that_is_not_there(folder, capsys):
  missing = f"{folder.scheme}://no-such-bucket/run"
  with pytest.raises(UserError, match=rf"^--workdir {missing}: cannot be written to \(no bucket 'no-such-bucket': "):
    folders.make(missing, "--workdir")
  with pytest.raises(UserError, match=f"^{missing}: no bucket 'no-such-bucket'; give another --workdir"):
    load_run(missing)
  with pytest.raises(UserError, match=f"^{folder}: no checkpoints there; train first"):
    load_run(folder)
  assert cli.main(["evaluate", "--workdir", missing]) == 2
  assert capsys.readouterr().err.count("\n") == 1


class Refused:
  """A file system that lets nobody in, as the packages of the stores say it."""

  def __getattr__(self, name):
    def refuses(*arguments, **options):
      raise ERRORS[self.kind]

    return refuses


class HttpError(OSError):
  code = 401


class NoCredentialsError(Exception):
  pass


ERRORS = {
  "forbidden": OSError("Forbidden: b/bucket/o/run\nservice does not have storage.objects.get access"),
  "of s3": PermissionError("Access Denied"),
  "unauthorized": HttpError("Invalid Credentials"),
  "none": NoCredentialsError("Unable to locate credentials"),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_a_bucket_that_does_not_let_one_in(kind, monkeypatch, capsys):
  refused = Refused()
  refused.kind = kind
  monkeypatch.setattr(object_stores, "file_system", lambda scheme: refused)
  with pytest.raises(UserError, match=r"--workdir gs://bucket/run: cannot be written to \(not allowed: ") as error:
    folders.make("gs://bucket/run", "--workdir")
  assert "\n" not in str(error.value)
  for words in (["evaluate", "--workdir", "s3://bucket/run"], ["search", "x", "--workdir", "s3://bucket/run"]):
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: s3://bucket/run/config.json: not allowed: ") and said.count("\n") == 1
  with pytest.raises(PermissionError):  # and not "no", which would be taken for an incomplete checkpoint
    folders.at("gs://bucket/run", "").is_file()


def test_a_store_that_does_not_answer_is_one_line(monkeypatch, capsys):
  refused = Refused()
  refused.kind = "lost"
  monkeypatch.setitem(ERRORS, "lost", ConnectionError("Cannot connect to host 127.0.0.1:1"))
  monkeypatch.setattr(object_stores, "file_system", lambda scheme: refused)
  assert cli.main(["evaluate", "--workdir", "gs://bucket/run"]) == 2
  assert "gs://bucket/run/config.json: ConnectionError: Cannot connect" in capsys.readouterr().err


@pytest.mark.parametrize("scheme, package", [("gs", "gcsfs"), ("s3", "s3fs")])
def test_a_package_that_is_not_installed_is_named(scheme, package, monkeypatch, tmp_path, capsys):
  find = importlib.util.find_spec
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
  monkeypatch.chdir(tmp_path)
  assert cli.main(["train", "--config", "quickstart", "--workdir", f"{scheme}://bucket/run"]) == 2
  expected = f"error: {scheme}:// needs the package {package}; pip install 'mmcontrast[{scheme}]'\n"
  assert capsys.readouterr().err == expected and not list(tmp_path.iterdir())


def test_credentials_that_cannot_be_read_are_one_line(monkeypatch):
  def broken(protocol, **options):
    raise ValueError("Provided token is either not valid, or expired.")

  monkeypatch.setattr(fsspec, "filesystem", broken)
  object_stores.file_system.cache_clear()
  with pytest.raises(UserError, match=r"^s3:// cannot be used .ValueError: Provided token is either not valid"):
    folders.make("s3://bucket/run", "--workdir")


def test_a_folder_becomes_whole_or_nothing(folder, monkeypatch):
  with folders.whole(folder, "--out") as scratch:
    assert isinstance(scratch, pathlib.Path)
    (scratch / "checkpoints/0/model").mkdir(parents=True)
    for name in ("commit_success.txt", "model/commit_success.txt", "model/arrays", "z"):
      (scratch / "checkpoints/0" / name).write_text(name)
    (scratch / "config.json").write_text("{}")
    assert not folder.exists()
    sent = []
    upload = object_stores.StorePath.upload
    monkeypatch.setattr(object_stores.StorePath, "upload", lambda to, source: (sent.append(to), upload(to, source))[1])
  names = [path.relative_to(folder).as_posix() for path in sent]
  assert names[-2:] == ["checkpoints/0/model/commit_success.txt", "checkpoints/0/commit_success.txt"]
  assert sorted(folder.files()) == sorted(sent) and not scratch.exists()
  with pytest.raises(UserError, match=f"--out {folder}: is not empty"), folders.whole(folder, "--out"):
    raise AssertionError
  with pytest.raises(UserError, match=f"--out {folder}/config.json: is a file"):
    folders.check_empty(folder / "config.json", "--out")
  with pytest.raises(UserError, match=f"--out {folder}/config.json: is a file; give a folder"):
    folders.make(folder / "config.json", "--out")
  other = folder / "other"
  with pytest.raises(UserError, match=f"^{other}/x: no$"), folders.whole(other, "--out") as scratch:
    raise UserError(f"{scratch}/x: no")

  def fails(to, source):
    if to.name == "b":
      raise OSError(errno.EIO, "lost", str(to))
    upload(to, source)

  monkeypatch.setattr(object_stores.StorePath, "upload", fails)
  with pytest.raises(OSError, match="lost"), folders.whole(other, "--out") as scratch:
    for name in "abc":
      (scratch / name).write_text("")
  assert not other.exists()


def test_files_written_appended_to_and_fetched(folder):
  with folders.written(folder / "a.npy") as file:
    np.save(file.open("wb"), np.arange(3))
  with folders.fetched(folder / "a.npy") as file:
    assert np.load(file).tolist() == [0, 1, 2]
  with pytest.raises(ValueError), folders.written(folder / "b") as file:
    file.write_text("half")
    raise ValueError
  for line in ("1\n", "2\n"):
    folders.append(folder / "log", line)
  assert (folder / "log").read_text() == "1\n2\n" and sorted(path.name for path in folder.iterdir()) == ["a.npy", "log"]


def test_metrics_are_sent_before_a_checkpoint_and_at_the_end(folder, monkeypatch):
  with metric_files.make_writer(folder) as writer:
    writer.write(1, {"loss": 3.0})
    assert not folder.exists()
    writer.keep()
    writer.write(2, {"loss": 2.0})
    assert [line["step"] for line in read_jsonl(folder / "metrics.jsonl")] == [1]
  assert [line["step"] for line in read_jsonl(folder / "metrics.jsonl")] == [1, 2]
  with metric_files.make_writer(folder, resume_step=1) as writer:  # the second line is written again
    writer.write(2, {"loss": 1.0})
  assert [line["loss"] for line in read_jsonl(folder / "metrics.jsonl")] == [3.0, 1.0]
  assert len(list((folder / "tensorboard").glob("events*"))) == 2
  assert draw_losses(read_jsonl(folder / "metrics.jsonl"), folder / "losses.png").read_bytes()[:4] == b"\x89PNG"
  monkeypatch.setattr(metric_files, "EVERY", 0.01)
  with metric_files.make_writer(folder / "other") as writer:
    writer.write(1, {"loss": 3.0})
    for _ in range(500):
      if (folder / "other/metrics.jsonl").exists():
        break
    else:
      raise AssertionError("was not sent in the background")


def test_a_tokenizer_is_kept_and_read(folder, tmp_path):
  (folder / "own.model").write_bytes(train(["a red heart", "a blue car"] * 9, 300))
  tokenizer = make_tokenizer(f"{folder}/own.model", lower=True)
  keep_file(tokenizer, folder)
  keep_file(tokenizer, folder)  # again, when a run resumes
  assert kept_name("sentencepiece:elsewhere", folder) == f"sentencepiece:{folder}/tokenizer/own.model"
  kept = make_tokenizer(kept_name("sentencepiece", folder), lower=True)
  assert kept.encode(["a red car"], 9).tolist() == tokenizer.encode(["a red car"], 9).tolist()
  (tmp_path / "other.model").write_bytes(train(["something else entirely"] * 9, 290))
  with pytest.raises(UserError, match=f"^{folder}/tokenizer/own.model: the run began with this tokenizer"):
    keep_file(make_tokenizer(str(tmp_path / "other.model"), lower=True), folder)
  with pytest.raises(UserError, match=f"tokenizer {folder}/none.model: no such file"):
    make_tokenizer(f"{folder}/none.model", lower=True)


@pytest.mark.parametrize("form", ["npy", "parquet"])
def test_embeddings_by_shard(folder, form):
  manifest = {"format": form, "kinds": ["text"], "records": 4, "records_a_shard": 2, "model": {}, "source": {}}
  there = begin(folder, manifest)
  columns = {name: ["a", "b"] for name in ("index", "id", "name", "path", "field", "text")}
  rows = np.eye(2, dtype=np.float32)
  there.write(1, {"text": Rows(rows, columns)}, {3: "torn"}, "digest")
  again = begin(folder, manifest)
  assert again.done == [1] and again.bad() == {3: "torn"} and again.digest(1) == "digest"
  assert [found.tolist() for found in again.rows("text")] == [rows.tolist()]
  assert again.describe("text", np.array([1]))[0]["text"] == "b"
  with pytest.raises(UserError, match=f"--out {folder}: holds embeddings of 4 records"):
    begin(folder, {**manifest, "records": 5})
  again.forget(1)
  assert not again.done
  with pytest.raises(UserError, match=f"^{folder}/none: no embeddings there"):
    Embeddings(folder / "none")


def test_an_image_in_a_store_is_a_query(folder):
  (folder / "cat.png").write_bytes(picture(1))
  assert read_query(f"{folder}/cat.png").thing.shape == (18, 24, 3)
  assert MODALITIES["image"].checked(f"{folder}/cat.png", "x").shape == (18, 24, 3)
  with pytest.raises(UserError, match=f"{folder}/none.png: no such image file"):
    read_query(f"{folder}/none.png")


@pytest.fixture
def fast(monkeypatch):
  """A lock whose times are short."""
  monkeypatch.setattr(store_lock, "RENEWED", 0.05)
  monkeypatch.setattr(store_lock, "LEASE", 0.6)
  monkeypatch.setattr(store_lock, "_LOOKS", 0.02)


def elsewhere(monkeypatch):
  """From now on this is another machine."""
  monkeypatch.setattr(store_lock, "_machine", lambda: "another")


def test_a_second_training_is_refused_on_this_machine_and_on_another(folder, fast, monkeypatch, capsys):
  with run_lock.held(folder) as check:
    with pytest.raises(UserError, match=r"another training writes into this folder \(process \d+ on ") as error:
      run_lock.held(folder).__enter__()
    assert "\n" not in str(error.value)
    with monkeypatch.context() as patched:
      elsewhere(patched)
      with pytest.raises(UserError, match="another training writes"):
        run_lock.held(folder).__enter__()
    assert "waiting up to 0.6 s to see whether it is alive" in capsys.readouterr().out
    check()
  assert not folder.exists()


def test_the_lock_of_a_dead_process_is_taken_over(folder, fast, monkeypatch, capsys):
  (folder / run_lock.NAME).write_text(
    f'{{"pid": 4194305, "host": "h", "since": "s", "machine": "{store_lock._machine()}"}}'
  )
  with run_lock.held(folder):
    assert not capsys.readouterr().out  # at once: it ran here
  for left in ('{"pid": 1, "host": "h", "since": "now", "machine": "of another", "token": "x"}', "torn", "[]"):
    (folder / run_lock.NAME).write_text(left)
    with run_lock.held(folder) as check:
      check()
    assert "locked by another training" in capsys.readouterr().out


def test_a_lock_that_another_took_is_noticed(folder, fast):
  with run_lock.held(folder) as check:
    (folder / run_lock.NAME).write_text('{"pid": 7, "host": "h", "since": "now", "token": "theirs"}')
    with pytest.raises(UserError, match=r"another training \(process 7 on h, since now\) took over"):
      for _ in range(500):
        store_lock.time.sleep(0.01)
        check()
  assert (folder / run_lock.NAME).exists()  # it is theirs


def test_without_the_right_to_ask_about_a_bucket_orbax_goes_on(monkeypatch):
  orbax_on_stores.mend()
  orbax_on_stores.mend()
  from orbax.checkpoint._src.path import gcs_utils

  def forbidden(name):
    raise PermissionError("storage.buckets.get")

  monkeypatch.setattr(gcs_utils, "get_bucket", forbidden)
  assert gcs_utils.is_hierarchical_namespace_enabled("gs://bucket/x") is False


def test_tensorstore_is_told_of_the_endpoint(monkeypatch):
  for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID"):
    monkeypatch.delenv(name, raising=False)
  spec = {"driver": "s3", "bucket": "b", "path": "r/c"}
  assert orbax_on_stores._s3_spec("s3://b/r/c") == spec
  monkeypatch.setenv("AWS_ENDPOINT_URL", "http://minio:9000")
  assert orbax_on_stores._s3_spec("s3://b/r/c") == {**spec, "endpoint": "http://minio:9000", "aws_region": "us-east-1"}
  monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://other")
  monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-1")
  monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
  assert orbax_on_stores._s3_spec("s3://b/r/c") == {
    **spec,
    "endpoint": "http://other",
    "aws_region": "eu-1",
    "aws_credentials": {"type": "environment"},
  }


def test_nothing_of_the_stores_is_imported_for_a_folder_here(monkeypatch, tmp_path):
  imported = builtins.__import__

  def refuses(name, *rest):
    assert name not in ("gcsfs", "s3fs", "mmcontrast.object_stores"), name
    return imported(name, *rest)

  monkeypatch.setattr(builtins, "__import__", refuses)
  assert folders.make(tmp_path / "run", "--workdir").is_dir()
