"""transformers' ClapModel, SwinModel and RobertaModel (golden/make_interop_clap.py): outputs, CLAP's front end, both
ways bit by bit, a run that is made of CLAP, and what is refused."""

import dataclasses
import functools
import json
import math
import shutil

import jax
import numpy as np
import pytest
from models import GOLDEN, assert_same_arrays, assert_same_file, encode_images, encode_texts

from mmcontrast.errors import UserError
from mmcontrast.interop.formats import FORMATS, read
from mmcontrast.interop.initial import open_part
from mmcontrast.interop.pretrained import model_config, variables
from mmcontrast.interop.run import config_of, describe_run, export_run, import_run
from mmcontrast.modalities.audio_log_mel import CLAP, log_mel
from mmcontrast.modalities.real_tokens import real_tokens
from mmcontrast.modalities.views import Inputs
from mmcontrast.models.model import build_model
from mmcontrast.objectives.terms import logits_between

CASES = {"hf_clap": "", "hf_swin": r"classifier\..*", "hf_roberta": ""}


@functools.cache
def read_golden(case):
  return read(f"hf:{GOLDEN / case}")


def given_of(case):
  return np.load(GOLDEN / case / "outputs.npz")


def test_clap_is_theirs():
  """Maps of sounds, tokens of texts, vectors, and the logits of both, each with its scale."""
  found, given = read_golden("hf_clap"), given_of("hf_clap")
  model = build_model(model_config(found.towers, found.heads, found.text))

  @jax.jit
  def run(weights, spectrograms, ids):
    real = real_tokens(ids, found.text.token_ids["pad"], found.text.token_ids["eos"])
    sounds = model.encode(weights, "audio", Inputs(spectrograms, np.ones(spectrograms.shape[:2], bool)))[0]
    words = model.encode(weights, "text", Inputs(ids, real))[0]
    vectors = [
      model.project(weights, f"{name}_joint", of)[0].pooled for name, of in (("audio", sounds), ("text", words))
    ]
    return sounds, words.tokens, real, vectors

  ids = given["ids"].astype(np.int32)
  sounds, tokens, real, vectors = run(variables(found.arrays), given["spectrograms"][:, 0], ids)
  np.testing.assert_array_equal(real, ids != 1)
  # Theirs [B, D, places in frequency, in time].
  heard = np.asarray(sounds.tokens).reshape(3, *sounds.grid, -1).transpose(0, 3, 2, 1)
  np.testing.assert_allclose(heard, given["audio_map"], atol=1e-4)
  np.testing.assert_allclose(sounds.pooled, given["audio_pooled"], atol=1e-4)
  np.testing.assert_allclose(np.asarray(tokens)[real], given["text_tokens"][real], atol=1e-4)
  audio, text = (rows / np.linalg.norm(rows, axis=-1, keepdims=True) for rows in map(np.asarray, vectors))
  np.testing.assert_allclose(audio, given["audio"], atol=1e-4)
  np.testing.assert_allclose(text, given["text"], atol=1e-4)
  np.testing.assert_allclose(found.logit_scale * audio @ text.T, given["logits_a"], atol=1e-4)
  np.testing.assert_allclose(found.text_logit_scale * text @ audio.T, given["logits_t"], atol=1e-4)
  assert given["audio_map"].std() > 0.3 and min(given[name].std() for name in ("audio", "text")) > 0.1
  assert abs(found.logit_scale - found.text_logit_scale) > 0.1


def test_swin_is_theirs():
  found, given = read_golden("hf_swin"), given_of("hf_swin")
  made = encode_images(found, given["images"])
  np.testing.assert_allclose(made.tokens, given["tokens"], atol=1e-4)
  np.testing.assert_allclose(made.pooled, given["pooled"], atol=1e-4)
  assert made.grid == (5, 5) and given["tokens"].std() > 0.3


