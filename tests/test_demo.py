"""`mmcontrast demo`: its answers over HTTP as the page asks for them, and what is wrong, in the page or in one line."""

import base64
import io
import json
import re
import threading
import urllib.error
import urllib.request

import numpy as np
import pytest
from PIL import Image
from tiny import tiny_inference
from toy_source import Toy

from mmcontrast import demo as room
from mmcontrast import embed as program
from mmcontrast.cli import main
from mmcontrast.data.sources import open_source
from mmcontrast.demo import Demo, Server, answers, demo
from mmcontrast.demo.gallery import OfFolder
from mmcontrast.errors import UserError
from mmcontrast.inference.embeddings import Embeddings

COUNT = 20
MODELS = {"run": tiny_inference(step=5)}


@pytest.fixture(autouse=True)
def toy(monkeypatch):
  """The source "toy" of 20 records, two drawings and two captions each."""

  def opened(config, split, data_dir):
    return Toy(COUNT if config["dataset"] == "toy" else 0) if "toy" in config["dataset"] else open_source(
      config, split, data_dir)  # fmt: skip

  for module in (program, answers):
    monkeypatch.setattr(module, "open_source", opened)
    monkeypatch.setattr(module, "load", lambda workdir, step, data_dir: MODELS[str(workdir)])


def picture(number: int) -> str:
  """A file that looks like a record, in base64."""
  Image.fromarray(np.full((12, 12, 3), (number, 0, 0), np.uint8)).save(out := io.BytesIO(), "PNG")
  return base64.b64encode(out.getvalue()).decode()


@pytest.fixture(scope="module")
def made():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(answers, "open_source", lambda config, split, data_dir: Toy(COUNT))
    patch.setattr(answers, "load", lambda workdir, step, data_dir: MODELS[str(workdir)])
    return answers.opened("run", "toy")


@pytest.fixture(scope="module")
def served(made):
  with Server(0) as server:
    thread = threading.Thread(target=server.serve, args=(made,))
    thread.start()
    yield server.address
    server.stop()
    thread.join()


def ask(address, request=None, **headers):
  """(status, media type, answer) of a GET, or of a POST of JSON."""
  body = None if request is None else json.dumps(request).encode() if not isinstance(request, bytes) else request
  usual = {"Content-Type": "application/json"} if body else {}
  call = urllib.request.Request(address, body, {**usual, **headers})
  try:
    with urllib.request.urlopen(call, timeout=60) as answer:
      status, kind, data = answer.status, answer.headers["Content-Type"], answer.read()
  except urllib.error.HTTPError as error:
    status, kind, data = error.code, error.headers["Content-Type"], error.read()
  return status, kind, json.loads(data) if kind == "application/json" else data


def test_the_page_is_served_with_all_that_it_needs(served):
  for path, kind in (("", "text/html"), ("page.css", "text/css"), ("page.js", "text/javascript")):
    status, found, data = ask(served + path)
    assert status == 200 and found.startswith(kind) and b"http://" not in data and b"https://" not in data
  status, _, about = ask(f"{served}about")
  assert (
    status == 200 and about["words"] and about["classifies"] and about["searched"] == "40 images and 40 captions of toy"
  )
  assert [kind["name"] for kind in about["kinds"]] == ["image", "text"] and ".png" in about["suffixes"]


def test_a_picture_finds_itself_and_is_shown(served, made):
  _, _, answer = ask(f"{served}search", {"file": picture(17), "name": "mine.png", "count": 3})
  first = answer["results"][0]
  assert answer["kind"] == "image" and len(answer["results"]) == 3 and first["name"] == "toy-17"
  assert first["score"] == pytest.approx(1, abs=1e-4) and first["text"] == "number 17" and first["sound"] == ""
  assert set(answer["milliseconds"]) == {"reading", "encoding", "searching"}
  status, kind, data = ask(served + first["shown"])
  assert (status, kind) == (200, "image/png") and np.asarray(Image.open(io.BytesIO(data)))[0, 0].tolist() == [17, 0, 0]


