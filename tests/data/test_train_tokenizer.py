"""mmcontrast data tokenizer: a model of a source's texts, and what its mistakes say."""

import pytest
from own_data import encode, write

from mmcontrast.cli import main
from mmcontrast.data.tokenizers import SentencePieceTokenizer


@pytest.fixture
def dataset(tmp_path):
  words = ("red", "blue", "green", "small", "round", "square")
  table = [{"image": "none.png", "alt": f"a {one} thing", "name_de": f"ein {two} Ding"}
           for one in words for two in words]  # fmt: skip
  odd = b'{"image": "", "alt": "half a pair \\ud800", "name_de": ""}\n{torn\n'
  return "jsonl:" + write(str(tmp_path / "x.jsonl"), encode("jsonl", table) + odd)


def test_it_learns_the_words_of_captions_and_names(dataset, tmp_path, capsys):
  out = tmp_path / "new" / "tokenizer.model"
  words = ["data", "tokenizer", dataset, "--out", str(out), "--vocab_size", "330", "--source.image=None",
           "--source.caption=alt", "--source.languages={'de': 'name_de'}"]  # fmt: skip
  assert main(words) == 0
  tokenizer = SentencePieceTokenizer(out)
  tokenizer.check(pad_id=0, bos_id=1, eos_id=2, vocab_size=330)
  ids = tokenizer.encode(["A green thing", "ein green Ding"], 12)
  assert tokenizer.decode(ids) == ["a green thing", "ein green ding"]
  assert (ids != 0).sum() <= 2 * (3 + 2)  # whole words
  assert "1 records left out, such as" in capsys.readouterr().err


def test_the_vocabulary_is_fitted_to_few_texts(dataset, tmp_path, capsys):
  out = tmp_path / "t.model"
  words = ["data", "tokenizer", dataset, "--out", str(out), "--source.image=None", "--source.caption=alt"]
  assert main(words) == 0
  size = SentencePieceTokenizer(out).vocab_size
  assert 280 < size < 400
  said = f"--vocab_size 8000: the 37 texts give no more than {size} tokens; the tokenizer has {size}"
  assert said in capsys.readouterr().err
  assert main([*words, f"--vocab_size={size}"]) == 0  # the size that it names can be had, and no line is needed
  assert capsys.readouterr().err.count("--vocab_size") == 0 and SentencePieceTokenizer(out).vocab_size == size


@pytest.mark.parametrize("words, message", [
  (["--vocab_size=20"], "Vocabulary size is smaller than the 280 that the 256 bytes"),
  (["--source.captions=alt"], "did you mean 'caption'"),
  (["--source.caption=None"], "there is no text in it"),
  (["--source.image=alt"], "there is no text in it; 38 records left out, such as"),  # an image of each is wanted
  (["--caption=alt"], "options of the source look like"),
])  # fmt: skip
def test_mistakes(dataset, tmp_path, capsys, words, message):
  given = ["--source.image=None", "--source.caption=alt", *words]
  assert main(["data", "tokenizer", dataset, "--out", str(tmp_path / "t.model"), *given]) == 2
  assert message in capsys.readouterr().err
