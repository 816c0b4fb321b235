"""Tar and TFRecord shards: their samples, their indexes, and what can be wrong with either."""

import base64
import functools
import io
import json
import re
import subprocess
import tarfile

import numpy as np
import pytest
from shard_fixture import jpeg, pairs, write_tar, write_tfrecord

from mmcontrast.data import inspection, pipeline
from mmcontrast.data.index_shards import index_shards
from mmcontrast.data.sources import BadRecord, open_source, shard_index
from mmcontrast.errors import UserError

# Two records as TensorFlow 2.21 wrote them.
TENSORFLOWS = base64.b64decode(
  "SwAAAAAAAACHCZmWCkkKEgoDanBnEgsKCQoH/9j/IG9uZQoQCgNrZXkSCQoHCgUwMDAwMAoQCgN0eHQSCQoHCgVLw6RzZQoPCgV3aWR0aBIGGgQK"
  "AoAFzQeBSz8AAAAAAAAAUWV2YQo9ChMKB2NhcHRpb24SCAoGCgFhCgFiChUKBXNjb3JlEgwSCgoIAAAAPwAAQMAKDwoEd2VicBIHCgUKA3R3b6xp"
  "Lws="
)


def open_(kind, pattern, **options):
  return open_source({"dataset": f"{kind}:{pattern}", "source": options}, "train")


def samples(path):
  """The index of a shard, as plain values: (key, {extension: (offset, size)})."""
  index = shard_index.scan(str(path))
  return [(index.keys[n].decode(), {kind: place for kind, *place in index.members(n)}) for n in range(len(index))]


def test_the_rules_of_names():
  assert shard_index.sample_key("000.jpg") == ("000", "jpg")
  assert shard_index.sample_key("a.b/000.en.TXT") == ("a.b/000", "en.txt")
  assert shard_index.sample_key("./000.jpg") == ("./000", "jpg")
  assert shard_index.sample_key("a/README")[1] == "" and shard_index.sample_key("a/.hidden")[1] == ""


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_members_are_grouped_in_the_order_of_the_tar(tmp_path, format):
  long = "x" * 90 + "/" + "y" * (60 if format == tarfile.USTAR_FORMAT else 300)  # GNU long name, PAX header, prefix
  content = [("b.txt", b"one"), ("b.jpg", b"picture"), (".hidden", b"-"), ("readme", b"-"), (f"{long}.txt", b"two"),
             ("a.txt", b""), ("b.txt", b"again")]  # fmt: skip
  path = write_tar(tmp_path / "0.tar", content, format)
  with tarfile.open(path, "a") as tar:
    tar.addfile(folder := tarfile.TarInfo("folder.txt"))
    folder.type = tarfile.DIRTYPE
    folder.name = "folder.d"
    tar.addfile(folder)
  found = samples(path)
  assert [key for key, _ in found] == ["b", long, "a", "b", "folder"]
  assert list(found[0][1]) == ["txt", "jpg"]
  data = path.read_bytes()
  for (_, members), expected in zip(found, ([b"one", b"picture"], [b"two"], [b""], [b"again"])):
    assert [data[offset : offset + size] for offset, size in members.values()] == expected


def test_records_of_webdataset(tmp_path):
  extra = {"width": 640, "alt": ["first", "second"], "kind": "dog", "caption": "of json"}
  write_tar(tmp_path / "0.tar", [("000.webp", b"webp"), ("000.txt", "Käse".encode()), ("000.cls", b"1"),
                                 ("000.json", json.dumps(extra).encode()), ("001.en.txt", b"words"),
                                 ("001.other.jpg", b"other")])  # fmt: skip
  write_tar(tmp_path / "1.tar", [("a/002.jpeg", b"jpeg"), ("a/002.json", json.dumps({"alt": "third"}).encode()),
                                 ("a/003.json", json.dumps({"image": str(tmp_path / "0.tar")}).encode())])  # fmt: skip
  index_shards(str(tmp_path / "*.tar"), workers=1)
  source = open_("webdataset", tmp_path / "{0..1}.tar", labels=("label", "kind"),
                 label_names=dict(label=("cat", "dog"), kind=("cat", "dog")))  # fmt: skip
  record = source[0]
  assert len(source) == 4 and record["images"] == {"image": b"webp"} and record["captions"] == {"caption": ["Käse"]}
  assert record["labels"] == {"label": 1, "kind": 1} and (record["id"], record["name"]) == (0, "0.tar:000")
  with pytest.raises(BadRecord, match=r"0\.tar:001.*'label' is empty"):
    source[1]
  source = open_("webdataset", tmp_path / "*.tar", caption=("alt", "en.txt"),
                 image=dict(photo="image", drawing="other.jpg"))  # fmt: skip
  assert source[0]["captions"] == {"alt": ["first", "second"], "en.txt": []}
  assert source[1]["captions"] == {"alt": [], "en.txt": ["words"]} and source[1]["images"] == {"drawing": b"other"}
  assert source[2]["captions"]["alt"] == ["third"] and source[2]["name"] == "1.tar:a/002"
  assert source[3]["images"] == {}  # what json says is no file to open
  with pytest.raises(IndexError):
    source[4]


