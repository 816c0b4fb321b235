"""Kinds of tokenizers: CLIP's against open_clip's ids, JSON files, bytes, and what is refused."""

import gzip
import itertools
import json
import pathlib
import sys
import zlib

import numpy as np
import pytest
import sentencepiece
import tokenizers as library
from toy_source import Toy

from mmcontrast.data import pipeline
from mmcontrast.data.tokenizers import clip, make_tokenizer
from mmcontrast.errors import MissingData, UserError

GOLDEN = json.loads((pathlib.Path(__file__).parents[1] / "golden" / "clip_bpe.json").read_text())
TEXTS = [case["text"] for case in GOLDEN["texts"]]
IDS = np.array([[int(number) for number in case["ids"].split()] for case in GOLDEN["texts"]])


def make(name, lower=True, **options):
  return make_tokenizer(name, lower=lower, **options)


def write_vocabulary(path, merges):
  """A file of CLIP's format and length: `merges` in their lines, between them merges no text can use.

  Those are of control characters, of which every one made stands before the ones made from it.
  """
  control = [character for character, byte in clip.BYTES.items() if byte < 32 and byte not in (9, 10, 13)]
  fillers = (
    f"{''.join(word[:-1])} {word[-1]}" for length in (2, 3, 4) for word in itertools.product(control, repeat=length)
  )
  lines = [merges.get(str(rank)) or next(fillers) for rank in range(clip.MERGES)]
  path.write_bytes(gzip.compress("\n".join(["#version", *lines, "not read"]).encode(), 1))
  return path


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory):
  return write_vocabulary(tmp_path_factory.mktemp("clip") / clip.FILE, GOLDEN["merges"])


@pytest.fixture(scope="module")
def clips(clip_file):
  return make(f"clip:{clip_file}")


def test_clip_is_open_clips_token_for_token(clips):
  assert len(TEXTS) > 30 and (clips.vocab_size, clips.pad_id, clips.bos_id, clips.eos_id) == (49408, 0, 49406, 49407)
  for text, ours, theirs in zip(TEXTS, clips.encode(TEXTS, GOLDEN["length"]), IDS):
    np.testing.assert_array_equal(ours, theirs, err_msg=text)


def test_clip_needs_the_merges_of_the_golden_texts(tmp_path):
  """The test above could fail: without one of the merges some text is cut otherwise."""
  merges = dict(GOLDEN["merges"])
  del merges[max(merges, key=int)]
  other = make(f"clip:{write_vocabulary(tmp_path / clip.FILE, merges)}")
  assert (other.encode(TEXTS, GOLDEN["length"]) != IDS).any()


def test_clip_decodes_words_and_keeps_an_exclamation_mark(clips):
  texts = ["a photo of a cat .", "!", "caf\u00e9", "\U0001f600"]
  assert clips.decode(clips.encode(texts, 16)) == texts


def test_a_caption_cannot_write_an_end_of_text(clips):
  ids = clips.encode(["a cat <end_of_text> a dog"], 32)[0]
  assert (ids == clips.eos_id).sum() == 1 and (ids != 0).sum() > 8


@pytest.mark.parametrize("length", [3, 7])
def test_every_kind_keeps_eos_when_it_cuts(clips, json_file, length, data_dir):
  model = data_dir / "emoji_views" / "tokenizer.model"
  for tokenizer in (clips, make("bytes"), make("word_parts"), make(f"huggingface:{json_file}"), make(str(model))):
    ids = tokenizer.encode(["red heart red heart red heart red heart", ""], length)
    assert ids.dtype == np.int32 and ids.shape == (2, length)
    assert (ids[:, 0] == tokenizer.bos_id).all() and ids[0, -1] == ids[1, 1] == tokenizer.eos_id
    assert not np.isin(ids[0, 1:-1], [tokenizer.bos_id, tokenizer.eos_id]).any()
    assert (ids[1, 2:] == tokenizer.pad_id).all()


def test_half_a_surrogate_pair_is_a_question_mark(clips):
  for tokenizer in (clips, make("bytes"), make("word_parts")):
    np.testing.assert_array_equal(tokenizer.encode(["a\ud83d"], 8), tokenizer.encode(["a?"], 8))


def test_bytes():
  tokenizer = make("bytes")
  assert tokenizer.vocab_size == 259
  texts = ["h\u00e9llo, \u6f22\u5b57 \U0001f600", ""]
  ids = tokenizer.encode(texts, 40)
  assert list(ids[0, :4]) == [1, ord("h") + 3, 0xC3 + 3, 0xA9 + 3] and ids.max() < 259
  assert tokenizer.decode(ids) == texts
  assert list(tokenizer.encode(["A"], 3)[0]) == [1, ord("a") + 3, 2]
  assert list(make("bytes", lower=False).encode(["A"], 3)[0]) == [1, ord("A") + 3, 2]


