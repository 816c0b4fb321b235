"""transformers' models of videos and sounds (golden/make_interop_more_modalities.py): outputs, front ends, both ways
bit by bit, runs that start from them, and what is refused."""

import dataclasses
import functools
import json
import shutil

import jax
import ml_collections
import numpy as np
import pytest
from models import GOLDEN, assert_same_arrays, assert_same_file

from mmcontrast import load
from mmcontrast.config import base_config, load_config
from mmcontrast.encoders import build_encoder
from mmcontrast.encoders.video_prompts import VideoPrompts
from mmcontrast.errors import UserError
from mmcontrast.interop.formats import FORMATS, read
from mmcontrast.interop.initial import open_part
from mmcontrast.interop.possible import exports
from mmcontrast.interop.pretrained import model_config, variables
from mmcontrast.interop.run import export_run, import_run
from mmcontrast.modalities import MODALITIES
from mmcontrast.modalities.audio_log_mel import log_mel
from mmcontrast.modalities.real_tokens import real_tokens
from mmcontrast.modalities.views import Inputs
from mmcontrast.models.model import build_model

# What is left out of each: classifiers, decoders.
CASES = {
  "hf_videomae": "",
  "hf_videomae_norm": r"decoder\..*|encoder_to_decoder\..*|mask_token",
  "hf_videomae_classes": r"classifier\..*",
  "hf_ast": "",
  "hf_ast_classes": r"classifier\..*",
  "hf_whisper": r"decoder\..*",
  "hf_xclip": "",
}
PREFIXES = {
  "hf_videomae_norm": "videomae.",
  "hf_ast_classes": "audio_spectrogram_transformer.",
  "hf_whisper": "encoder.",
}
TOWERS = [case for case in CASES if case != "hf_xclip"]


@functools.cache
def read_golden(case):
  return read(f"hf:{GOLDEN / case}")


def kind_of(case):
  return "video" if "video" in case or "xclip" in case else "audio"


@pytest.mark.parametrize("case", TOWERS)
def test_outputs_are_theirs(case):
  found, given = read_golden(case), np.load(GOLDEN / case / "outputs.npz")
  kind = kind_of(case)
  assert set(found.towers) == {kind} and not found.heads
  tower, params = build_encoder(found.towers[kind]), variables(found.arrays)["params"]["towers"][kind]
  values = given["videos" if kind == "video" else "spectrograms"]
  made = jax.jit(lambda params, x: tower.apply({"params": params}, x, train=False))(params, values)
  tokens = np.asarray(made.tokens)
  if "ast" in case:  # theirs lie filters first
    tokens = tokens.reshape(len(tokens), *made.grid, -1).swapaxes(1, 2).reshape(tokens.shape)
  np.testing.assert_allclose(tokens, given["tokens"], atol=1e-4)
  np.testing.assert_allclose(made.pooled, given["pooled"], atol=1e-4)
  assert given["tokens"].std() > 0.3


@pytest.mark.parametrize("case", ["hf_ast", "hf_whisper"])
def test_spectrograms_are_their_extractors(case):
  audio, given = read_golden(case).audio, np.load(GOLDEN / case / "outputs.npz")
  waves = np.zeros((2, round(audio.rate * audio.seconds)), np.float32)
  lengths = np.array([min(given[f"wave{row}"].size, waves.shape[1]) for row in range(2)])
  for row, length in enumerate(lengths):
    waves[row, :length] = given[f"wave{row}"][:length]
  values, real = jax.jit(lambda *x: log_mel(audio.log_mel, audio.rate, *x))(waves, lengths)
  assert values.shape == given["spectrograms"].shape and np.asarray(real).all()
  np.testing.assert_allclose(values, given["spectrograms"], atol=1e-4)
  assert lengths[0] < lengths[1] and given["spectrograms"].std() > 0.2
  if case == "hf_ast":  # theirs is in float64; Whisper's in float32
    with jax.enable_x64(True):
      exact, _ = jax.jit(lambda *x: log_mel(audio.log_mel, audio.rate, *x))(waves.astype(np.float64), lengths)
    np.testing.assert_allclose(exact, given["spectrograms"], atol=1e-6)