def test_roberta_is_theirs():
  found, given = read_golden("hf_roberta"), given_of("hf_roberta")
  real = given["ids"] != 1
  made = encode_texts(found, given["ids"].astype(np.int32), real)
  np.testing.assert_allclose(np.asarray(made.tokens)[real], given["tokens"][real], atol=1e-4)
  np.testing.assert_allclose(made.pooled, given["pooled"], atol=1e-4)
  assert found.text.length == 12 and found.towers["text"]["first_position"] == 2


def test_spectrograms_are_their_extractors():
  """Sounds that fit three times, once, and exactly; and the other ways of filling a view."""
  audio, given = read_golden("hf_clap").audio, given_of("hf_clap")
  samples = round(audio.rate * audio.seconds)
  waves = np.zeros((3, samples))
  lengths = np.array([given[f"wave{row}"].size for row in range(3)])
  for row, length in enumerate(lengths):
    waves[row, :length] = given[f"wave{row}"]
  assert 3 * lengths[0] < samples == lengths[1] and 2 * lengths[2] > samples
  cases = {name: dataclasses.replace(audio.log_mel, padding=ours)
           for name, ours in {"repeat": "repeat", "pad": "silence"}.items()}  # fmt: skip

  @jax.jit
  def run(waves, lengths):
    made, real = log_mel(audio.log_mel, audio.rate, waves, lengths)
    return made, real, {name: log_mel(one, audio.rate, waves[:1], lengths[:1])[0] for name, one in cases.items()}

  with jax.enable_x64(True):  # theirs is, up to the transform
    made, real, others = run(waves, lengths)
  assert np.asarray(real).all() and made.shape == given["spectrograms"][:, 0].shape
  np.testing.assert_allclose(made, given["spectrograms"][:, 0], atol=1e-4)
  for name, one in others.items():
    np.testing.assert_allclose(one, given[name][:, 0], atol=1e-4, err_msg=name)
    assert np.abs(given[name][0] - given["spectrograms"][0]).max() > 1


@pytest.mark.parametrize("case", CASES)
def test_in_out_in_is_bit_equal(case, tmp_path):
  first = read_golden(case)
  FORMATS["hf"].write(first, tmp_path / "out")
  for file in ("config.json", "preprocessor_config.json"):
    if case == "hf_roberta" and file != "config.json":
      continue
    theirs, ours = (json.loads((folder / file).read_text()) for folder in (GOLDEN / case, tmp_path / "out"))
    if case == "hf_swin":  # without its classifier; another name of a processor with the same numbers
      assert (ours.get("architectures"), theirs.get("architectures")) in (
        (["SwinModel"], ["SwinForImageClassification"]),
        (None, None),
      )
      ours = {key: value for key, value in ours.items() if key in theirs and key != "architectures"}
    sections = [(theirs.pop(key), ours.pop(key)) for key in ("audio_config", "text_config") if key in ours]
    for one, other in [(theirs, ours), *sections]:
      assert {key: one[key] for key in other if key in one} == {key: other[key] for key in other if key in one}
      assert len(set(other) & set(one)) > 3
  file = tmp_path / "theirs.safetensors"
  renamed(GOLDEN / case / "model.safetensors", file)
  assert_same_file(file, tmp_path / "out" / "model.safetensors", CASES[case])
  again = read(f"hf:{tmp_path / 'out'}")
  assert_same_arrays(again, first)
  assert dataclasses.replace(again, arrays={}, source="", text=None) == dataclasses.replace(
    first, arrays={}, source="", text=None
  )


def renamed(file, to):
  from safetensors.numpy import load_file, save_file

  save_file({name.removeprefix("swin."): array for name, array in load_file(file).items()}, to)


