"""A run on people's data, with a tokenizer trained on it, goes out to open_clip and transformers and comes back."""

import json
import pathlib
import re

import jax
import ml_collections
import numpy as np
import pytest
from exportable import TEXTS, exportable_config, save_run, tokenizer_of

from mmcontrast import load
from mmcontrast.config import load_config
from mmcontrast.data.tokenizers import make_tokenizer
from mmcontrast.errors import UserError
from mmcontrast.interop import sentencepiece_json
from mmcontrast.interop.possible import exports, lines
from mmcontrast.interop.run import export_run, import_run
from mmcontrast.modalities import MODALITIES
from mmcontrast.models.model import build_model

ABLE = ["open_clip", "hf", "timm", "stablehlo", "onnx"]  # exports of CLIP's towers


@pytest.mark.parametrize("kind", ["bytes", "sentencepiece"])
def test_out_and_in_again(kind, tmp_path):
  save_run(tmp_path / "run", tokenizer_of(kind, tmp_path))
  ours = load(tmp_path / "run")
  images = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3), np.uint8)
  for to in ("open_clip", "hf"):
    export_run(tmp_path / "run", to, tmp_path / to)
    import_run(f"{to}:{tmp_path / to}", tmp_path / f"back_{to}")
    back = load(tmp_path / f"back_{to}")
    if to == "open_clip":
      np.testing.assert_array_equal(back.tokenizer.encode(TEXTS, 16), ours.tokenizer.encode(TEXTS, 16))
    np.testing.assert_allclose(back.encode_text(TEXTS), ours.encode_text(TEXTS), atol=1e-6)
    np.testing.assert_allclose(back.encode_image(images), ours.encode_image(images), atol=1e-6)


def test_transformers_is_given_no_eos_of_2(tmp_path):
  """Its CLIPModel pools the highest id of a text then; an eos of 2 changes places with the highest."""
  for kind, highest in (("bytes", 258), ("sentencepiece", 329)):
    folder = tmp_path / kind
    folder.mkdir()
    save_run(folder / "run", tokenizer_of(kind, folder))
    export_run(folder / "run", "hf", folder / "hf")
    words = json.loads((folder / "hf" / "config.json").read_text())["text_config"]
    assert (words["bos_token_id"], words["eos_token_id"], words["pad_token_id"]) == (1, highest, 0)
    found = make_tokenizer(f"huggingface:{folder}/hf/tokenizer.json", lower=False)
    assert found.eos_id == highest and found.encode(["a red dog"], 12)[0].max() == highest


def test_a_tokenizer_json_that_gives_other_ids_is_not_written(tmp_path):
  own = make_tokenizer(tokenizer_of("sentencepiece", tmp_path), lower=True)
  file = sentencepiece_json.convert(own)
  sentencepiece_json.check_alike(own, file)
  wrong = json.loads(json.dumps(file))
  wrong["model"]["merges"] = wrong["model"]["merges"][:3]
  with pytest.raises(UserError, match=r"as a tokenizer\.json it would give .* other ids"):
    sentencepiece_json.check_alike(own, wrong)


def test_a_model_of_unigrams_is_written_and_one_of_words_refused(tmp_path):
  import sentencepiece

  captions = [f"a red dog number {number} is a café" for number in range(50)]
  for kind, size in (("unigram", 60), ("word", 20)):
    prefix = str(tmp_path / kind)
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(captions),
      model_prefix=prefix,
      vocab_size=size,
      model_type=kind,
      pad_id=0,
      bos_id=1,
      eos_id=2,
      unk_id=3,
      minloglevel=2,
      hard_vocab_limit=False,
    )
  own = make_tokenizer(f"sentencepiece:{tmp_path}/unigram.model", lower=False)
  sentencepiece_json.check_alike(own, sentencepiece_json.convert(own))
  with pytest.raises(UserError, match=r"word\.model: only models of unigrams and of BPE"):
    sentencepiece_json.convert(make_tokenizer(f"sentencepiece:{tmp_path}/word.model", lower=False))