def test_xclip_is_theirs():
  """Videos, texts, and texts with the prompts of each video."""
  found, given = read_golden("hf_xclip"), np.load(GOLDEN / "hf_xclip" / "outputs.npz")
  model = build_model(model_config(found.towers, found.heads, found.text))
  options = {key: value for key, value in found.modules["prompted"].items() if key != "name"}
  prompts = VideoPrompts(**options)

  @jax.jit
  def run(weights, videos, ids):
    seen = model.encode(weights, "video", Inputs(videos, None))[0]
    real = real_tokens(ids, found.text.token_ids["pad"], found.text.token_ids["eos"])
    words = model.encode(weights, "text", Inputs(ids, real))[0]
    video, patches, text = (
      model.project(weights, head, of)[0] for head, of in (("video_joint", seen), ("video_patches", seen),
                                                           ("text_joint", words))
    )  # fmt: skip
    each = np.ones((len(videos), 1, 1)) * text.pooled
    told = each + prompts.apply({"params": weights["params"]["terms"]["prompted"]["prompts"]}, each, patches.tokens)
    return video.pooled, text.pooled, told

  video, text, told = map(np.asarray, run(variables(found.arrays), given["videos"], given["ids"].astype(np.int32)))
  video, told = (rows / np.linalg.norm(rows, axis=-1, keepdims=True) for rows in (video, told))
  np.testing.assert_allclose(video, given["video"], atol=1e-4)
  np.testing.assert_allclose(text, given["text"], atol=1e-4)
  np.testing.assert_allclose(told, given["told"], atol=1e-4)
  logits = found.logit_scale * np.einsum("bd,bkd->bk", video, told)
  np.testing.assert_allclose(logits, given["logits"], atol=1e-4)
  assert np.abs(told[0] - told[1]).max() > 0.01 and given["logits"].std() > 0.1


@pytest.mark.parametrize("case", CASES)
def test_in_out_in_is_bit_equal(case, tmp_path):
  first = read_golden(case)
  FORMATS["hf"].write(first, tmp_path / "out")
  theirs, ours = (json.loads((folder / "config.json").read_text()) for folder in (GOLDEN / case, tmp_path / "out"))
  if case in ("hf_videomae_norm", "hf_ast_classes", "hf_whisper"):  # what is written is the encoder alone
    assert ours["architectures"] == [{"videomae": "VideoMAEModel", "whisper": "WhisperEncoder"}.get(
      ours["model_type"], "ASTModel")]  # fmt: skip
    theirs["architectures"] = ours["architectures"]
  sections = ("text_config", "vision_config")
  for one, other in [(theirs, ours), *((theirs[key], ours.pop(key)) for key in sections if key in ours)]:
    assert {key: one[key] for key in other if key not in ("id2label", "label2id", *sections)} == {
      key: value for key, value in other.items() if key not in ("id2label", "label2id", *sections)
    }
  file = tmp_path / "theirs.safetensors"
  renamed(GOLDEN / case / "model.safetensors", file, PREFIXES.get(case, ""))
  assert_same_file(file, tmp_path / "out" / "model.safetensors", CASES[case])
  again = read(f"hf:{tmp_path / 'out'}")
  assert_same_arrays(again, first)
  assert dataclasses.replace(again, arrays={}, source="", text=None) == dataclasses.replace(
    first, arrays={}, source="", text=None
  )


def renamed(file, to, prefix):
  from safetensors.numpy import load_file, save_file

  save_file({name.removeprefix(prefix): array for name, array in load_file(file).items()}, to)


@pytest.mark.parametrize("case", ["hf_videomae_classes", "hf_whisper", "hf_xclip"])
def test_a_run_and_back(case, tmp_path):
  import_run(f"hf:{GOLDEN / case}", tmp_path / "run")
  model, kind, random = load(tmp_path / "run"), kind_of(case), np.random.default_rng(0)
  things = [random.integers(0, 256, (6, 20, 24, 3), np.uint8)] if kind == "video" else [np.sin(np.arange(9_000.0))]
  assert np.isfinite(model.encode(kind, things)).all()
  export_run(tmp_path / "run", "hf", tmp_path / "out")
  theirs, ours = read_golden(case), read(f"hf:{tmp_path / 'out'}")
  assert_same_arrays(ours, theirs)
  assert (ours.towers, ours.heads, ours.frames, ours.audio) == (
    theirs.towers,
    theirs.heads,
    theirs.frames,
    theirs.audio,
  )
  if theirs.logit_scale:
    np.testing.assert_allclose(ours.logit_scale, theirs.logit_scale, rtol=1e-6)


