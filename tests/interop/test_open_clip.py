"""open_clip's models: our outputs are theirs, what is read is written bit for bit, and what does not fit is refused."""

import json
import shutil

import numpy as np
import pytest
from models import GOLDEN, assert_outputs, assert_same_file

from mmcontrast.data.tokenizers import make_tokenizer
from mmcontrast.interop import formats, open_clip, tokenizer_files, vit

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
  without = r"text_decoder\..*|.*\.num_batches_tracked"  # of captions; of steps counted
  assert_same_file(folder(case) / open_clip.WEIGHTS, tmp_path / open_clip.WEIGHTS, without)
  again = FORMAT.read(str(tmp_path))
  assert again.towers == read[case].towers and again.heads == read[case].heads and again.image == read[case].image
  assert (again.logit_scale, again.logit_bias) == (read[case].logit_scale, read[case].logit_bias)


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
