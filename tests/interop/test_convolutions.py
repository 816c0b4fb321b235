"""Convolutional encoders of torchvision and timm, read and written.

tests/golden/make_interop_convolutions.py made the models and what they give.
"""

import json
import pickle
import pickletools

import jax
import numpy as np
import pytest
from models import GOLDEN, variables

from mmcontrast.encoders import build_encoder
from mmcontrast.errors import UserError
from mmcontrast.interop import convnext, detectron2, resnet, timm, torchvision
from mmcontrast.interop.naming import to_ours, to_theirs, under
from mmcontrast.interop.pretrained import ImageInput, Pretrained, complete, shapes
from mmcontrast.interop.run import export_run, import_run
from mmcontrast.interop.weights import read_weights, write_weights
from mmcontrast.runs.checkpoint import load_run

INPUT = ImageInput(64, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3), "shortest", "bicubic", 0.9)
NARROW = {"name": "resnet50", "stages": (2, 1, 1, 1), "width": 2, "stem_width": 64}


def golden(case):
  return dict(np.load(GOLDEN / case / "outputs.npz"))


def encode(tower, arrays, images):
  module = build_encoder(tower)
  own = {collection: tree["towers"]["image"] for collection, tree in variables(arrays).items() if tree["towers"]}
  return jax.jit(lambda own, images: module.apply(own, images, train=False))(own, images)


def drawn(tower, image=INPUT):
  """A model of that tower whose every array is another."""
  rng = np.random.default_rng(0)
  made = shapes({"image": tower}, {}, image)
  return Pretrained(
    {"image": complete(tower)},
    {},
    {path: rng.standard_normal(shape, np.float32) for path, shape in made.items()},
    image,
  )


@pytest.mark.parametrize("case", ["timm_resnet", "timm_convnext"])
def test_timm_gives_the_same_outputs(case):
  found, want = timm.read(str(GOLDEN / case)), golden(case)
  assert found.image == INPUT and not found.heads
  got = encode(found.towers["image"], found.arrays, want["images"])
  np.testing.assert_allclose(got.tokens, want["tokens"], atol=1e-4)
  np.testing.assert_allclose(got.pooled, want["pooled"], atol=1e-4)


@pytest.mark.parametrize("case", ["timm_resnet", "timm_convnext"])
def test_timm_in_and_out_is_bit_equal(case, tmp_path):
  timm.write(timm.read(str(GOLDEN / case)), tmp_path / "out")
  theirs, ours = (read_weights(folder / "model.safetensors") for folder in (GOLDEN / case, tmp_path / "out"))
  left_out = {name for name in theirs if name.startswith(("fc.", "head.fc.")) or name.endswith("num_batches_tracked")}
  assert ours.keys() == theirs.keys() - left_out
  assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
  args, again = (
    json.loads((folder / "config.json").read_text())["model_args"] for folder in (GOLDEN / case, tmp_path / "out")
  )
  assert {key: args[key] for key in again} == again and again
  assert timm.read(str(tmp_path / "out")).image == INPUT


def test_a_run_of_a_tower_alone_is_imported_and_exported_as_it_was(tmp_path):
  run = import_run(f"timm:{GOLDEN / 'timm_resnet'}", tmp_path / "run")
  out = export_run(run, "timm", tmp_path / "out")
  config, variables, _ = load_run(run)
  assert config["normalize"] == {"mean": INPUT.mean, "std": INPUT.std}
  assert config["towers"]["image"]["stem_width"] == 64 and "var" in variables["batch_stats"]["towers"]["image"]["bn1"]
  timm.write(timm.read(str(GOLDEN / "timm_resnet")), tmp_path / "direct")
  for name in ("config.json", "model.safetensors"):
    assert (out / name).read_bytes() == (tmp_path / "direct" / name).read_bytes()
  with pytest.raises(UserError, match=r"not detectron2's resnet50: config\.towers\.image\.stages is \(2, 1"):
    export_run(run, "detectron2", tmp_path / "pkl")