def test_bad_samples_are_named(tmp_path):
  write_tar(tmp_path / "0.tar", [("000.txt", b"\xff"), ("001.json", b"{"), ("002.json", b"[1]"), ("003.txt", b"a"),
                                 ("003.txt", b"b")])  # fmt: skip
  index_shards(str(tmp_path / "0.tar"), workers=1)
  source = open_("webdataset", tmp_path / "0.tar")
  for index, words in enumerate(("not UTF-8", "json cannot be read", "not a table", "two members")):
    with pytest.raises(BadRecord, match=rf"0\.tar:00{index}.*{words}"):
      source[index]


def test_tfrecord_as_tensorflow_writes_it(tmp_path):
  (tmp_path / "0.tfrecord").write_bytes(TENSORFLOWS)
  assert index_shards(str(tmp_path / "0.tfrecord"), workers=1) == "1 shards indexed: 2 samples"
  source = open_("tfrecord", tmp_path / "*", name="key", labels="width", label_names=dict(width=("640", "480")))
  assert source[0]["images"] == {"image": b"\xff\xd8\xff one"} and source[0]["captions"] == {"caption": ["Käse"]}
  assert source[0]["name"] == "00000" and source[0]["labels"] == {"width": 0}
  source = open_("tfrecord", tmp_path / "*", caption=("caption", "score"))
  assert source[1]["images"] == {"image": b"two"} and source[1]["name"] == "0.tfrecord:1"
  assert source[1]["captions"] == {"caption": ["a", "b"], "score": ["0.5", "-3.0"]}


def test_a_damaged_tfrecord(tmp_path):
  rows = [{"jpg": jpeg(n), "txt": f"caption {n}", "json": json.dumps({"alt": n})} for n in range(5)]
  path = write_tfrecord(tmp_path / "0.tfrecord", rows)
  index_shards(str(path), workers=1)
  assert open_("tfrecord", path, caption="alt")[4]["captions"] == {"alt": ["4"]}
  data = bytearray(path.read_bytes())
  data[data.index(b"caption 2")] ^= 1
  path.write_bytes(data)
  source = open_("tfrecord", path)
  assert source[1]["captions"] == {"caption": ["caption 1"]}
  with pytest.raises(BadRecord, match=r"0\.tfrecord:2: the checksum"):
    source[2]
  (path.parent / "0.tfrecord.index").unlink()
  path.write_bytes(data[:-3])
  assert "0.tfrecord: cut off or damaged; the 4 samples" in index_shards(str(path), workers=1)
  path.write_bytes(data[:12] + b"not an Example" + data[26:])
  assert index_shards(str(path), workers=1) == "1 shards indexed: 5 samples"
  with pytest.raises(BadRecord, match="checksum"):
    open_("tfrecord", path)[0]


def test_indexing_takes_up_where_it_was(tmp_path):
  for shard in range(3):
    write_tar(tmp_path / f"{shard}.tar", pairs(10 * shard, 4))
  pattern = str(tmp_path / "*")  # the indexes themselves are no shards
  assert index_shards(pattern, workers=2) == "3 shards indexed: 12 samples"
  before = (tmp_path / "0.tar.index").stat().st_mtime_ns
  (tmp_path / "1.tar.index").write_bytes((tmp_path / "1.tar.index").read_bytes()[:-30])  # a torn write
  write_tar(tmp_path / "2.tar", pairs(20, 40))  # another shard by that name
  with pytest.raises(UserError, match=r"1\.tar: no index next to it.*mmcontrast data index"):
    open_("webdataset", pattern)
  assert index_shards(pattern, workers=1) == "3 shards indexed, 1 of them before: 48 samples"
  assert (tmp_path / "0.tar.index").stat().st_mtime_ns == before
  assert open_("webdataset", pattern)[8]["captions"] == {"caption": ["caption 20"]}


