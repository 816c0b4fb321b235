"""Ranks and recall against hand-computed answers and a plain loop."""

import tracemalloc

import numpy as np
import pytest

from mmcontrast.errors import UserError
from mmcontrast.evaluation import embed as embed_module
from mmcontrast.evaluation import retrieval
from mmcontrast.evaluation.embedded_set import EmbeddedSet
from mmcontrast.evaluation.matches import matches_of


def _by_hand(queries, gallery, positives):
  """One query at a time, in float64."""
  queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
  gallery = gallery / np.linalg.norm(gallery, axis=1, keepdims=True)
  ranks = []
  for query, match in zip(queries, positives):
    scores = gallery @ query
    ranks.append(1 + sum(s >= scores[match].max() - 1e-6 for s in scores[~match]))
  return np.array(ranks)


def test_hand_computed():
  # Cosines of the queries with candidates 0, 1, 2 along the axes.
  queries = np.array([[3.0, 2, 1], [1, 3, 2], [3, 2, 1]])
  found = retrieval.retrieval(queries, np.eye(3), np.eye(3, dtype=bool))
  assert retrieval.ranks(queries, np.eye(3), np.eye(3, dtype=bool)).tolist() == [1, 1, 3]
  assert found["recall@1"] == pytest.approx(2 / 3)
  assert found["recall@5"] == found["recall@10"] == 1
  assert found["median_rank"] == 1
  assert (found["queries"], found["candidates"]) == (3, 3)


def test_several_captions_an_image_any_is_a_hit():
  image_id, caption_id = np.array([7, 9]), np.array([9, 7, 7])
  images = np.array([[1.0, 0], [0, 1]])
  texts = np.array([[0.9, 1.0], [-1, 0.1], [1, 0.1]])  # a bad and a good caption of image 7
  matches = retrieval.relevance(image_id, caption_id)
  assert matches.toarray().tolist() == [[False, True, True], [True, False, False]]
  assert retrieval.ranks(images, texts, matches).tolist() == [1, 1]
  assert retrieval.ranks(texts, images, matches.T).tolist() == [1, 2, 1]


def test_several_images_a_caption():
  matches = retrieval.relevance(np.array([1, 1, 2]), np.array([1, 2]))
  assert matches.toarray().tolist() == [[True, False], [True, False], [False, True]]


def test_captions_of_equal_wording_share_their_images():
  matches = retrieval.relevance(np.array([0, 1]), np.array([0, 1, 2]), ["zap", "zap", "bolt"])
  assert matches.toarray().tolist() == [[True, True, False], [True, True, False]]


def test_captions_that_the_tokenizer_makes_equal_are_no_rivals(world, capsys):
  """Two images, "A dog" and "a dog": the same ids, and so the same embedding."""
  vector = {"a dog": [1.0, 0.2], "a red cat": [0.0, 1.0]}
  ids = {"a dog": [1, 5, 2], "a red cat": [1, 6, 2]}  # "a red cat", "a red cat on a mat": cut to the same

  def seen(texts):
    return [next(key for key in ids if text.lower().startswith(key)) for text in texts]

  def embed(kind, values):
    if kind == "text":
      return np.array([vector[key] for key in seen(values)])
    return np.array([[1.0, 0.2], [1, 0.2], [0, 1], [0, 1]])

  words = ["A dog", "a dog", "a red cat", "a red cat on a mat"]
  data = world.set("s", False, range(4), captions=words, caption_id=np.arange(4))
  rivals = EmbeddedSet(data, embed)
  one = EmbeddedSet(
    data, embed, seen=lambda kind, values: np.array([ids[key] for key in seen(values)]) if kind == "text" else values
  )
  assert retrieval.evaluate([rivals], [])["s"]["image_to_text/recall@1"] == 0.0
  found = retrieval.evaluate([one], [])["s"]
  assert found["image_to_text/recall@1"] == found["text_to_image/recall@1"] == 1.0
  assert "s: 4 captions that are written differently are 2 to the model" in capsys.readouterr().err


def test_images_of_equal_pixels_share_their_captions():
  images = np.zeros((3, 2, 2, 3), np.uint8)
  images[2] = 1
  matches = retrieval.relevance(np.arange(3), np.arange(3), ["a", "b", "c"], images)
  assert matches.toarray().tolist() == [[True, True, False], [True, True, False], [False, False, True]]
  assert matches.T.toarray().tolist() == matches.toarray().T.tolist()