def test_torchvisions_names_give_the_same_outputs():
  want, file = golden("torchvision_resnet"), GOLDEN / "torchvision_resnet" / "model.safetensors"
  theirs = read_weights(file)
  rules = under(resnet.TORCHVISION, "", "towers/image")
  arrays = to_ours(rules, theirs, shapes({"image": NARROW}, {}, INPUT), str(file), resnet.CLASSIFIER)
  np.testing.assert_allclose(encode(NARROW, arrays, want["images"]).pooled, want["pooled"], atol=1e-4)
  back = to_theirs(rules, arrays, "out")
  assert back.keys() == {name for name in theirs if not name.endswith("num_batches_tracked")}
  assert all(np.array_equal(back[name], theirs[name]) for name in back)


def test_torchvisions_file_is_read_and_written_by_the_name_of_its_architecture(tmp_path):
  model = drawn({"name": "resnet18"}, resnet.INPUT)
  torchvision.write(model, tmp_path / "out")
  found = torchvision.read(f"resnet18@{tmp_path / 'out' / 'resnet18.safetensors'}")
  assert found.towers == model.towers and found.image == resnet.INPUT
  assert all(np.array_equal(found.arrays[path], array) for path, array in model.arrays.items())
  with pytest.raises(UserError, match=r"resnet18\.safetensors: no array .layer1\.0\.bn3"):
    torchvision.read(f"resnet50@{tmp_path / 'out' / 'resnet18.safetensors'}")
  with pytest.raises(UserError, match="give ARCHITECTURE@FILE"):
    torchvision.read("resnet18.pth")
  with pytest.raises(UserError, match="did you mean 'resnet50'"):
    torchvision.read("resnet5@resnet50.safetensors")


def test_detectron2_has_its_names_shapes_and_config(tmp_path):
  """The list of names is that of detectron2's build_resnet_backbone with NORM "FrozenBN" or "BN", and DEPTH 50."""
  made = shapes({"image": {"name": "resnet50"}}, {}, resnet.INPUT)
  model = Pretrained(
    {"image": {"name": "resnet50"}},
    {},
    {path: np.zeros(shape, np.float32) for path, shape in made.items()},
    resnet.INPUT,
  )
  detectron2.write(model, tmp_path / "out")
  content = (tmp_path / "out" / "resnet50.pkl").read_bytes()
  asked = {text for code, text, _ in pickletools.genops(content) if code.name == "SHORT_BINUNICODE"}
  assert "ndarray" in asked and not any("_core" in text or "multiarray" in text for text in asked)
  table = pickle.loads(content)
  assert table["__author__"] == "mmcontrast" and table["matching_heuristics"] is True
  want = json.loads((GOLDEN.parent / "detectron2_resnet50.json").read_text())
  assert {name: list(array.shape) for name, array in table["model"].items()} == want
  assert all(array.dtype == np.float32 and array.flags.writeable for array in table["model"].values())
  text = (tmp_path / "out" / "backbone.yaml").read_text()
  for line in (
    "PIXEL_MEAN: [123.675, 116.28, 103.53]",
    "PIXEL_STD: [58.395, 57.12, 57.375]",
    "DEPTH: 50",
    "STRIDE_IN_1X1: False",
    "RES2_OUT_CHANNELS: 256",
    'FORMAT: "RGB"',
  ):
    assert f"  {line}\n" in text


def test_detectron2_has_the_values_that_went_in(tmp_path):
  model = drawn({"name": "resnet18"}, resnet.INPUT)
  detectron2.write(model, tmp_path / "out")
  table = pickle.loads((tmp_path / "out" / "resnet18.pkl").read_bytes())["model"]
  for theirs, ours in {
    "res3.0.shortcut.norm.running_var": "batch_stats/towers/image/layer2_0/downsample_1/var",
    "stem.conv1.norm.weight": "params/towers/image/bn1/scale",
  }.items():
    np.testing.assert_array_equal(table[theirs], model.arrays[ours])
  kernel = model.arrays["params/towers/image/layer4_1/conv2/kernel"]
  np.testing.assert_array_equal(table["res5.1.conv2.weight"], kernel.transpose(3, 2, 0, 1))
  assert "RES2_OUT_CHANNELS: 64\n" in (tmp_path / "out" / "backbone.yaml").read_text()


