"""mmcontrast import and export, and config.init from another package's file."""

import functools
import json
import shutil

import jax
import numpy as np
import pytest
from models import GOLDEN, assert_same_file, outputs
from PIL import Image
from tiny import tiny_config

import mmcontrast
from mmcontrast.cli import main
from mmcontrast.encoders.layers import stack_layers
from mmcontrast.errors import UserError
from mmcontrast.interop import formats, initial, open_clip, vit
from mmcontrast.interop.pretrained import variables
from mmcontrast.interop.run import export_run, import_run, pretrained_of
from mmcontrast.modalities.views import Inputs
from mmcontrast.models.model import build_model
from mmcontrast.runs.checkpoint import load_run, save_untrained
from mmcontrast.training.initialization import initial_arrays

read = functools.cache(formats.read)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
  """A folder of open_clip with a tokenizer: the tiny CLIP, its texts ended by id 1."""
  folder = tmp_path_factory.mktemp("clip")
  shutil.copytree(GOLDEN / "open_clip_clip", folder, dirs_exist_ok=True)
  shutil.copy(GOLDEN / "open_clip_siglip" / "tokenizer.json", folder)
  config = json.loads((folder / open_clip.CONFIG).read_text())
  config["model_cfg"]["text_cfg"] |= {"pool_type": "eos", "eos_id": 1, "hf_tokenizer_name": "somewhere"}
  config["preprocess_cfg"] = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3], "resize_mode": "squash"}
  (folder / open_clip.CONFIG).write_text(json.dumps(config))
  return folder


@pytest.fixture(scope="module")
def workdir(clip, tmp_path_factory):
  """The run that `mmcontrast import` makes of it."""
  folder = tmp_path_factory.mktemp("runs") / "imported"
  assert main(["import", f"open_clip:{clip}", "--workdir", str(folder)]) == 0
  return folder


def test_an_imported_run_is_loaded_as_any_other(clip, workdir, tmp_path):
  model, pretrained = mmcontrast.load(workdir), read(f"open_clip:{clip}")
  images = np.random.default_rng(0).integers(0, 255, (2, 16, 16, 3), np.uint8)
  texts = ["a red heart", "two dogs"]
  ids = model.tokenizer.encode(texts, 8)
  assert ids[0].tolist() == [3, 4, 5, 1, 0, 0, 0, 0]
  given = (images / 255 - np.array([0.4, 0.5, 0.6])) / np.array([0.2, 0.25, 0.3])
  theirs = outputs(pretrained, given.astype(np.float32), ids)
  for rows, name in ((model.encode_image(images), "image"), (model.encode_text(texts), "text")):
    np.testing.assert_allclose(rows, theirs[name] / np.linalg.norm(theirs[name], axis=1, keepdims=True), atol=1e-5)
  Image.fromarray(images[0]).resize((40, 20)).save(tmp_path / "wide.png")
  assert model.view(tmp_path / "wide.png").shape == (16, 16, 3) and model.data["resize"]["mode"] == "squash"


def test_an_imported_run_is_evaluated_and_searched_on_a_source(workdir, tmp_path, capsys):
  for number, name in enumerate(("a red heart", "two dogs", "a red heart")):
    (tmp_path / "d" / name).mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 255, (16, 16, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "d" / name / f"{number}.png")
  assert (
    main(
      [
        "evaluate",
        f"folder:{tmp_path}/d",
        "--workdir",
        str(workdir),
        "--config.evaluation.evaluators.zero_shot.templates=('{}',)",
      ]
    )
    == 0
  )
  results = json.loads((workdir / "evaluation-d.json").read_text())
  model = mmcontrast.load(workdir)
  rows = model.encode_image(
    [tmp_path / "d" / name for name in ("a red heart/0.png", "a red heart/2.png", "two dogs/1.png")]
  )
  guesses = (rows @ model.encode_text(["a red heart", "two dogs"]).T).argmax(1)
  assert results.pop("protocols")["d/zero_shot"]["protocol"] == "ours"
  assert results == {"d/zero_shot/class_top1": pytest.approx(np.mean(guesses == [0, 0, 1]))}
  assert main(["evaluate", "--workdir", str(workdir)]) == 2
  assert "config.evaluation.sets is empty, there is nothing to measure" in capsys.readouterr().err
  query = str(tmp_path / "d" / "two dogs" / "1.png")
  assert main(["search", query, f"folder:{tmp_path}/d", "--workdir", str(workdir), "--count", "1"]) == 0
  assert capsys.readouterr().out == f"1.000  {query}\n"
  assert main(["search", query, "--workdir", str(workdir), "--count", "1"]) == 2
  assert "mmcontrast search QUERY folder:/pictures" in capsys.readouterr().err