def test_a_truncated_tar_keeps_its_complete_samples(tmp_path):
  whole = write_tar(tmp_path / "whole.tar", pairs(0, 6)).read_bytes()
  offsets = [members["jpg"][0] for _, members in samples(tmp_path / "whole.tar")]
  end = samples(tmp_path / "whole.tar")[5][1]["txt"][0] + 512  # where only the zeros of the end follow
  for cut, expected in ((offsets[4] + 3, 4), (offsets[4] - 512, 3), (end, 5), (700, 0)):
    (tmp_path / "cut.tar").write_bytes(whole[:cut])
    index = shard_index.scan(str(tmp_path / "cut.tar"))
    assert (len(index), index.whole) == (expected, False), cut
  damaged = bytearray(whole)
  damaged[offsets[4] - 512] ^= 255  # a header
  (tmp_path / "cut.tar").write_bytes(damaged)
  assert "cut.tar: cut off or damaged; the 3 samples" in index_shards(str(tmp_path / "cut.tar"), workers=1)
  assert open_("webdataset", tmp_path / "cut.tar")[2]["captions"] == {"caption": ["caption 2"]}


def apart(names):
  """Members by name, each with bytes of its kind."""
  return [(name, jpeg(0) if name.endswith(("jpg", "png")) else b"words") for name in names]


@pytest.mark.parametrize(("names", "words"), [
  (["0.jpg", "1.jpg", "2.jpg", "0.txt", "1.txt", "2.txt"], r"members of 3 samples do not follow each other, such as "
                                                           r"those of '0'"),
  (["0.jpg", "0.txt", "1.jpg", "2.jpg", "1.txt", "2.txt"], r"members of 2 samples do not follow each other, such as "
                                                           r"those of '1'"),
  (["0.json", "1.json", "0.jpg", "0.txt", "1.jpg", "1.txt"], r"members of 2 samples do not follow"),
  (["images/0.jpg", "images/1.jpg", "texts/0.txt", "texts/1.txt"],
   r"images/0\.jpg and texts/0\.txt would be two samples; .* put them into one folder"),
])  # fmt: skip
def test_members_that_stand_apart_are_no_samples(tmp_path, names, words):
  path = write_tar(tmp_path / "0.tar", apart(names))
  with pytest.raises(UserError, match=rf"0\.tar: {words}.*tar --sort=name"):
    index_shards(str(path), workers=1)
  assert not path.with_name("0.tar.index").exists()
  # The cure that is named.
  (tmp_path / "anew").mkdir()
  run = functools.partial(subprocess.run, check=True)
  run(["tar", "-xf", path, "-C", tmp_path / "anew"])
  if "images" in names[0]:
    run(f"mv {tmp_path}/anew/*/* {tmp_path}/anew", shell=True)
  run(["tar", "--sort=name", "-cf", path, "-C", tmp_path / "anew", "."])
  count = len({name.split(".")[0][-1] for name in names})
  assert index_shards(str(path), workers=1) == f"1 shards indexed: {count} samples"


@pytest.mark.parametrize("names", [
  ["0.jpg", "0.txt", "0.jpg", "0.txt"],  # two samples of one name
  ["cat/0.jpg", "cat/1.jpg", "dog/0.jpg", "dog/1.jpg"],  # classes
  ["a/0.txt", "b/0.json"],  # no images at all
  ["a/0.jpg", "a/0.txt", "b/0.png", "b/0.json"],
])  # fmt: skip
def test_samples_of_one_name_are_not_taken_for_torn_ones(tmp_path, names):
  path = write_tar(tmp_path / "0.tar", apart(names))
  assert index_shards(str(path), workers=1).startswith("1 shards indexed")


