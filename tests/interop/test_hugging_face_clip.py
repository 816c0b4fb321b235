"""CLIPModel and SiglipModel: our outputs are theirs, what is read is written bit for bit, the rest is refused."""

import json
import shutil

import numpy as np
import pytest
import tokenizers
from models import GOLDEN, assert_outputs, assert_same_file

from mmcontrast.data.tokenizers import make_tokenizer
from mmcontrast.errors import UserError
from mmcontrast.interop import formats
from mmcontrast.interop.run import config_of

CASES = ("hf_clip", "hf_siglip")
FORMAT = formats.FORMATS["hf"]


@pytest.fixture(scope="module")
def read():
  """case -> what was read of it, once."""
  return {case: FORMAT.read(str(GOLDEN / case)) for case in CASES}


@pytest.mark.parametrize("case", CASES)
def test_our_outputs_are_theirs(case, read):
  assert_outputs(read[case], GOLDEN / case / "outputs.npz")


@pytest.mark.parametrize("case", CASES)
def test_texts_become_their_ids(case, read):
  golden, text = np.load(GOLDEN / case / "outputs.npz"), read[case].text
  tokenizer = make_tokenizer(text.tokenizer, lower=text.lower)
  assert (tokenizer.bos_id, tokenizer.eos_id) == ((3, 1) if case == "hf_clip" else (-1, 1))
  tokenizer.pad_id = text.token_ids["pad"]
  assert tokenizer.encode(golden["texts"].tolist(), text.length).tolist() == golden["ids"].tolist()


@pytest.mark.parametrize("case", CASES)
def test_special_tokens_in_a_text_stay_what_they_were_to_the_model(case, read):
  """The package's own reading of them is that of an imported run; that of a run of one's own is text."""
  data = config_of(read[case])["data"]
  assert data["special_tokens"] == "read"
  path = read[case].text.tokenizer
  tokenizer = make_tokenizer(path, lower=data["lower"], special_tokens="read")
  package = tokenizers.Tokenizer.from_file(path.partition(":")[2])
  eos = package.id_to_token(tokenizer.eos_id)
  ids = package.encode(f"a {eos} b", add_special_tokens=False).ids
  assert tokenizer.eos_id in ids and tokenizer._pieces([f"a {eos} b"]) == [ids]
  assert tokenizer.eos_id not in make_tokenizer(path, lower=data["lower"])._pieces([f"a {eos} b"])[0]


@pytest.mark.parametrize("case", CASES)
def test_what_is_read_is_written_bit_for_bit(case, read, tmp_path):
  FORMAT.write(read[case], tmp_path)
  assert_same_file(GOLDEN / case / "model.safetensors", tmp_path / "model.safetensors")
  again = FORMAT.read(str(tmp_path))
  assert (again.towers, again.heads, again.image) == (read[case].towers, read[case].heads, read[case].image)
  assert (again.logit_scale, again.logit_bias) == (read[case].logit_scale, read[case].logit_bias)
  assert again.text.token_ids == read[case].text.token_ids


@pytest.mark.parametrize(
  "kind, lower, ids",
  [("SiglipTokenizer", "canonicalize", [4, 5, 6, 1]), ("GemmaTokenizerFast", True, [4, 5, 2, 6, 2, 1])],
)
def test_what_a_tokenizer_leaves_to_others_is_done(kind, lower, ids, tmp_path):
  shutil.copytree(GOLDEN / "hf_siglip", tmp_path, dirs_exist_ok=True)
  settings = json.loads((tmp_path / "tokenizer_config.json").read_text()) | {"tokenizer_class": kind}
  (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
  found = FORMAT.read(str(tmp_path))
  assert found.text.lower == lower
  FORMAT.write(found, tmp_path / "out")
  again = make_tokenizer(f"huggingface:{tmp_path}/out/tokenizer.json", lower=False)
  texts = ["A  Red, heart!", "cat_dog"]
  ours = make_tokenizer(found.text.tokenizer, lower=lower).encode(texts, 8)
  assert ours[0, : len(ids)].tolist() == ids and np.array_equal(again.encode(texts, 8), ours)


@pytest.mark.parametrize(
  "section, change, message",
  [
    ("vision_config", {"hidden_act": "sigmoid"}, r"vision_config: hidden_act: no such choice 'sigmoid'"),
    ("vision_config", {"vision_use_head": False}, r"vision_use_head is False, which no encoder supports"),
    ("vision_config", {"num_channels": 1}, r"num_channels is 1"),
    ("vision_config", {"image_size": 32}, r"image_size is 32, and preprocessor_config\.json makes images of 16 px"),
    ("text_config", {"num_hidden_layers": 3}, r"no array 'text_model\.encoder\.layers\.2\."),
    ("text_config", {"projection_size": 8}, r"'text_model\.head\.(weight|bias)' has the shape"),
  ],
)
def test_what_does_not_fit_is_refused(section, change, message, tmp_path):
  shutil.copytree(GOLDEN / "hf_siglip", tmp_path, dirs_exist_ok=True)
  config = json.loads((tmp_path / "config.json").read_text())
  config[section] |= change
  (tmp_path / "config.json").write_text(json.dumps(config))
  with pytest.raises(UserError, match=message) as error:
    FORMAT.read(str(tmp_path))
  assert "\n" not in str(error.value)