def test_word_parts_of_words_that_share_letters_are_shared():
  tokenizer = make("word_parts")
  ids = [set(row[1:-1]) for row in tokenizer.tokens(["Dogs", "a dog", "dog dog"])]
  assert [len(row) for row in tokenizer.tokens(["dog", "a dog", "", "-"])] == [2 + 7, 2 + 2 + 7, 2, 2]
  of_dog, of_a = ids[2], ids[1] - ids[2]
  assert len(of_dog) == 6 and len(of_a) == 1  # "<dog>" is a word and five letters of it
  assert len(of_dog & ids[0]) == 3  # "<do", "dog", "<dog"
  assert zlib.crc32(b"<dog") % 8192 + 3 in of_dog & ids[0]
  assert tokenizer.vocab_size == 8195 and (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (1, 2, 0)
  assert tokenizer.tokens(["DOG"]) == tokenizer.tokens(["dog"]) != make("word_parts", lower=False).tokens(["DOG"])
  of_a_id = next(iter(of_a))
  assert tokenizer.decode(tokenizer.encode(["a", ""], 8)) == [f"#{of_a_id} #{of_a_id}", ""]  # a word, and its 3 letters
  with pytest.raises(UserError, match="'word_parts' takes no path"):
    make("word_parts:8192")


def write_json(path, specials=("[PAD]", "[CLS]", "[SEP]"), **padding):
  """A word-level tokenizer.json with a template, truncation and padding of its own, which are not used."""
  words = [*specials, "[UNK]", "red", "heart", "Red"]
  model = library.Tokenizer(library.models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
  model.add_special_tokens(list(specials))
  model.pre_tokenizer = library.pre_tokenizers.Whitespace()
  model.enable_truncation(4)
  if padding:
    model.enable_padding(length=9, **padding)
  model.save(str(path))
  return path


@pytest.fixture(scope="module")
def json_file(tmp_path_factory):
  return write_json(tmp_path_factory.mktemp("json") / "tokenizer.json")


def test_a_file_of_the_tokenizers_package(json_file):
  tokenizer = make(f"huggingface:{json_file}", lower=False)
  assert (tokenizer.vocab_size, tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id) == (7, 0, 1, 2)
  texts = ["red heart", "Red red red red red"]
  ids = tokenizer.encode(texts, 8)
  assert ids.tolist() == [[1, 4, 5, 2, 0, 0, 0, 0], [1, 6, 4, 4, 4, 4, 2, 0]]
  assert tokenizer.decode(ids) == texts
  assert make(f"huggingface:{json_file}").encode(["RED"], 4).tolist() == [[1, 4, 2, 0]]


@pytest.mark.parametrize("text", ["red </s> heart", "<s>red heart</s> red", "red [PAD] heart", "red[MASK]heart"])
def test_a_caption_cannot_write_special_tokens_of_a_file(tmp_path, text):
  """As letters where the model knows letters, as the unknown token where it does not; "read" reads them."""
  specials = ("[PAD]", "<s>", "</s>", "[MASK]")
  words = write_json(tmp_path / "words.json", specials)
  letters = library.Tokenizer(library.models.BPE({**{token: n for n, token in enumerate(specials)},
                                                  **{chr(n): n - 28 for n in range(32, 127)}}, []))  # fmt: skip
  letters.add_special_tokens(list(specials))
  letters.save(str(tmp_path / "letters.json"))
  for path in (words, tmp_path / "letters.json"):
    tokenizer = make(f"huggingface:{path}", lower=False)
    ids = tokenizer.encode([text], 40)[0].tolist()
    inner = ids[1 : ids.index(2)]
    assert not {0, 1, 2} & set(inner) and set(ids[ids.index(2) + 1 :]) <= {0}
  assert tokenizer.decode([ids]) == [text] or tokenizer.decode([ids])[0].replace(" ", "") == text.replace(" ", "")
  assert 3 not in inner  # nor a special token that is none of pad, bos and eos
  read = make(f"huggingface:{words}", lower=False, special_tokens="read").encode([text], 12)[0].tolist()
  assert read != make(f"huggingface:{words}", lower=False).encode([text], 12)[0].tolist()


def test_special_tokens_are_read_by_one_kind_alone(clip_file):
  with pytest.raises(UserError, match=r"'read' is for 'huggingface:PATH'; for 'clip' leave it 'text'"):
    make(f"clip:{clip_file}", special_tokens="read")


def test_padding_of_a_file_without_a_pad_token(tmp_path):
  bare = write_json(tmp_path / "bare.json", ("<s>", "</s>"))
  tokenizer = make(f"huggingface:{bare}")
  assert tokenizer.pad_id == tokenizer.eos_id == 1
  assert tokenizer.decode(tokenizer.encode(["red heart"], 8)) == ["red heart"]
  padded = write_json(tmp_path / "padded.json", ("<s>", "</s>"), pad_id=2, pad_token="[UNK]")
  assert make(f"huggingface:{padded}").pad_id == 2


@pytest.mark.parametrize("pad, bos", [(-1, -1), (0, -1), (-1, 2)])
def test_a_model_without_pad_or_bos(tmp_path, pad, bos):
  path = tmp_path / "t5.model"
  with path.open("wb") as file:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(["red heart", "blue heart"] * 9), model_writer=file, vocab_size=275, model_type="bpe",
      byte_fallback=True, minloglevel=2, pad_id=pad, bos_id=bos, eos_id=1, unk_id=3)  # fmt: skip
  tokenizer = make(str(path))
  assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id) == (0 if pad == 0 else 1, bos, 1)
  ids = tokenizer.encode(["red heart", "", "red heart " * 9], 10)
  pieces = sentencepiece.SentencePieceProcessor(model_file=str(path)).encode("red heart")
  start = [bos] * (bos >= 0)
  assert list(ids[0]) == ([*start, *pieces, 1] + [tokenizer.pad_id] * 9)[:10]
  assert list(ids[1][: len(start) + 1]) == [*start, 1] and ids[2, -1] == 1 and (ids[2, len(start) : -1] > 3).all()
  assert tokenizer.decode(ids)[:2] == ["red heart", ""]


