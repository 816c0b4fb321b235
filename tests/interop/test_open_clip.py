"""open_clip's models: our outputs are theirs, what is read is written bit for bit, and what does not fit is refused."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
import torch_files
from models import GOLDEN, assert_outputs, assert_same_file

from mmcontrast.data.tokenizers import make_tokenizer
from mmcontrast.errors import UserError
from mmcontrast.interop import formats, hugging_face_clip, open_clip, open_clip_config, tokenizer_files, vit
from mmcontrast.interop.pretrained import ImageInput, Pretrained, TextInput, difference, model_config, variables
from mmcontrast.interop.weights import read_weights, write_weights
from mmcontrast.modalities.views import Inputs
from mmcontrast.models import decoding
from mmcontrast.models.model import build_model

CASES = ("clip", "quickgelu", "resnet", "siglip", "coca")
FORMAT = formats.FORMATS["open_clip"]


def folder(case):
  return GOLDEN / f"open_clip_{case}"


@pytest.fixture(scope="module", autouse=True)
def tiny_trunk():
  """A ViT of timm as small as the model that was saved."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(vit.SIZES, "tiny", (16, 2, 2, 4.0))
    patch.setattr(vit, "NAMES", (*vit.NAMES, "vit_tiny_patch8_siglip_16"))
    yield


@pytest.fixture(scope="module")
def read(tiny_trunk):
  """case -> what was read of it, once."""
  return {case: FORMAT.read(str(folder(case))) for case in CASES}


@pytest.mark.parametrize("case", CASES)
def test_our_outputs_are_theirs(case, read):
  assert_outputs(read[case], folder(case) / "outputs.npz")


@pytest.mark.parametrize("case", CASES)
def test_what_is_read_is_written_bit_for_bit(case, read, tmp_path):
  FORMAT.write(read[case], tmp_path)
  without = r".*\.num_batches_tracked"  # of steps
  assert_same_file(folder(case) / open_clip.WEIGHTS, tmp_path / open_clip.WEIGHTS, without)
  config = json.loads((tmp_path / open_clip.CONFIG).read_text())
  said = open_clip_config.describe(config, "out")
  assert (said.towers, said.heads, said.image) == (read[case].towers, read[case].heads, read[case].image)


def test_the_decoder_is_theirs(read):
  """Logits of words, of whole texts; those after the end of a text are nobody's."""
  golden, found = np.load(folder("coca") / "outputs.npz"), read["coca"]
  model = build_model(model_config(found.towers, found.heads, found.text))
  real = golden["ids"] > 0
  views = {"image": Inputs(golden["images"][:, None]), "text": Inputs(golden["ids"][:, None], real[:, None])}
  path = "decoder(text[0], image[0])/words"
  run = jax.jit(lambda weights: model.embed(weights, views, [path], train=False)[0][path].logits)
  logits = np.asarray(run(variables(found.arrays)))
  assert logits.shape == golden["words"].shape and golden["words"].std() > 0.1
  np.testing.assert_allclose(logits[real], golden["words"][real], atol=1e-4)
  assert decoding.decoder_of(model).length == 8


def test_a_pair_without_its_decoder_is_written_for_others(read, tmp_path):
  """Formats without decoders get the two towers; a decoder that open_clip has otherwise is refused."""
  pair = read["coca"].without_decoder()
  assert set(pair.towers) == {"image", "text"} and not any("decoder" in path or "words" in path for path in pair.arrays)
  changes = [
    ({"order": "self_cross_mlp"}, r"towers\.decoder\.order is 'self_cross_mlp', and 'self_mlp_cross_mlp' is needed"),
    ({"width": 32}, r"open_clip's decoder is as wide as what it reads, and config\.towers\.decoder is 32 wide"),
  ]
  for change, message in changes:
    towers = {**read["coca"].towers, "decoder": {**read["coca"].towers["decoder"], **change}}
    with pytest.raises(UserError, match=message):
      FORMAT.write(dataclasses.replace(read["coca"], towers=towers), tmp_path / "out")
  towers = {**read["coca"].towers, "image": {**read["coca"].towers["image"], "pool": "cls"}}
  with pytest.raises(UserError, match=r"reads the tokens that attention pools .*towers\.image\.pool='queries'"):
    FORMAT.write(dataclasses.replace(read["coca"], towers=towers), tmp_path / "out")


def test_config_and_weights_apart(tmp_path):
  shutil.copy(folder("clip") / open_clip.WEIGHTS, tmp_path / "w.safetensors")
  config = json.loads((folder("clip") / open_clip.CONFIG).read_text())["model_cfg"]
  (tmp_path / "tiny.json").write_text(json.dumps(config))
  found = FORMAT.read(f"{tmp_path}/tiny.json@{tmp_path}/w.safetensors")
  assert found.image.size == 16 and found.image.interpolation == "bicubic" and found.text.token_ids["eos"] == 39