def test_members_in_different_shards(tmp_path, capsys):
  write_tar(tmp_path / "a-0.tar", apart(["0.jpg", "1.jpg"]))
  write_tar(tmp_path / "a-1.tar", apart(["0.txt", "1.txt"]))
  write_tar(tmp_path / "b-0.tar", apart(["0.jpg", "0.txt", "1.jpg"]))
  write_tar(tmp_path / "b-1.tar", apart(["1.txt", "2.jpg", "2.txt"]))
  index_shards(f"{tmp_path}/*", workers=1)
  with pytest.raises(UserError, match=r"0\.jpg and 0\.txt are in different shards of .*a-0\.tar, .*would be two"):
    open_("webdataset", f"{tmp_path}/a-*.tar")
  assert len(open_("webdataset", f"{tmp_path}/b-*.tar")) == 4
  assert "the last sample '1' goes on in" in capsys.readouterr().err


def test_bytes_after_the_end_of_a_tar_are_named(tmp_path):
  first, second = (write_tar(tmp_path / f"{n}.tar", pairs(10 * n, 3)).read_bytes() for n in range(2))
  (tmp_path / "0.tar").write_bytes(first + second)
  for _ in range(2):  # when it is indexed already, too
    text = index_shards(f"{tmp_path}/*.tar", workers=1)
    assert re.search(r"0\.tar: \d+ bytes after its end marker are not read; where tars were joined by cat", text)
    assert "6 samples" in text and "1 cut off, damaged or with more after the end" in text
  assert shard_index.scan(str(tmp_path / "0.tar")).beyond == len(second)
  assert shard_index.scan(str(tmp_path / "1.tar")).beyond == 0
  (tmp_path / "1.tar").write_bytes(second + bytes(2**20))  # any number of zeros is filling
  assert shard_index.scan(str(tmp_path / "1.tar")).beyond == 0
  (tmp_path / "1.tar").write_bytes(second + b"checksum")
  assert shard_index.scan(str(tmp_path / "1.tar")).beyond == 8


def test_what_systems_leave_behind_is_no_sample(tmp_path):
  names = ["./__MACOSX/0.jpg", "./._0.jpg", "./0.jpg", "./._0.txt", "./0.txt", "./.ipynb_checkpoints/0-checkpoint.txt",
           "./1.jpg", "./@eaDir/1.jpg/SYNO.jpg", "./1.txt"]  # fmt: skip
  path = write_tar(tmp_path / "0.tar", apart(names))
  assert [(key, list(members)) for key, members in samples(path)] == [("./0", ["jpg", "txt"]), ("./1", ["jpg", "txt"])]
  index_shards(str(path), workers=1)
  source = open_("webdataset", path)
  assert [record["captions"]["caption"] for record in (source[0], source[1])] == [["words"], ["words"]]


def img2dataset(folder):
  """A folder as img2dataset leaves it: a failed download is a sample without an image."""
  for shard in range(2):
    members = []
    for n in range(10 * shard, 10 * shard + 10):
      failed = n % 4 == 3
      status = "failed_to_download" if failed else "success"
      members += [] if failed else [(f"{n:09d}.jpg", jpeg(n))]
      members += [(f"{n:09d}.json", json.dumps({"status": status, "url": "http://x"}).encode()),
                  (f"{n:09d}.txt", b"a caption")]  # fmt: skip
    write_tar(folder / f"{shard:05d}.tar", members)
    (folder / f"{shard:05d}.parquet").write_bytes(b"PAR1")
    (folder / f"{shard:05d}_stats.json").write_text("{}")


def test_what_img2dataset_leaves_behind(tmp_path):
  img2dataset(tmp_path)
  for command in (lambda: open_("webdataset", tmp_path), lambda: index_shards(str(tmp_path), workers=1)):
    with pytest.raises(UserError, match=rf"it is a folder: give the files in it, such as {tmp_path}/\*\.tar$"):
      command()
  assert index_shards(f"webdataset:{tmp_path}/*", workers=1) == "2 shards indexed: 20 samples"
  source = open_("webdataset", f"{tmp_path}/*")
  assert len(source) == 20 and len(source._shards.paths) == 2
  assert source[3]["images"] == {} and source[2]["images"]["image"] == jpeg(2)
  config = dict(dataset=f"webdataset:{tmp_path}/*.tar", views=dict(image=1), image_size=8)
  iterator = pipeline.train_batches(config, seed=0, batch_size=20)
  found = next(iterator)["index"]
  iterator.close()
  assert not set(found.tolist()) & {3, 7, 11, 15, 19} and not iterator.bad_records
  assert iterator.filtered == {"no image": 5}
  text = inspection.describe(source)
  assert "5 without an image will be skipped" in text and "\n  bad" not in text