def test_the_architecture_travels_whole(workdir, monkeypatch):
  """A default that changes later changes nothing in a checkpoint."""
  from mmcontrast.encoders import vit

  config = load_run(workdir)[0]
  image = config["towers"]["image"]
  assert (image["activation"], image["norm_epsilon"], image["registers"]) == ("gelu", 1e-5, 0)
  monkeypatch.setattr(vit.ViT, "registers", 4)
  assert load_run(workdir)[0] == config


def test_what_was_imported_is_exported_bit_for_bit(clip, workdir, tmp_path):
  out = tmp_path / "out"
  assert main(["export", "--workdir", str(workdir), "--to", "open_clip", "--out", str(out)]) == 0
  assert_same_file(clip / open_clip.WEIGHTS, out / open_clip.WEIGHTS)
  before, after = read(f"open_clip:{clip}"), formats.read(f"open_clip:{out}")
  assert (after.towers, after.heads, after.image) == (before.towers, before.heads, before.image)
  assert after.text.token_ids == before.text.token_ids and after.logit_scale == before.logit_scale


@pytest.mark.parametrize("case", ["clip", "siglip"])
def test_from_one_package_to_the_other_and_back(case, clip, tmp_path, monkeypatch):
  monkeypatch.setitem(vit.SIZES, "tiny", (16, 2, 2, 4.0))
  monkeypatch.setattr(vit, "NAMES", (*vit.NAMES, "vit_tiny_patch8_siglip_16"))
  given = read(f"open_clip:{clip if case == 'clip' else GOLDEN / 'open_clip_siglip'}")
  formats.FORMATS["hf"].write(given, tmp_path / "hf")
  found = formats.read(f"hf:{tmp_path / 'hf'}")
  formats.FORMATS["open_clip"].write(found, tmp_path / "back")
  back = formats.read(f"open_clip:{tmp_path / 'back'}")
  for one in (found, back):
    assert (one.image, one.logit_scale, one.logit_bias) == (given.image, given.logit_scale, given.logit_bias)
    assert one.arrays.keys() == given.arrays.keys() and one.text.token_ids == given.text.token_ids
    assert all(np.array_equal(one.arrays[path], given.arrays[path]) for path in given.arrays)