@pytest.mark.parametrize("captions", [["a", "b"] * 2000, [f"{'long ' * 20000}{n // 4}" for n in range(16)] * 250])
def test_memory_grows_with_the_answers_and_not_with_their_product(captions):
  """4,000 images of 2 class names match 8,000,000 captions, and a letter of the longest one costs 4,000: neither is
  ever in memory."""
  count, label = len(captions), np.array([ord(caption[-1]) for caption in captions])
  rows = np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32)
  tracemalloc.start()
  matches = retrieval.relevance(label, label, captions)
  of_matches = tracemalloc.get_traced_memory()[1]
  found = retrieval.retrieval(rows[:64], rows, matches_of(label[:64], label, None, matches.columns))
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert of_matches < 400 * count  # a few numbers each
  assert peak < 4e6  # chunks included
  assert found["queries"] == 64 and found["recall@1"] == 1.0


def test_a_query_with_very_many_matches_is_ranked_as_by_hand():
  rng = np.random.default_rng(2)
  image_id, caption_id = rng.integers(0, 3, 30), rng.integers(0, 3, 40)
  captions = [f"caption {n}" for n in rng.integers(0, 20, 40)]
  dense = np.array([[any(i == caption_id[k] for k in range(40) if captions[k] == captions[j]) for j in range(40)]
                    for i in image_id])  # fmt: skip
  matches = retrieval.relevance(image_id, caption_id, captions)
  assert (matches.toarray() == dense).all()
  images, texts = rng.normal(size=(30, 5)), rng.normal(size=(40, 5))
  assert retrieval.ranks(images, texts, matches).tolist() == _by_hand(images, texts, dense).tolist()


def test_queries_without_a_match_are_left_out_but_stay_candidates():
  matches = retrieval.relevance(np.array([0]), np.array([0, 1]))
  texts = np.array([[1.0, 0.2], [1, 0]])
  to_image = retrieval.retrieval(texts, np.array([[1.0, 0]]), matches.T)
  assert (to_image["queries"], to_image["recall@1"]) == (1, 1)
  to_text = retrieval.retrieval(np.array([[1.0, 0]]), texts, matches)
  assert (to_text["candidates"], to_text["recall@1"], to_text["median_rank"]) == (2, 0, 2)


@pytest.mark.parametrize("dim", [1, 3, 512])
def test_a_constant_embedding_finds_nothing(dim):
  row = np.random.default_rng(0).normal(size=dim)
  same = np.tile(row, (100, 1))
  found = retrieval.retrieval(same, same, np.eye(100, dtype=bool))
  assert found["recall@1"] == found["recall@10"] == 0
  assert found["median_rank"] == 100


def test_zero_embeddings_find_nothing():
  zero = np.zeros((20, 4))
  assert retrieval.retrieval(zero, zero, np.eye(20, dtype=bool))["recall@10"] == 0


def test_ragged_chunks_do_not_change_ranks(monkeypatch):
  rng = np.random.default_rng(1)
  image_id, caption_id = rng.integers(0, 40, 53), rng.integers(0, 40, 91)
  image_id, caption_id = np.append(image_id, np.arange(40)), np.append(caption_id, np.arange(40))
  images, texts = rng.normal(size=(93, 8)), rng.normal(size=(131, 8))
  matches = retrieval.relevance(image_id, caption_id)
  expected = _by_hand(images, texts, matches.toarray())
  assert retrieval.ranks(images, texts, matches).tolist() == expected.tolist()
  chunks = embed_module.row_chunks
  monkeypatch.setattr(retrieval, "row_chunks", lambda rows, columns: chunks(rows, columns, 7 * 131))
  assert retrieval.ranks(images, texts, matches).tolist() == expected.tolist()


def test_row_chunks_cover_every_row_once():
  rows = np.concatenate([np.arange(103)[part] for part in embed_module.row_chunks(103, 10, 100)])
  assert rows.tolist() == list(range(103))


def test_no_match_at_all():
  with pytest.raises(UserError, match="none of the 2 queries has a match among the 3"):
    retrieval.retrieval(np.ones((2, 3)), np.ones((3, 3)), np.zeros((2, 3), bool))


def test_evaluate_both_ways(world):
  partial = EmbeddedSet(world.set("partial", False, range(40)), world.embed)
  found = retrieval.evaluate([partial], [])["partial"]
  assert found["image_to_text/recall@1"] > 0.9
  assert (found["image_to_text/queries"], found["image_to_text/candidates"]) == (40, 60)
  assert (found["text_to_image/queries"], found["text_to_image/candidates"]) == (40, 40)
