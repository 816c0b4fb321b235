"""A run on people's data, with a tokenizer trained on it, goes out to open_clip and transformers and comes back."""

import json

import numpy as np
import pytest
from exportable import TEXTS, save_run, tokenizer_of

from mmcontrast import load
from mmcontrast.data.tokenizers import make_tokenizer
from mmcontrast.errors import UserError
from mmcontrast.interop import sentencepiece_json
from mmcontrast.interop.run import export_run, import_run


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
      sentence_iterator=iter(captions), model_prefix=prefix, vocab_size=size, model_type=kind, pad_id=0, bos_id=1,
      eos_id=2, unk_id=3, minloglevel=2, hard_vocab_limit=False)
  own = make_tokenizer(f"sentencepiece:{tmp_path}/unigram.model", lower=False)
  sentencepiece_json.check_alike(own, sentencepiece_json.convert(own))
  with pytest.raises(UserError, match=r"word\.model: only models of unigrams and of BPE"):
    sentencepiece_json.convert(make_tokenizer(f"sentencepiece:{tmp_path}/word.model", lower=False))