def test_what_open_clip_cannot_express_is_named_and_nothing_is_left(workdir, tmp_path, monkeypatch):
  from mmcontrast.interop import run

  found = pretrained_of(workdir)
  found.towers["text"]["pool"] = "mean"
  monkeypatch.setattr(run, "pretrained_of", lambda *_: found)
  message = r"/out: not in open_clip: config\.towers\.text\.pool is 'mean', and 'eos' is needed"
  with pytest.raises(UserError, match=message):
    export_run(workdir, "open_clip", tmp_path / "out")
  with pytest.raises(UserError, match=r"/out: .*'vit'"):
    export_run(workdir, "torchvision", tmp_path / "out")
  assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_is_left_alone(clip, workdir, tmp_path, capsys):
  (tmp_path / "mine").write_text("x")
  assert main(["import", f"open_clip:{clip}", "--workdir", str(tmp_path)]) == 2
  assert main(["export", "--workdir", str(workdir), "--to", "open_clip", "--out", str(tmp_path)]) == 2
  assert capsys.readouterr().err.count("is not empty") == 2 and [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(
  "place, message",
  [
    ("open_clop:x", "no such choice 'open_clop'; did you mean 'open_clip'"),
    ("open_clip:", "not KIND:PATH"),
    ("open_clip:/nowhere", "open_clip:/nowhere: no such file or folder; nothing is downloaded"),
    ("hf:openai/clip-vit-base-patch32", "nothing is downloaded: fetch it first"),
  ],
)
def test_a_wrong_place_is_an_error(place, message, tmp_path):
  with pytest.raises(UserError, match=message):
    import_run(place, tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_without_a_tokenizer_there_is_no_run(clip, tmp_path):
  shutil.copytree(clip, tmp_path / "clip")
  (tmp_path / "clip" / "tokenizer.json").unlink()
  with pytest.raises(UserError, match="no tokenizer in the folder of the weights"):
    import_run(f"open_clip:{tmp_path / 'clip'}", tmp_path / "run")


@pytest.fixture
def read_once(monkeypatch):
  """config.init reads a file that has been read before."""
  monkeypatch.setattr(initial, "read", read)


def test_clips_tokenizer_is_looked_for_beside_the_weights(tmp_path, monkeypatch):
  monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # no open_clip
  shutil.copytree(GOLDEN / "open_clip_clip", tmp_path / "clip")
  with pytest.raises(
    UserError,
    match=r"no open_clip is installed; .*; or put that file into the folder of the "
    r"weights",
  ):
    import_run(f"open_clip:{tmp_path}/clip", tmp_path / "run")
  (tmp_path / "clip" / "bpe_simple_vocab_16e6.txt.gz").write_bytes(b"x")
  with pytest.raises(UserError, match=r"clip/bpe_simple_vocab_16e6\.txt\.gz: not a gzip file"):
    import_run(f"open_clip:{tmp_path}/clip", tmp_path / "run")


def own_config(clip, **changes):
  """A run of ours whose towers are those of the file, and that starts from them."""
  pretrained = read(f"open_clip:{clip}")
  image = {
    key: pretrained.towers["image"][key]
    for key in (
      "name",
      "width",
      "depth",
      "heads",
      "patch",
      "patch_bias",
      "pre_norm",
      "pool",
      "activation",
      "norm_epsilon",
    )
  }
  text = {
    key: pretrained.towers["text"][key] for key in ("name", "width", "depth", "heads", "causal", "pool", "activation")
  }
  config = tiny_config(
    towers=dict(image=image, text=text),
    normalize=dict(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3)),
    heads=dict(image_joint=dict(tower="image", name="linear", dim=12), words=dict(tower="text", name="linear", dim=12)),
    objective=dict(
      pairs=dict(query="image[0]/image_joint", key="text[0]/words", temperature=dict(init=0.1, learned=True))
    ),
    init={
      "towers/image": f"open_clip:{clip}",
      "towers/text": f"open_clip:{clip}:towers/text",
      "heads/words": f"open_clip:{clip}:heads/text_joint",
      "terms/pairs": f"open_clip:{clip}",
    },
  )
  config["data"] |= dict(text_length=8, image_size=16, token_ids=dict(pad=0, bos=-1, eos=1))
  for key, value in changes.items():
    *holders, last = key.split("__")
    section = config
    for name in holders:
      section = section[name]
    section[last] = value
  return config


def test_a_run_of_ours_is_exported_under_their_names(clip, tmp_path):
  """Heads and towers of other names, layers in a loop: the file is that of the model it has the weights of."""
  given, config = read(f"open_clip:{clip}"), own_config(clip)
  config["towers"]["photo"] = {**config["towers"].pop("image"), "modality": "image", "scan": True}
  config["heads"]["image_joint"]["tower"] = "photo"
  config["evaluation"] |= dict(image="image_joint", text="words")
  config["data"] |= dict(tokenizer=given.text.tokenizer, lower=False)
  names = {"towers/image": "towers/photo", "heads/text_joint": "heads/words"}
  arrays = {}
  for path, array in given.arrays.items():
    for theirs, own in names.items():
      path = path.replace(f"params/{theirs}/", f"params/{own}/")
    arrays[path] = array
  image = stack_layers({path: array for path, array in arrays.items() if "/photo/" in path})
  arrays = {path: array for path, array in arrays.items() if "/photo/" not in path} | image
  save_untrained(tmp_path / "run", config, variables({**arrays, "params/terms/pairs/log_scale": np.float32(2.125)}))
  export_run(tmp_path / "run", "open_clip", tmp_path / "out")
  assert "params/towers/photo/blocks/norm1/bias" in arrays
  assert_same_file(clip / open_clip.WEIGHTS, tmp_path / "out" / open_clip.WEIGHTS)


@pytest.mark.parametrize("place", ["timm:{}/timm_vit_clip", "hf:{}/hf_dinov2"])
def test_an_image_tower_alone_is_a_run_too(place, tmp_path):
  place = place.format(GOLDEN)
  import_run(place, tmp_path / "run")
  found, given = pretrained_of(tmp_path / "run"), formats.read(place)
  assert found.towers == given.towers and found.image == given.image and not found.heads and found.text is None
  assert found.arrays.keys() == given.arrays.keys()
  model = mmcontrast.load(tmp_path / "run")
  assert model.kinds == ("image_features",) and model.data["image_size"] == given.image.size


@functools.cache
def shapes_of(clip, size=16):
  """The shapes of the run of `own_config`, for images of that size."""
  config = own_config(clip)
  ids = (jax.ShapeDtypeStruct((1, 8), dtype) for dtype in ("int32", "bool"))
  views = {"image": Inputs(jax.ShapeDtypeStruct((1, size, size, 3), "float32")), "text": Inputs(*ids)}
  found = dict(jax.eval_shape(build_model(config, 40).init, jax.random.key(0), views))
  found["params"] = {**found["params"], "terms": {"pairs": {"log_scale": jax.ShapeDtypeStruct((), "float32")}}}
  return found


def test_a_run_starts_from_the_file(clip, read_once):
  found, theirs = initial_arrays(own_config(clip), shapes_of(clip), {}), read(f"open_clip:{clip}")
  assert np.array_equal(found["params/towers/image/norm/bias"], theirs.arrays["params/towers/image/norm/bias"])
  assert np.array_equal(found["params/heads/words/fc1/kernel"], theirs.arrays["params/heads/text_joint/fc1/kernel"])
  assert found["params/terms/pairs/log_scale"] == np.float32(2.125)
  assert not any("image_joint" in name for name in found)  # it was not named


def test_positions_are_resized_to_another_image_size(clip, read_once):
  config = own_config(clip, data__image_size=32, init={"towers/image": f"open_clip:{clip}"})
  found, theirs = initial_arrays(config, shapes_of(clip, 32), {}), read(f"open_clip:{clip}")
  position, before = (one["params/towers/image/pos_embed"] for one in (found, theirs.arrays))
  assert before.shape == (1, 1 + 2 * 2, 16) and position.shape == (1, 1 + 4 * 4, 16)
  assert np.array_equal(position[:, 0], before[:, 0])
  np.testing.assert_allclose(position[:, 1:].mean(1), before[:, 1:].mean(1), atol=0.05)


@pytest.mark.parametrize(
  "change, message",
  [
    (dict(towers__image__activation="quick_gelu"), r"towers\.image\.activation is 'quick_gelu', and 'gelu' is needed"),
    (dict(towers__image__pool="gap"), r"towers\.image\.pool is 'gap', and 'cls' is needed"),
    (dict(towers__image__pre_norm=False), r"towers\.image\.pre_norm is False, and True is needed"),
    (dict(towers__image__norm_epsilon=1e-6), r"towers\.image\.norm_epsilon is 1e-06, and 1e-05 is needed"),
    (dict(towers__image__heads=4), r"towers\.image\.heads is 4, and 2 is needed"),
    (dict(towers__text__causal=False), r"towers\.text\.causal is False, and True is needed"),
    (dict(towers__text__pool="mean", init={}), None),
    (
      dict(heads__words=dict(tower="text", name="linear", dim=12, bias=True)),
      r"heads\.words\.bias is True, and False is needed",
    ),
    (
      dict(normalize=dict(mean=(0.5, 0.5, 0.5), std=(0.2, 0.25, 0.3))),
      r"config\.normalize\.mean is \(0\.5, 0\.5, 0\.5\), and \(0\.4, 0\.5, 0\.6\) is needed",
    ),
    (dict(data__token_ids=dict(pad=0, bos=3, eos=1)), r"config\.data\.token_ids is .* is needed"),
    (dict(init={"heads/words": "open_clip:{clip}"}), r"has heads: no such choice 'words'"),
    (dict(init={"towers/image": "open_clip:/nowhere"}), r"open_clip:/nowhere: no such file or folder"),
    (dict(init={"towers/image": "open_clop:/nowhere"}), r"nor a file of a known kind \(open_clip, hf"),
  ],
)
def test_what_would_compute_something_else_is_refused(clip, read_once, change, message):
  config, shapes = own_config(clip, **change), shapes_of(clip)
  config["init"] = {part: source.format(clip=clip) for part, source in config["init"].items()}
  if message is None:
    assert initial_arrays(config, shapes, {}) == {}
    return
  with pytest.raises(UserError, match=message) as error:
    initial_arrays(config, shapes, {})
  assert "\n" not in str(error.value) and str(error.value).startswith("config.init[")