def test_words_and_a_picture_are_mixed_by_the_share_of_the_picture(made):
  by = {mix: made.search({"text": "number 3", "file": picture(17), "name": "a.png", "mix": mix, "count": 40})["results"]
        for mix in (0, 0.5, 1)}  # fmt: skip
  scores = {mix: {one["shown"]: one["score"] for one in found} for mix, found in by.items()}
  words = {one["shown"]: one["score"] for one in made.search({"text": "number 3", "count": 40})["results"]}
  assert scores[0] == words and scores[1] == {
    one["shown"]: one["score"] for one in made.search({"file": picture(17), "count": 40})["results"]
  }
  # The mean of two unit vectors, to unit length: its cosines are the sums of theirs, all divided by one number.
  both, mixed = (np.array(one) for one in zip(*((scores[0][key] + scores[1][key], scores[0.5][key]) for key in words)))
  np.testing.assert_allclose(both, mixed * (both @ mixed) / (mixed @ mixed), atol=1e-3)
  texts = made.search({"file": picture(3), "kind": "text", "count": 1})["results"]
  assert texts[0]["shown"] == "" and texts[0]["text"]


def test_classes_of_ones_choice(served, made):
  request = {"file": picture(17), "classes": ["a", " four ", "", "sixteen letters."], "template": "an {}"}
  _, _, answer = ask(f"{served}classify", request)
  found = {one["name"]: one["probability"] for one in answer["classes"]}
  expected = MODELS["run"].classify([base64.b64decode(picture(17))], ["a", "four", "sixteen letters."], ["an {}"], 0.01)
  np.testing.assert_allclose([found[name] for name in ("a", "four", "sixteen letters.")], expected[0], atol=1e-4)
  assert list(found.values()) == sorted(found.values(), reverse=True)


@pytest.mark.parametrize(
  ("path", "request_", "message"),
  [
    ("search", {"text": " "}, "type some words, or choose a file"),
    ("search", {"file": base64.b64encode(b"no picture").decode(), "name": "notes.png"}, r"notes\.png: .*; give"),
    ("search", {"file": "", "name": "empty.png"}, r"empty\.png: "),
    ("search", {"file": "%%", "name": "a.png"}, r"a\.png: did not arrive whole"),
    ("search", {"text": "a", "kind": "audio"}, "no audio things here; find image or text"),
    ("search", {"text": "a", "count": "many"}, "count: 'many' is no number"),
    ("search", {"file": "QQ==", "name": "a.wav"}, r"a\.wav: "),
    ("classify", {"classes": ["a", "b"]}, "choose a file to classify"),
    ("classify", {"file": picture(1), "classes": ["a"]}, "two classes or more"),
    ("classify", {"file": picture(1), "classes": ["a", "b"], "template": "x"}, "must hold '{}' once"),
    ("picture/image/40", None, "there is no image 40"),
    ("picture/text/0", None, "has no picture"),
    ("sound/image/0", None, "cannot be heard"),
    ("search", b"[1]", "no JSON table"),
    ("search", b"{", "no JSON table"),
  ],
)  # fmt: skip
def test_what_is_wrong_is_a_message_for_the_page(served, path, request_, message):
  status, kind, answer = ask(served + path, request_)
  assert status == 400 and kind == "application/json" and "\n" not in answer["error"]
  assert re.search(message, answer["error"])
  assert ask(f"{served}about")[0] == 200  # it goes on


def test_only_pages_of_this_machine_are_answered(served):
  for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
    status, _, answer = ask(f"{served}search", {"text": "a"}, **headers)
    assert status == 403 and "on this machine" in answer["error"]
  assert ask(f"{served}search", {"text": "a"}, **{"Content-Type": "text/plain"})[0] == 400
  assert ask(f"{served}search", {"text": "a"}, Origin=served.rstrip("/"))[0] == 200
  assert ask(f"{served}nothing")[0] == 404 and ask(f"{served}../setup.py")[0] == 404