@pytest.mark.parametrize("change, message", [
  ({"act_layer": "gelu"}, "act_layer='gelu' is not supported, only act_layer='relu'"),
  ({"global_pool": "max"}, "global_pool='max' is not supported"),
  ({"output_stride": 16}, "output_stride=16 is not supported"),
  ({"stem_type": "deep"}, "model_args: no such choice 'stem_type'"),
  ({"channels": [2, 4, 8, 8]}, "not four stages, each of twice the channels"),
  ({"channels": [4, 8, 16, 32]}, r"shape.*another architecture"),
  ({"layers": [2, 1, 1, 2]}, r"no array 'layer4\.1\."),
], ids=str)  # fmt: skip
def test_what_timms_config_says_and_is_not_computed_here_is_an_error(change, message, tmp_path):
  config = json.loads((GOLDEN / "timm_resnet" / "config.json").read_text())
  config["model_args"] |= change
  config["global_pool"] = config["model_args"]["global_pool"]
  (tmp_path / "config.json").write_text(json.dumps(config))
  (tmp_path / "model.safetensors").write_bytes((GOLDEN / "timm_resnet" / "model.safetensors").read_bytes())
  with pytest.raises(UserError, match=message) as error:
    timm.read(str(tmp_path))
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("part, value, message", [
  ("architecture", "resnetv2_50", "'resnetv2_50' is not supported; did you mean 'resnet'"),
  ("architecture", "efficientnet_b0", "'efficientnet_b0' is not supported"),
  ("architecture", "resnet18", r"shape.*another architecture|no array|not used"),
  ("pretrained_cfg", {"interpolation": "nearest"}, "pretrained_cfg.interpolation: no such choice 'nearest'"),
  ("pretrained_cfg", {"input_size": [3, 64, 32]}, "only squares of 3 channels"),
], ids=str)  # fmt: skip
def test_another_architecture_or_input_of_timm_is_an_error(part, value, message, tmp_path):
  config = json.loads((GOLDEN / "timm_resnet" / "config.json").read_text()) | {part: value}
  (tmp_path / "config.json").write_text(json.dumps(config))
  (tmp_path / "model.safetensors").write_bytes((GOLDEN / "timm_resnet" / "model.safetensors").read_bytes())
  with pytest.raises(UserError, match=message):
    timm.read(str(tmp_path))


def test_a_convnext_of_other_blocks_is_an_error():
  for args, message in (
    ({"conv_mlp": True}, "conv_mlp=True"),
    ({"use_grn": True}, "use_grn=True"),
    ({"head_hidden_size": 8}, "head_hidden_size=8"),
    ({"act_layer": "relu"}, "act_layer"),
  ):
    with pytest.raises(UserError, match=message):
      convnext.from_timm("convnext_tiny", args, "config.json")


@pytest.mark.parametrize("write", [timm.write, torchvision.write, detectron2.write])
@pytest.mark.parametrize("tower, message", [
  ({"name": "resnet18", "stem": "small", "width": 64}, "stem is 'small', and 'imagenet' is needed"),
  ({"name": "resnet18", "bn_epsilon": 1e-3}, "bn_epsilon is 0.001, and 1e-05 is needed"),
  ({"name": "clip_resnet50", "width": 8}, "no such choice 'clip|'clip_resnet50' is not"),
], ids=str)  # fmt: skip
def test_a_tower_that_the_format_has_no_words_for_is_an_error_and_writes_nothing(write, tower, message, tmp_path):
  model = Pretrained({"image": tower}, {}, {}, INPUT)
  with pytest.raises(UserError, match=message):
    write(model, tmp_path / "out")
  assert not (tmp_path / "out").exists()


def test_a_truncated_file_is_an_error(tmp_path):
  content = (GOLDEN / "torchvision_resnet" / "model.safetensors").read_bytes()
  (tmp_path / "cut.safetensors").write_bytes(content[: len(content) // 2])
  with pytest.raises(UserError, match=r"cut\.safetensors: damaged"):
    torchvision.read(f"resnet50@{tmp_path / 'cut.safetensors'}")


def test_a_missing_statistic_is_an_error_that_names_it(tmp_path):
  arrays = read_weights(GOLDEN / "timm_resnet" / "model.safetensors")
  del arrays["layer3.0.bn2.running_mean"]
  write_weights(tmp_path / "model.safetensors", arrays)
  (tmp_path / "config.json").write_text((GOLDEN / "timm_resnet" / "config.json").read_text())
  with pytest.raises(UserError, match=r"no array 'layer3\.0\.bn2\.running_mean'"):
    timm.read(str(tmp_path))