def test_texts_of_a_run(clip_file):
  settings = dict(views=dict(text=2), text_length=24)
  for change in (dict(tokenizer="bytes"), dict(tokenizer=f"clip:{clip_file}", token_ids=dict(bos=49406, eos=49407))):
    batches = pipeline.train_batches(settings | change, seed=0, batch_size=16, source=Toy(20))
    text = next(batches)["text"]
    batches.close()
    end = change.get("token_ids", dict(eos=2))["eos"]
    assert text.shape == (16, 2, 24) and ((text == end).sum(axis=2) == 1).all()
  with pytest.raises(UserError, match="bos_id is 49406, the config says 1"):
    pipeline.train_batches({**settings, "tokenizer": f"clip:{clip_file}"}, seed=0, batch_size=16, source=Toy(20))


def test_what_cannot_be_a_tokenizer(tmp_path, clip_file):
  (tmp_path / "text.json").write_text("{}")
  write_json(tmp_path / "no_eos.json", ("[PAD]", "<s>"))
  short = tmp_path / "short.gz"
  short.write_bytes(gzip.compress(b"#version\ni n\nt h\n"))
  few = tmp_path / "few.gz"
  few.write_bytes(gzip.compress(b"#version\ni n\nt h"))
  cases = [
    ("clop", UserError, "no kind 'clop'; did you mean 'clip'"),
    ("some/where", UserError, "or give the path of a .model"),
    ("bytes:there", UserError, "takes no path"),
    ("huggingface", UserError, "huggingface:PATH"),
    ("sentencepiece", UserError, "dataset toy has no tokenizer"),
    (f"clip:{tmp_path}/none.gz", MissingData, "no such file"),
    (f"clip:{tmp_path}/text.json", UserError, "not a gzip file"),
    (f"clip:{short}", UserError, "line 4 is not a pair"),
    (f"clip:{few}", UserError, "2 merges, 48894 are needed"),
    (f"huggingface:{tmp_path}/none.json", MissingData, "no such file"),
    (f"huggingface:{tmp_path}/text.json", UserError, "not a file of the tokenizers package"),
    (f"huggingface:{tmp_path}/no_eos.json", UserError, "has no eos token; add one of"),
  ]
  for name, kind, message in cases:
    with pytest.raises(kind, match=message.replace("(", r"\(")) as error:
      make(name, dataset="toy")
    assert "\n" not in str(error.value)
  with pytest.raises(UserError, match="CLIP's vocabulary has no upper case"):
    make(f"clip:{clip_file}", lower=False)


def test_ids_that_the_config_was_told_otherwise(clips):
  clips.check(pad_id=0, bos_id=49406, eos_id=49407)
  message = r"bos_id is 49406, the config says 1; set data.token_ids=dict\(pad=0, bos=49406, eos=49407\)"
  with pytest.raises(UserError, match=message):
    clips.check(pad_id=0, bos_id=1)


def test_packages_that_are_not_there_and_the_file_of_open_clip(clip_file, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "ftfy", None)
  with pytest.raises(UserError, match=r"'clip' needs the package ftfy; pip install 'mmcontrast\[text\]'"):
    make(f"clip:{clip_file}")
  monkeypatch.undo()
  monkeypatch.setattr(clip.importlib.util, "find_spec", lambda name: None)
  with pytest.raises(MissingData, match="no open_clip is installed; give 'clip:PATH'"):
    make("clip")
  folder = tmp_path / "open_clip"
  folder.mkdir()
  (folder / "__init__.py").write_text("raise ImportError('found, not imported')")
  (folder / clip.FILE).write_bytes(clip_file.read_bytes())
  monkeypatch.undo()
  monkeypatch.syspath_prepend(tmp_path)
  assert make("clip").vocab_size == 49408
