"""Folders of images: classes, captions beside the images, splits."""

import pytest
from own_data import picture, write

from mmcontrast.data import pipeline, sources
from mmcontrast.data.sources import BadRecord
from mmcontrast.errors import UserError


def open_(folder, split="train", **options):
  return sources.open_source({"dataset": f"folder:{folder}", "source": options}, split)


@pytest.fixture(params=["local", "memory"])
def folder(request, tmp_path):
  folder = str(tmp_path / "things") if request.param == "local" else f"memory://{tmp_path.name}/things"
  for number, name in enumerate(("dog/b.PNG", "cat/c.png", "cat/deep/a.jpg", "dog/a.png")):
    write(f"{folder}/{name}", picture(number))
  write(f"{folder}/cat/c.txt", "one cat\nein Kätzchen\n".encode())
  write(f"{folder}/notes.txt", b"not a caption")
  return folder


def test_records(folder):
  source = open_(folder + "/")
  records = [source[index] for index in range(len(source))]
  assert [record["name"] for record in records] == ["cat/c.png", "cat/deep/a.jpg", "dog/a.png", "dog/b.PNG"]
  assert [record["images"]["image"] for record in records] == [picture(number) for number in (1, 2, 3, 0)]
  assert source.info.label_names == {"class": ("cat", "dog")}
  assert [record["labels"]["class"] for record in records] == [0, 0, 1, 1]
  assert [record["captions"]["caption"] for record in records] == [["one cat", "ein Kätzchen"], [], [], []]
  assert [record["id"] for record in records] == [0, 1, 2, 3]


def test_without_classes_or_captions(folder):
  source = open_(f"{folder}/dog")
  assert len(source) == 2 and source.info.label_names == {} == source[0]["labels"]
  assert source.info.modalities == ("image",) and source[0]["captions"] == {}


def test_splits(folder):
  shares = {"train": 0.1, "validation": 0.9}
  ids = [{source[index]["id"] for index in range(len(source))}
         for source in (open_(folder, split, splits=shares) for split in shares)]  # fmt: skip
  assert ids == [{0, 3}, {1, 2}]
  assert len(open_(folder.replace("things", "{split}"), "things")) == 4
  with pytest.raises(UserError, match="'all' is not a folder"):
    open_(f"{folder}/{{split}}", "all")


def test_linked_classes_keep_their_numbers(tmp_path):
  for number, name in enumerate(("data/cat/a.png", "elsewhere/b.png", "data/owl/c.png", "data/yak/e.png")):
    write(f"{tmp_path}/{name}", picture(number))
  (tmp_path / "data/dog").symlink_to(tmp_path / "elsewhere")
  (tmp_path / "data/owl/d.png").symlink_to(tmp_path / "data/cat/a.png")
  (tmp_path / "elsewhere/all").symlink_to(tmp_path / "data")  # a loop by another way round
  (tmp_path / "data/yak/self").symlink_to(tmp_path / "data/yak")
  source = open_(tmp_path / "data")
  records = [source[index] for index in range(len(source))]
  assert source.info.label_names == {"class": ("cat", "dog", "owl", "yak")}
  named = {record["name"]: record["labels"]["class"] for record in records}
  assert named == {"cat/a.png": 0, "dog/b.png": 1, "owl/c.png": 2, "owl/d.png": 2, "yak/e.png": 3}


def test_a_class_that_is_a_link_to_nowhere_is_no_smaller_set_of_classes(tmp_path):
  for number, name in enumerate(("cat/a.png", "yak/b.png")):
    write(f"{tmp_path}/{name}", picture(number))
  (tmp_path / "dog").symlink_to("/not/mounted")
  with pytest.raises(UserError, match=r"dog is a link to /not/mounted, which does not exist; restore it, or remove"):
    open_(tmp_path)
  (tmp_path / "dog").unlink()
  (tmp_path / "cat/c.png").symlink_to("/not/mounted/c.png")  # one image: a bad record, which messages name
  with pytest.raises(FileNotFoundError, match=r"cat/c\.png: no such file"):
    open_(tmp_path)[1]