def test_a_run_and_back(tmp_path):
  import_run(f"hf:{GOLDEN / 'hf_clap'}", tmp_path / "run")
  export_run(tmp_path / "run", "hf", tmp_path / "out")
  theirs, ours = read_golden("hf_clap"), read(f"hf:{tmp_path / 'out'}")
  assert_same_arrays(ours, theirs)
  assert (ours.towers, ours.heads, ours.audio) == (theirs.towers, theirs.heads, theirs.audio)
  for name in ("logit_scale", "text_logit_scale"):
    np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-6)


def test_a_scale_of_both_sides_is_written_twice():
  """A run whose one term compares sounds and texts both ways; what of it a term of another run starts with."""
  found = read_golden("hf_clap")
  config, scales = config_of(found), (found.logit_scale, found.text_logit_scale)
  both = {**config["objective"]["audio_text"], "direction": "both", "temperature": {"init": 0.05}}
  trees, twenty = variables(found.arrays), {"log_scale": np.float32(math.log(20))}
  trees["params"]["terms"] = {"both": twenty}
  again = describe_run({**config, "objective": {"both": both}}, trees, "run", "")
  assert (again.logit_scale, again.text_logit_scale) == (pytest.approx(20), pytest.approx(20))
  assert set(again.towers) == {"audio", "text"}
  for (name, term), scale in zip(config["objective"].items(), scales):
    wanted = {f"params/terms/{name}/log_scale": np.float32(0)}
    _, arrays = open_part(
      f"hf:{GOLDEN / 'hf_clap'}", f"terms/{name}", wanted, {"objective": {name: term}}, "config.init"
    )
    assert arrays == {f"params/terms/{name}/log_scale": np.float32(math.log(scale))}
  heads = ("audio_joint", "text_joint")
  terms = {"a": both, **config["objective"]}
  learned = {"a": twenty} | {name: {"log_scale": math.log(one)} for name, one in zip(config["objective"], scales)}
  assert logits_between(terms, learned, heads, query="text_joint")[0] == pytest.approx(scales[1])
  assert logits_between(terms, learned, heads)[0] == pytest.approx(20)


def edited(tmp_path, case, file="config.json", section=None, **fields):
  folder = shutil.copytree(GOLDEN / case, tmp_path / "edited")
  config = json.loads((folder / file).read_text())
  (config[section] if section else config).update(fields)
  (folder / file).write_text(json.dumps(config))
  return f"hf:{folder}"


EXTRACTOR = "preprocessor_config.json"