def test_an_image_that_was_downloaded_and_is_lost_is_damage(tmp_path):
  write_tar(tmp_path / "0.tar", [("0.json", b'{"status": "success"}'), ("1.json", b'{"status": "failed_to_resize"}')])
  index_shards(str(tmp_path / "0.tar"), workers=1)
  source = open_("webdataset", tmp_path / "0.tar")
  with pytest.raises(BadRecord, match=r"0\.tar:0: no image, though its json has the status 'success'"):
    source[0]
  assert source[1]["images"] == {} and open_("webdataset", tmp_path / "0.tar", image=None)[0]["images"] == {}


def test_only_files_beside_shards(tmp_path):
  (tmp_path / "00000_stats.json").write_text("{}")
  with pytest.raises(UserError, match=r"no shard, only other files, such as .*00000_stats\.json"):
    index_shards(f"{tmp_path}/*", workers=1)


def test_the_form_that_every_command_takes(tmp_path):
  for split in ("train", "val"):
    (tmp_path / split).mkdir()
    write_tar(tmp_path / split / "0.tar", pairs(0, 2))
    write_tar(tmp_path / split / "1.tar", pairs(2, 2))
  expected = r"0\.tar: no index .*\(so are 1 more of the 2\); run: mmcontrast data index '(.*)'"
  with pytest.raises(UserError, match=expected) as error:
    open_("webdataset", f"{tmp_path}/{{split}}/*.tar")
  command = re.search(r"index '(.*)'", str(error.value))[1]
  assert index_shards(command, workers=1) == "2 shards indexed: 4 samples"
  found = index_shards(f"webdataset:{tmp_path}/{{split}}/*.tar", workers=1)
  assert found == "4 shards indexed, 2 of them before: 8 samples"
  with pytest.raises(UserError, match=r"csv:/d/a\.csv: csv data has no index, and needs none; webdataset and tfrecord"):
    index_shards("csv:/d/a.csv", workers=1)


def test_an_index_that_cannot_be_written(tmp_path):
  write_tar(tmp_path / "0.tar", pairs(0, 2))
  (tmp_path / "0.tar.index").mkdir()
  with pytest.raises(UserError, match=r"0\.tar\.index: cannot be written \(IsADirectoryError.*an index is written"):
    index_shards(str(tmp_path / "0.tar"), workers=1)


def test_what_is_no_shard_is_named_and_the_others_are_indexed(tmp_path):
  write_tar(tmp_path / "0.tar", pairs(0, 2))
  (tmp_path / "1.tar").write_text("not a tar " * 200)
  (tmp_path / "2.tar").write_bytes(b"")
  with pytest.raises(UserError, match=r"1\.tar: neither a tar.*\(and 1 more such shards\); the other 1 shards"):
    index_shards(str(tmp_path / "*.tar"), workers=1)
  with pytest.raises(UserError, match=r"2\.tar: an empty file"):
    index_shards(str(tmp_path / "2.tar"), workers=1)
  assert len(open_("webdataset", tmp_path / "0.tar")) == 2
  write_tar(tmp_path / "3.tar", [("readme", b"-")])
  index_shards(str(tmp_path / "3.tar"), workers=1)
  with pytest.raises(UserError, match="no sample in the 1 shards"):
    open_("webdataset", tmp_path / "3.tar")


def test_another_shard_of_the_same_size(tmp_path):
  path = write_tar(tmp_path / "0.tar", pairs(0, 2))
  index_shards(str(path), workers=1)
  source, size = open_("webdataset", path), path.stat().st_size
  write_tar(path, [("readme", b"-"), *pairs(0, 2)])
  assert path.stat().st_size == size  # tars are padded
  with pytest.raises(BadRecord, match=r"0\.tar:00000: another member is at that position.*remove .*0\.tar\.index"):
    source[0]