def test_what_systems_leave_behind_is_no_class_and_no_image(folder):
  before = open_(folder)
  for name in (".ipynb_checkpoints/a-checkpoint.png", "__MACOSX/cat/._c.png", "cat/._c.png", ".DS_Store", "Thumbs.db",
               "cat/desktop.ini", "@eaDir/c.png/THUMB.jpg", "cat/@eaDir/c.png", ".c.txt", "cat/._c.txt"):  # fmt: skip
    write(f"{folder}/{name}", picture(99))
  source = open_(folder)
  assert source.info == before.info
  assert source[0]["name"] == "cat/c.png" and len(source) == len(before) == 4


def test_the_suffixes_of_every_format_that_is_read(tmp_path):
  for name in ("a.jfif", "b.JPE", "c.avif", "d.jp2", "e.mpo", "f.apng", "g.png"):
    write(f"{tmp_path}/{name}", picture(0))
  assert len(open_(tmp_path)) == 7


def test_mistakes(folder):
  write(f"{folder}/cat/c.txt", b"\xff")
  with pytest.raises(BadRecord, match=r"cat/c\.txt: not UTF-8"):
    open_(folder)[0]
  write(f"{folder}/loose.png", picture(0))
  with pytest.raises(UserError, match=r"loose\.png is next to the class folders cat"):
    open_(folder)
  with pytest.raises(UserError, match=r"data\.source: no option 'split'; did you mean 'splits'"):
    sources.open_source({"dataset": f"folder:{folder}", "source": {"split": 1}}, "train")
  with pytest.raises(UserError, match="no such folder"):
    open_(f"{folder}/none")
  write(f"{folder}/empty/x.md", b"")
  with pytest.raises(UserError, match="no image in it; known are"):
    open_(f"{folder}/empty")


def test_captions_of_the_class(folder):
  source = open_(folder, caption="a photo of a {class}")
  assert source.info.caption_fields == ("caption",)
  assert [source[index]["captions"]["caption"] for index in (0, 3)] == [["a photo of a cat"], ["a photo of a dog"]]
  settings = dict(dataset=f"folder:{folder}/", views=dict(text=1), tokenizer="bytes")
  assert pipeline.spec({**settings, "source": dict(caption="a {class}")}, 2).examples == 4
  assert open_(folder)[0]["captions"]["caption"] == ["one cat", "ein Kätzchen"]
  for wrong in ("a photo", "a {kind}", "a {class} {class} {kind}", "{", 3):
    with pytest.raises(UserError, match=r"data\.source\.caption: .* is not a text with"):
      open_(folder, caption=wrong)
  with pytest.raises(UserError, match="needs class folders, and there are none"):
    open_(f"{folder}/cat/deep", caption="a {class}")


def test_white_space_and_accents_of_two_characters_make_no_class_of_their_own(tmp_path):
  for name in (" cat", "cat", "cafe\u0301", "caf\xe9", "dog "):
    write(f"{tmp_path}/{name}/a.png", picture(1))
  source = open_(tmp_path, caption="a {class}.")
  assert source.info.label_names == {"class": ("caf\xe9", "cat", "dog")} and len(source) == 5
  assert {(one["labels"]["class"], *one["captions"]["caption"]) for one in source} == {
      (0, "a caf\xe9."), (1, "a cat."), (2, "a dog.")}  # fmt: skip


def test_folders_that_may_be_splits_are_named(tmp_path, capsys):
  for split in ("train", "Val"):
    for name in ("cat/a.png", "dog/b.png"):
      write(f"{tmp_path}/root/{split}/{name}", picture(1))
  assert open_(f"{tmp_path}/root").info.label_names == {"class": ("Val", "train")}
  expected = f"folders Val, train are treated as classes; if they are splits, give folder:{tmp_path}/root/{{split}}\n"
  assert expected in capsys.readouterr().err
  assert open_(f"{tmp_path}/root/{{split}}").info.label_names == {"class": ("cat", "dog")}
  with pytest.raises(UserError, match=r"at all; set it to 0, or make them of the class: data\.source\.caption"):
    pipeline.spec(dict(dataset=f"folder:{tmp_path}/root/{{split}}", views=dict(text=1), tokenizer="bytes"), 2)
  write(f"{tmp_path}/root/plane/c/a.png", picture(1))  # vehicles
  assert open_(f"{tmp_path}/root").info.label_names == {"class": ("Val", "plane", "train")}
  assert capsys.readouterr().err == ""