def test_embeddings_of_the_run(tmp_path, made):
  program.embed("run", "toy", tmp_path / "rows")
  there = answers.opened("run", embeddings=tmp_path / "rows")
  request = {"file": picture(17), "name": "a.png", "count": 5}
  assert there.search(request)["results"] == made.search(request)["results"]
  assert there.picture("image", 7)[1] == made.picture("image", 7)[1]
  with pytest.raises(UserError, match="there is no image 40"):
    there.picture("image", 40)
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(MODELS, "other", tiny_inference(step=5, seed=1))
    with pytest.raises(UserError, match="made by another model"):
      answers.opened("other", embeddings=tmp_path / "rows")
  empty = Embeddings(tmp_path / "rows")
  for shard in list(empty.done):
    empty.forget(shard)
  assert OfFolder(empty).counts == {}
  with pytest.raises(UserError, match=r"holds nothing to search; .*mmcontrast embed to its end"):
    answers.opened("run", embeddings=tmp_path / "rows")


def test_what_can_be_seen_is_offered_first(made, monkeypatch):
  monkeypatch.setattr(made._gallery, "counts", {"text": 2, "graph": 3})
  assert [one["name"] for one in made.about()["kinds"]] == ["graph", "text"]


def test_a_run_without_a_text_tower(monkeypatch):
  alone = tiny_inference(step=5, text="")
  model = type(alone.model)(
    {"image": alone.model.towers["image"]}, {"pictures": alone.model.heads["pictures"]}, {"pictures": "image"},
    {"image": "image"},
  )  # fmt: skip
  monkeypatch.setitem(MODELS, "alone", type(alone)(alone.config, model, alone.variables, None, 5))
  made = answers.opened("alone", "toy")
  made.warm_up()
  about = made.about()
  assert not about["words"] and not about["classifies"] and [one["name"] for one in about["kinds"]] == ["image"]
  assert made.search({"file": picture(3), "count": 1})["results"][0]["name"] == "toy-3"
  with pytest.raises(UserError, match="this run has no text tower; search by an image"):
    made.search({"text": "a heart"})
  with pytest.raises(UserError, match="no text tower whose head names classes"):
    made.classify({"file": picture(3), "classes": ["a", "b"]})


def test_two_demos_on_one_port(capsys):
  with Server(0) as server:
    port = server.address.rsplit(":", 1)[1].strip("/")
    assert main(["demo", "toy", "--workdir", "run", "--port", port]) == 2
    out, err = capsys.readouterr()
    assert err.startswith(f"error: --port {port}: is in use, by another demo perhaps; give another") and not out
    assert len(err.splitlines()) == 1
  with pytest.raises(UserError, match="--port 70000: ports are numbers from 1 to 65535"):
    Server(70000)


def test_an_interrupted_demo_ends_and_frees_its_port(monkeypatch, capsys, made):
  def interrupted(self, demo):
    assert isinstance(demo, Demo)
    raise KeyboardInterrupt

  monkeypatch.setattr(room, "opened", lambda *arguments, **options: made)
  monkeypatch.setattr(Server, "serve", interrupted)
  demo("run", port=0)
  address = capsys.readouterr().out.split()[0]
  assert address.startswith("http://127.0.0.1:")
  with Server(int(address.rsplit(":", 1)[1].strip("/"))):
    pass


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"source": "toy", "dataset": "x"}, "one thing is searched at a time; leave out --dataset"),
    ({"split": "val"}, "--split is an option of a source; name one: mmcontrast demo SOURCE"),
    ({"source": "empty toy"}, "empty toy: holds nothing to search"),
    ({"embeddings": "/nowhere"}, "no embeddings there; make them"),
  ],
)
def test_a_mistake_is_one_line(options, message):
  with pytest.raises(UserError, match=message) as caught:
    answers.opened("run", **options)
  assert "\n" not in str(caught.value)