def asked(config=None, **sections):
  """Which exports a run of `config`, by default `save_run`'s with other sections, allows: from shapes alone."""
  config = config or exportable_config("bytes", **sections)
  towers = {
    name: {**options, "attention": "xla"} if options["name"] == "vit" else options
    for name, options in config["towers"].items()
  }  # "cudnn" would need its GPU
  model = build_model({**config, "towers": towers}, 259)
  views = {name: MODALITIES[name].zeros(1, config) for name in ("image", "text")}
  shapes = jax.eval_shape(model.init, jax.random.key(0), views)
  terms = {"image_text": {"log_scale": jax.ShapeDtypeStruct((), np.float32)}}
  return exports(config, {**shapes["params"], "terms": terms}, shapes["batch_stats"])


def test_which_exports_a_config_allows_is_known_before_training():
  found = asked()
  assert [name for name, why in found.items() if not why] == ABLE
  assert found["torchvision"].startswith("config.towers.image.name: no such choice 'vit'")
  assert lines(found)[0] == "exports (mmcontrast export --to): open_clip, hf, timm, stablehlo, onnx"
  assert lines(found)[1].startswith("  no torchvision: config.towers.image.name")


def test_why_an_export_is_not_possible_names_the_key_and_the_way_out():
  config = exportable_config("bytes")
  photo = {**config["towers"]["image"], "modality": "image", "registers": 2}
  found = asked(
    towers={"photo": photo, "text": config["towers"]["text"]},
    heads={**config["heads"], "image_joint": dict(tower="photo", name="linear", dim=24)},
  )
  assert found["open_clip"] == (
    "not in open_clip: config.towers.photo.registers is 2, and 0 is needed; train with "
    "that, or export --to stablehlo, which takes any towers"
  )
  assert "config.towers.photo.registers is 2" in found["hf"] and not found["stablehlo"]
  resnet = asked(towers={"image": dict(name="resnet18", stem="patch2"), "text": config["towers"]["text"]})
  assert "config.towers.image.name is 'resnet18', and transformers' CLIP and SigLIP have 'vit' only" in resnet["hf"]
  for name in ("open_clip", "timm", "torchvision", "detectron2"):
    assert "config.towers.image.stem is 'patch2', and 'imagenet' is needed; train with that" in resnet[name], name
  assert asked(data={**config["data"], "centre_crop": 0.875})["open_clip"].startswith(
    "config.data.centre_crop is 0.875, and open_clip shows the whole shorter side, which is 1.0;"
  )
  cudnn = asked(towers={**config["towers"], "image": {**config["towers"]["image"], "attention": "cudnn"}})
  assert not cudnn["hf"] and cudnn["onnx"].startswith("config.towers.image.attention is 'cudnn'")
  nothing = asked(evaluation={**config["evaluation"], "image": "", "text": "", "features": ""})
  assert "config.evaluation names no head" in nothing["hf"]


def test_own_data_can_be_exported():
  c = load_config(
    "own_data:size=tiny,image_size=32,patch=16",
    ["--config.data.dataset=jsonl:mine.jsonl", "--config.data.tokenizer=bytes"],
  )
  assert [name for name, why in asked(c).items() if not why] == ABLE


def test_the_recipe_of_the_docs_is_whole():
  """On top of the emoji's CLIP: nothing of what it does not say is in the way of an export."""
  docs = pathlib.Path(__file__).parents[2] / "docs" / "weights.md"
  text = docs.read_text().partition("## A run that others can")[2]
  recipe = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
  c = ml_collections.ConfigDict(load_config("methods/clip", []), type_safe=False)
  assert asked(c.to_dict())["hf"]
  exec(recipe, {"c": c})
  c.data.update(tokenizer="bytes", token_ids=dict(pad=0, bos=1, eos=2))  # CLIP's own file is not everywhere
  assert [name for name, why in asked(c.to_dict()).items() if not why] == ABLE