def test_texts_become_their_ids(read, tmp_path):
  """SigLIP's: punctuation out, small letters, an eos that pads too."""
  golden, text = np.load(folder("siglip") / "outputs.npz"), read["siglip"].text
  assert text.token_ids == {"pad": 1, "bos": -1, "eos": 1} and text.lower == "canonicalize"
  (tmp_path / "tokenizer.json").write_bytes(tokenizer_files.with_padding(text))
  tokenizer = make_tokenizer(f"huggingface:{tmp_path}/tokenizer.json", lower=text.lower)
  assert tokenizer.pad_id == 1
  assert tokenizer.encode(golden["texts"].tolist(), text.length).tolist() == golden["texts_ids"].tolist()


@pytest.mark.parametrize(
  "section, change, message",
  [
    ("vision_cfg", {"pool_type": "avg"}, r"vision_cfg\.pool_type: 'avg' is not supported, only 'tok'"),
    ("vision_cfg", {"attentional_pool": "parallel"}, r"vision_cfg\.attentional_pool: 'parallel' is not supported"),
    ("vision_cfg", {"qk_norm": True}, r"vision_cfg\.qk_norm: True is not supported, only False"),
    ("vision_cfg", {"act_kwargs": {"alpha": 2}}, r"act_kwargs \{'alpha': 2\} .*only approximate and eps"),
    ("vision_cfg", {"patchsize": 8}, r"no such choice 'patchsize'; did you mean 'patch_size'"),
    ("vision_cfg", {"layers": 3}, r"no array 'visual\.transformer\.resblocks\.2\."),
    ("vision_cfg", {"patch_size": 4}, r"'visual\.conv1\.weight' has the shape \[16, 3, 8, 8\].*another architecture"),
    ("text_cfg", {"hf_model_name": "roberta-base"}, r"a text tower of transformers within open_clip is not read"),
    ("text_cfg", {"pool_type": "mean"}, r"text_cfg\.pool_type: no such choice 'mean'"),
    ("text_cfg", {"ls_init_value": 0.1}, r"text_cfg\.ls_init_value: text towers have no layer scale here"),
    ("text_cfg", {"tokenizer_kwargs": {"strip_sep_token": True}}, r"'strip_sep_token' is not done here"),
  ],
)
def test_what_a_config_says_and_we_do_not_compute_is_refused(section, change, message, tmp_path):
  shutil.copytree(folder("clip"), tmp_path, dirs_exist_ok=True)
  config = json.loads((tmp_path / open_clip.CONFIG).read_text())
  config["model_cfg"][section] |= change
  (tmp_path / open_clip.CONFIG).write_text(json.dumps(config))
  with pytest.raises(UserError, match=message) as error:
    FORMAT.read(str(tmp_path))
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  "change, message",
  [
    ({"interpolation": "random"}, r"preprocess_cfg\.interpolation: no such choice 'random'"),
    ({"resize_mode": "longest"}, r"preprocess_cfg\.resize_mode: no such choice 'longest'"),
    (None, r"no preprocess_cfg, and vit_tiny_patch8_siglip_16 may need another than CLIP's"),
  ],
)
def test_an_input_that_is_not_ours_is_refused(change, message, tmp_path):
  shutil.copytree(folder("siglip"), tmp_path, dirs_exist_ok=True)
  config = json.loads((tmp_path / open_clip.CONFIG).read_text())
  config["preprocess_cfg"] = None if change is None else config["preprocess_cfg"] | change
  (tmp_path / open_clip.CONFIG).write_text(json.dumps(config))
  with pytest.raises(UserError, match=message):
    FORMAT.read(str(tmp_path))


def test_an_array_too_many_or_too_few_and_a_cut_file(tmp_path):
  shutil.copytree(folder("clip"), tmp_path, dirs_exist_ok=True)
  file = tmp_path / open_clip.WEIGHTS
  arrays = read_weights(file)
  write_weights(file, {**arrays, "visual.teacher.head": np.zeros(3, np.float32)})
  with pytest.raises(UserError, match=r"'visual\.teacher\.head'.*--allow_unused REGEX"):
    FORMAT.read(str(tmp_path))
  del arrays["visual.proj"]
  write_weights(file, {**arrays, "visual.teacher.head": np.zeros(3, np.float32)})
  with pytest.raises(UserError, match=r"no array 'visual\.proj', which 'heads/image_joint/fc1/kernel' is read from"):
    FORMAT.read(str(tmp_path), allow_unused=[r"visual\.teacher\..*"])
  file.write_bytes(file.read_bytes()[:2000])
  with pytest.raises(UserError, match=r"open_clip_model\.safetensors: damaged"):
    FORMAT.read(str(tmp_path))
  file.unlink()
  (tmp_path / "open_clip_pytorch_model.bin").write_bytes(b"cos\nabort\n(tR.")
  with pytest.raises(UserError, match="read by the import command only"):
    FORMAT.read(str(tmp_path))