def config_for(case, found):
  """A run of one's own with the tower of a file, under another name."""
  c, kind = base_config(), kind_of(case)
  c.data.views = {kind: 1}
  if kind == "video":
    c.normalize = dict(mean=found.image.mean, std=found.image.std)
    c.data.video.update(frames=found.frames, size=16)
  else:
    with c.data.ignore_type():
      c.data.audio = dict(c.data.audio, rate=found.audio.rate, log_mel=dataclasses.asdict(found.audio.log_mel))
  c.towers = ml_collections.ConfigDict({"mine": {**found.towers[kind], "modality": kind}})
  return c.to_dict()


@pytest.mark.parametrize("case, changes, message", [
  ("hf_videomae", {"towers": {"last_norm": True}}, r"config\.towers\.mine\.last_norm is True, and False is needed"),
  ("hf_videomae", {"normalize": {"mean": (0.1, 0.1, 0.1)}}, r"config\.normalize\.mean is \(0.1, 0.1, 0.1\), and"),
  ("hf_ast", {"audio": {"rate": 8_000}}, r"config\.data\.audio\.rate is 8000, and 16000 is needed"),
  ("hf_ast", {"log_mel": {"preemphasis": 0.0}}, r"audio\.log_mel\.preemphasis is 0\.0, and 0\.97 is needed"),
  ("hf_whisper", {"log_mel": {"padding": "masked"}}, r"audio\.log_mel\.padding is 'masked', and 'silence' is needed"),
], ids=str)  # fmt: skip
def test_a_run_starts_from_a_tower(case, changes, message):
  place, kind = f"hf:{GOLDEN / case}", kind_of(case)
  found = read_golden(case)
  config = config_for(case, found)
  path, arrays = open_part(f"{place}:towers/{kind}", "towers/mine", {}, config, "config.init")
  assert path == f"towers/{kind}" and arrays.keys() == found.arrays.keys()
  holders = {"towers": config["towers"]["mine"], "normalize": config["normalize"], "audio": config["data"]["audio"]}
  holders["log_mel"] = holders["audio"]["log_mel"]
  for name, values in changes.items():
    holders[name].update(values)
  with pytest.raises(UserError, match=message):
    open_part(f"{place}:towers/{kind}", "towers/mine", {}, config, "config.init")


def test_a_term_starts_from_the_prompts():
  place = f"hf:{GOLDEN / 'hf_xclip'}"
  objective = {"told": {"module": {"name": "video_prompts", "heads": 2}}}
  _, arrays = open_part(place, "terms/told", {}, {"objective": objective}, "config.init")
  assert "params/terms/told/prompts/layers_1/cross_attn/kv/kernel" in arrays
  objective["told"]["module"]["heads"] = 4
  with pytest.raises(UserError, match=r"config\.objective\.told\.module\.heads is 4, and 2 is needed"):
    open_part(place, "terms/told", {}, {"objective": objective}, "config.init")


def test_which_exports_a_config_of_videos_allows_is_known_before_training():
  """A module that leaves its options at their defaults, towers that XCLIPModel has not."""
  config = load_config("methods/xclip:smoke")
  model = build_model(config, 259)
  views = {name: MODALITIES[name].zeros(1, config) for name in ("video", "text")}
  shapes = jax.eval_shape(model.init, jax.random.key(0), views)
  terms = {name: {leaf: jax.ShapeDtypeStruct((), np.float32)} for name, leaf in (("prompted", "alpha"),
                                                                              ("video_text", "log_scale"))}  # fmt: skip
  said = exports(config, {**shapes["params"], "terms": terms}, shapes["batch_stats"])
  assert not said["stablehlo"] and "towers are text, video" in said["timm"]
  assert said["hf"].startswith("not transformers' xclip: config.towers.video.project is None, and ")


def edited(tmp_path, case, file="config.json", section=None, **fields):
  folder = shutil.copytree(GOLDEN / case, tmp_path / "edited")
  config = json.loads((folder / file).read_text())
  (config[section] if section else config).update(fields)
  (folder / file).write_text(json.dumps(config))
  return f"hf:{folder}"