@pytest.mark.parametrize("case, changes, message", [
  ("hf_clap", dict(section="audio_config", enable_fusion=True), r"audio_config: enable_fusion is True, .* to be False"),
  ("hf_clap", dict(file=EXTRACTOR, truncation="fusion"), r"truncation is 'fusion', .* has to be 'rand_trunc'"),
  ("hf_clap", dict(file=EXTRACTOR, padding="repeatpat"), r"padding: no such choice 'repeatpat'; did you mean 'repeatp"),
  ("hf_clap", dict(file=EXTRACTOR, feature_size=24), r"num_mel_bins is 16, and preprocessor_config\.json .* for 24"),
  ("hf_clap", dict(file=EXTRACTOR, hop_length=20), r"config\.json: spec_size: fold=64: spectrograms of 401 frames"),
  ("hf_clap", dict(section="audio_config", hidden_size=64), r"audio_config: hidden_size is 64, .* has to be 32"),
  ("hf_clap", dict(section="audio_config", layer_norm_eps=1e-6), r"layer_norm_eps is 1e-06, .* has to be 1e-05"),
  ("hf_clap", dict(section="audio_config", patch_stride=[4, 2]), r"patch_stride: \[4, 2\] is not square"),
  ("hf_clap", dict(section="audio_config", depths=[2, 3]), r"no array 'audio_model\..*\.layers\.1\.blocks\.2"),
  ("hf_clap", dict(section="audio_config", window_size=8), r"relative_position_bias_table' has the shape .* another"),
  ("hf_clap", dict(section="text_config", pad_token_id=0), r"pad_token_id is 0, behind which .* pads with 1"),
  ("hf_clap", dict(projection_hidden_act="gelu"), r"projection_hidden_act is 'gelu', .* has to be 'relu'"),
  ("hf_roberta", dict(pad_token_id=3), r"pad_token_id is 3, behind which positions begin, .* pads with 1"),
  ("hf_swin", dict(use_absolute_embeddings=True), r"use_absolute_embeddings is True, .* has to be False"),
  ("hf_swin", dict(patch_size=[2, 4]), r"patch_size: \[2, 4\] is not square"),
  ("hf_swin", dict(num_heads=[2, 4, 8]), r"stages=\(2, 2\), heads=\(2, 4, 8\): give the blocks"),
], ids=str)  # fmt: skip
def test_what_we_do_not_compute_is_refused(case, changes, message, tmp_path):
  with pytest.raises(UserError, match=message) as error:
    read(edited(tmp_path, case, **changes))
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("case, tower, changes, message", [
  ("hf_clap", "audio", {"name": "audio_convnet"}, r"audio\.name is 'audio_convnet', and transformers' clap has 'swin'"),
  ("hf_clap", "text", {"first_position": 0}, r"text\.first_position is 0, and 2 is needed"),
  ("hf_clap", "text", {"pool": "mean"}, r"text\.pool is 'mean', and 'pooler' is needed"),
  ("hf_roberta", "text", {"first_position": 1}, r"text\.first_position is 1, and 2 is needed, behind"),
  ("hf_swin", "image", {"norm_epsilon": 1e-3}, r"image\.norm_epsilon is 0\.001, and 1e-05 is needed"),
  ("hf_swin", "image", {"stride": 1}, r"image\.stride is 1, and None is needed"),
], ids=str)  # fmt: skip
def test_what_they_do_not_have_is_not_written(case, tower, changes, message, tmp_path):
  given = read_golden(case)
  options = changes if "name" in changes else {**given.towers[tower], **changes}
  with pytest.raises(UserError, match=message):
    FORMATS["hf"].write(dataclasses.replace(given, towers={**given.towers, tower: options}), tmp_path / "out")
  assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("changes, message", [
  ({"audio": "padding"}, r"audio\.log_mel\.padding is 'masked', and 'repeat_whole' is needed"),
  ({"logit_scale": None}, r"clap has a logit scale for sounds and one for texts, and this model has none"),
  ({"logit_bias": 1.0}, r"clap has a logit scale .* and this model has a bias beside it"),
  ({"heads": "audio_joint"}, r"transformers' clap has a head of sounds, and this model has none"),
], ids=str)  # fmt: skip
def test_a_model_that_is_no_clap_is_not_written(changes, message, tmp_path):
  given = read_golden("hf_clap")
  if changes.get("audio"):
    changes = {
      "audio": dataclasses.replace(given.audio, log_mel=dataclasses.replace(given.audio.log_mel, padding="masked"))
    }
  if changes.get("heads"):
    changes = {"heads": {name: head for name, head in given.heads.items() if name != changes["heads"]}}
  with pytest.raises(UserError, match=message):
    FORMATS["hf"].write(dataclasses.replace(given, **changes), tmp_path / "out")


def test_the_published_front_end_has_its_numbers():
  """Of laion/clap-htsat-unfused, as its preprocessor_config.json says."""
  from mmcontrast.interop.hugging_face_extractor import audio_input

  said = dict(
    feature_extractor_type="ClapFeatureExtractor", feature_size=64, fft_window_size=1024, frequency_max=14000,
    frequency_min=50, hop_length=480, max_length_s=10, padding="repeatpad", padding_side="right", padding_value=0,
    sampling_rate=48000, top_db=None, truncation="rand_trunc",
  )  # fmt: skip
  found = audio_input(said, "x", "clap")
  assert found.log_mel == CLAP and (found.rate, found.seconds, found.frames) == (48_000, 10.0, 1001)