@pytest.mark.parametrize(
  "part, name, change, message",
  [
    ("towers", "image", {"registers": 4}, r"towers\.image\.registers is 4, and 0 is needed"),
    ("towers", "image", {"positions": "rope"}, r"towers\.image\.positions is 'rope', and 'learned' is needed"),
    ("towers", "image", {"patch_bias": True}, r"timm"),
    ("towers", "text", {"pool": "mean"}, r"towers\.text\.pool is 'mean', and 'eos' is needed"),
    ("towers", "text", {"name": "bert"}, r"config\.towers\.text\.name is 'bert', and open_clip has"),
    ("heads", "text_joint", {"name": "mlp", "depth": 3}, r"heads\.text_joint\.name is 'mlp', and 'linear' is needed"),
  ],
)
def test_what_open_clip_does_not_have_is_not_written(part, name, change, message, read, tmp_path):
  given = {key: dict(options) for key, options in getattr(read["clip"], part).items()}
  given[name] |= change
  with pytest.raises(UserError, match=message):
    FORMAT.write(dataclasses.replace(read["clip"], **{part: given}), tmp_path / "out")
  assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
  "change, message", [({"logit_scale": None}, "needs a logit scale"), ({"heads": {}}, "towers of images and of texts")]
)
def test_a_model_that_is_no_pair_is_not_written(change, message, read, tmp_path):
  with pytest.raises(UserError, match=message):
    FORMAT.write(dataclasses.replace(read["clip"], **change), tmp_path / "out")


CLIPS = dict(
  image=dict(
    name="vit",
    width=768,
    depth=12,
    heads=12,
    patch=32,
    pool="cls",
    pre_norm=True,
    patch_bias=False,
    activation="gelu",
    norm_epsilon=1e-5,
  ),
  text=dict(name="text_transformer", width=512, depth=12, heads=8, causal=True, pool="eos", activation="gelu"),
)
SIGLIPS = dict(
  image=dict(name="vit_base", pool="map", activation="gelu"),
  text=dict(
    name="text_transformer",
    width=768,
    depth=12,
    heads=12,
    pool="last",
    attend_padding=True,
    activation="gelu",
    norm_epsilon=1e-6,
  ),
)


def test_parts_of_words_have_no_tokenizer_json():
  with pytest.raises(UserError, match=r"'word_parts' hashes, which no tokenizer\.json can; export --to stablehlo"):
    tokenizer_files.contents(TextInput(32, "word_parts", dict(pad=0, bos=1, eos=2)))


@pytest.mark.parametrize(
  "towers, heads, name",
  [
    (CLIPS, dict(image_joint=dict(name="linear", dim=512), text_joint=dict(name="linear", dim=512)), None),
    (
      SIGLIPS,
      dict(image_joint=dict(name="identity"), text_joint=dict(name="linear", dim=768, bias=True)),
      "vit_base_patch16_siglip_224",
    ),
  ],
)
def test_the_towers_of_the_docs_are_theirs(towers, heads, name, tmp_path):
  """A run with these (docs/weights.md), both packages can load: their configs say the same model."""
  text = TextInput(77, "clip", dict(pad=0, bos=49406, eos=49407))
  towers = {**towers, "text": dict(towers["text"], vocab_size=49408, max_length=77)}
  given = Pretrained(towers, heads, {}, ImageInput(224, (0.5,) * 3, (0.5,) * 3), text, 10.0)
  config = open_clip_config.config_of(given, "out")
  said = open_clip_config.describe(config, "out")
  theirs = hugging_face_clip.describe(hugging_face_clip.config_of(given, tmp_path), tmp_path)
  for found in (said.towers, theirs[0]):
    assert [difference(towers[kind], found[kind]) for kind in towers] == [None, None]
  for found in (said.heads, theirs[1]):
    assert [difference(heads[kind], found[kind]) for kind in heads] == [None, None]
  assert config["model_cfg"]["vision_cfg"].get("timm_model_name") == name


def test_a_program_that_computes_quick_gelu_is_not_read_as_gelu(tmp_path):
  """OpenAI's own .pt is a TorchScript archive; its models are of QuickGELU, and ViT-B-32 of open_clip is not."""
  shutil.copytree(folder("clip"), tmp_path, dirs_exist_ok=True)
  config, arrays = tmp_path / open_clip.CONFIG, read_weights(tmp_path / open_clip.WEIGHTS)
  for code, said in (
    ("x * torch.sigmoid(torch.mul(x, 1.702))", r"computes QuickGELU, .*'gelu': give one of quick"),
    ("torch.gelu(x)", None),
  ):
    torch_files.save(tmp_path / "ViT.pt", arrays, script=code)
    if said:
      with pytest.raises(UserError, match=said):
        FORMAT.read(f"{config}@{tmp_path / 'ViT.pt'}", torch=True)
    else:
      assert FORMAT.read(f"{config}@{tmp_path / 'ViT.pt'}", torch=True).arrays