@pytest.mark.parametrize("case, changes, message", [
  ("hf_videomae", dict(qv_bias=False), r"qv_bias is False"),
  ("hf_videomae", dict(image_size=32), r"image_size is 32, and preprocessor_config\.json makes frames of 16 px"),
  ("hf_videomae", dict(hidden_act="gelu_fast"), r"hidden_act: no such choice 'gelu_fast'; did you mean"),
  ("hf_videomae_norm", dict(use_mean_pooling=True), r"are not used, the first is 'layernorm\.bias'"),
  ("hf_videomae", dict(tubelet_size=4), r"'embeddings\.patch_embeddings\.projection\.weight' has the shape .* another"),
  ("hf_ast", dict(max_length=60), r"max_length is 60, and preprocessor_config\.json makes spectrograms for 50"),
  ("hf_ast", dict(time_stride=5), r"'embeddings\.position_embeddings' has the shape .* of another architecture"),
  ("hf_ast", dict(file="preprocessor_config.json", sampling_rate=8000), r"sampling_rate is 8000, .* has to be 16000"),
  ("hf_ast", dict(file="preprocessor_config.json", feature_extractor_type="ClapFeatureExtractor"),
   r"feature_extractor_type: no such choice 'ClapFeatureExtractor'"),
  ("hf_whisper", dict(file="preprocessor_config.json", dither=0.1), r"dither is 0\.1, .* has to be 0\.0"),
  ("hf_whisper", dict(encoder_layers=1), r"are not used, the first is 'layers\.1"),
  ("hf_xclip", dict(projection_dim=24), r"vision_config: mit_hidden_size is 16, .* has to be 24"),
  ("hf_xclip", dict(section="vision_config", num_frames=4), r"'mit\.position_embedding' has the shape"),
  ("hf_xclip", dict(prompt_hidden_act="gelu"), r"prompt_hidden_act is 'gelu', .* has to be 'quick_gelu'"),
], ids=str)  # fmt: skip
def test_what_we_do_not_compute_is_refused(case, changes, message, tmp_path):
  with pytest.raises(UserError, match=message) as error:
    read(edited(tmp_path, case, **changes))
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("case", ["hf_ast", "hf_videomae"])
def test_a_folder_that_does_not_say_how_things_are_made_is_refused(case, tmp_path):
  folder = shutil.copytree(GOLDEN / case, tmp_path / "x")
  (folder / "preprocessor_config.json").unlink()
  with pytest.raises(UserError, match=r"no preprocessor_config\.json there, which says"):
    read(f"hf:{folder}")


@pytest.mark.parametrize("case, changes, message", [
  ("hf_videomae", {"name": "video_vit"}, r"config\.towers\.video\.name is 'video_vit', .* only 'tubelet_vit'"),
  ("hf_videomae_classes", {"pool_epsilon": 1e-3}, r"video\.pool_epsilon is 0\.001, and 1e-05 is needed"),
  ("hf_ast", {"name": "audio_convnet"}, r"only 'audio_transformer' and 'speech_transformer' are written"),
  ("hf_ast", {"pool": "gap"}, r"audio\.pool is 'gap', and 'cls_distillation' is needed"),
  ("hf_whisper", {"stem_activation": "relu"}, r"audio\.stem_activation is 'relu', and 'gelu' is needed"),
  ("hf_xclip", {"temporal": "mean"}, r"video\.temporal is 'mean', and 'xclip' is needed"),
], ids=str)  # fmt: skip
def test_what_they_do_not_have_is_not_written(case, changes, message, tmp_path):
  given = read_golden(case)
  kind = kind_of(case)
  options = changes if "name" in changes else {**given.towers[kind], **changes}
  towers = {**given.towers, kind: options}
  with pytest.raises(UserError, match=message):
    FORMATS["hf"].write(dataclasses.replace(given, towers=towers), tmp_path / "out")
  assert not (tmp_path / "out").exists()


def test_a_front_end_that_they_do_not_have_is_not_written(tmp_path):
  given = read_golden("hf_ast")
  audio = dataclasses.replace(given.audio, log_mel=dataclasses.replace(given.audio.log_mel, taper="hamming"))
  with pytest.raises(UserError, match=r"audio\.log_mel\.taper is 'hamming', and 'hann_symmetric' is needed"):
    FORMATS["hf"].write(dataclasses.replace(given, audio=audio), tmp_path / "out")