def test_mistakes_in_the_options(tmp_path):
  write_tar(tmp_path / "0.tar", pairs(0, 2))
  for options, words in (
    (dict(capton="txt"), "did you mean 'caption'"),
    (dict(tags="json"), "data.source.tag_names: give"),
    (dict(labels="label"), "data.source.label_names: give the names that column 'label'"),
  ):
    with pytest.raises(UserError, match=words):
      open_("webdataset", tmp_path / "0.tar", **options)


def test_a_shard_that_goes_after_it_was_opened(tmp_path):
  path = write_tar(tmp_path / "0.tar", pairs(0, 6))
  index_shards(str(path), workers=1)
  source = open_("webdataset", path)
  data = path.read_bytes()
  path.write_bytes(data[: len(data) // 4])
  assert source[0]["captions"] == {"caption": ["caption 0"]}
  with pytest.raises(OSError, match=r"0\.tar.*truncated"):
    source[5]
  with pytest.raises(UserError, match="an earlier state of the shard"):
    open_("webdataset", path)
  path.unlink()
  with pytest.raises(OSError, match=r"0\.tar"):
    source[0]


def test_shards_in_a_store(tmp_path):
  import fsspec

  store = fsspec.filesystem("memory")
  for shard in range(2):
    path = write_tar(tmp_path / "0.tar", pairs(5 * shard, 5))
    store.pipe_file(f"/shards/train/{shard}.tar", path.read_bytes())
  assert index_shards("memory://shards/train/*.tar", workers=1) == "2 shards indexed: 10 samples"
  source = open_("webdataset", "memory://shards/{split}/{0..1}.tar")
  assert source[7]["captions"] == {"caption": ["caption 7"]} and source[7]["images"] == {"image": jpeg(7)}
  store.rm("/shards", recursive=True)


def test_fewer_shards_than_processes(tmp_path):
  """One shard, four processes: their rows make up the batch of one process."""
  index_shards(str(write_tar(tmp_path / "0.tar", pairs(0, 20))), workers=1)
  config = dict(dataset=f"webdataset:{tmp_path}/0.tar", views=dict(image=1), image_size=8)

  def batches(**process):
    iterator = pipeline.train_batches(config, seed=3, batch_size=8, **process)
    found = [next(iterator) for _ in range(3)]
    iterator.close()
    return found

  parts = [batches(process_index=n, process_count=4) for n in range(4)]
  for step, whole in enumerate(batches()):
    for key in ("id", "image", "seed"):
      np.testing.assert_array_equal(np.concatenate([part[step][key] for part in parts]), whole[key])


def test_an_index_holds_no_code(tmp_path):
  path = write_tar(tmp_path / "0.tar", pairs(0, 2))
  buffer = io.BytesIO()
  np.savez(buffer, format=np.uint8(1), size=path.stat().st_size, whole=True, extensions=np.array([print], object))
  (tmp_path / "0.tar.index").write_bytes(buffer.getvalue())
  assert shard_index.current(str(path)) is None


def test_splits_by_path_and_by_shares(tmp_path):
  for split in ("train", "validation"):
    (tmp_path / split).mkdir()
    write_tar(tmp_path / split / "0.tar", pairs(0, 20 if split == "train" else 10))
  index_shards(f"{tmp_path}/*/0.tar", workers=1)
  lengths = {split: len(open_source({"dataset": f"webdataset:{tmp_path}/{{split}}/0.tar"}, split))
             for split in ("train", "validation", "all")}  # fmt: skip
  assert lengths == {"train": 20, "validation": 10, "all": 30}
  config = {"dataset": f"webdataset:{tmp_path}/*/0.tar", "source": {"splits": dict(train=0.5, validation=0.5)}}
  ids = {split: [record["id"] for record in open_source(config, split)] for split in ("train", "validation", "all")}
  assert sorted(ids["train"] + ids["validation"]) == ids["all"] == list(range(30))
  assert min(map(len, ids.values())) > 5
  config["source"]["id"] = "key"
  with pytest.raises(UserError, match="not searched for those"):
    open_source(config, "train")
  with pytest.raises(UserError, match="no split 'validation'"):
    open_source({"dataset": f"webdataset:{tmp_path}/train/0.tar"}, "validation")
