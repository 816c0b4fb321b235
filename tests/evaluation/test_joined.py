"""Scores of joined keys against determinants and products by hand, in tiles, and through a model."""

import numpy as np
import pytest

from mmcontrast.errors import UserError
from mmcontrast.evaluation import joined, retrieval
from mmcontrast.evaluation.embedded_set import EmbeddedSet
from mmcontrast.objectives.multiway_scores import GramVolume, Multilinear


def _rows(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _unit(x):
  return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize("keys", [2, 3])
def test_gram_is_minus_the_root_of_the_determinant(keys):
  queries, given = _rows(5, 8), [_rows(7, 8, seed=seed) for seed in range(1, keys + 1)]
  found = joined.scores(GramVolume(floor=0.0), queries, joined.columns(GramVolume(floor=0.0), given))
  for i, query in enumerate(_unit(queries)):
    for j in range(7):
      vectors = np.stack([query, *(_unit(key)[j] for key in given)]).astype(np.float64)
      assert found[i, j] == pytest.approx(-np.sqrt(np.linalg.det(vectors @ vectors.T)), abs=1e-5)


def test_multilinear_is_the_sum_of_products_whatever_the_tiles(monkeypatch):
  queries, a, b = _rows(5, 8), _rows(11, 8, seed=1), _rows(11, 8, seed=2)
  expected = np.einsum("id,jd,jd->ij", *map(_unit, (queries, a, b)))
  monkeypatch.setattr(joined, "_TILE", 4)
  columns = joined.columns(Multilinear(), [a, b])
  np.testing.assert_allclose(joined.scores(Multilinear(), queries, columns), expected, atol=1e-6)
  assert joined.scores(Multilinear(), queries, columns[:0]).shape == (5, 0)


def test_the_terms_that_join_are_read_from_an_objective():
  triple = dict(query="text[0]/words", key=("image[0]/pictures", "text[1]/words@momentum"), score="gram_volume")
  pair = dict(query="image[0]/pictures", key="text[0]/words")
  only = dict(regularizer="uniformity", embeddings="image[0]/pictures")
  found = joined.joined_terms(dict(pair=pair, volume=triple, spread=only))
  assert [(term.name, term.query.kind, [key.kind for key in term.keys]) for term in found] == [
    ("volume", "text/words", ["image/pictures", "text/words"])]  # fmt: skip
  assert found[0].words == "text[0] with image[0] and text[1]"
  assert joined.joined_terms({}) == []


def test_a_model_embeds_what_a_joined_term_reads():
  from tiny import tiny_inference

  model = tiny_inference()
  with pytest.raises(UserError, match="no such choice 'text/word'"):
    model.embed("text/word", ["a"])
  objective = dict(volume=dict(query="text[0]/words", key=("image[0]/pictures", "text[1]/words"), score="gram_volume"))
  again = type(model)({**model.config, "objective": objective}, model.model, model.variables, model.tokenizer)
  assert [term.name for term in again.joined] == ["volume"] and model.joined == []
  np.testing.assert_array_equal(again.embed("text/words", ["a", "bcd"]), model.embed("text", ["a", "bcd"]))
  images = np.zeros((2, 16, 16, 3), np.uint8)
  np.testing.assert_array_equal(again.embed("image/pictures", images), model.embed("image", images))


def test_retrieval_by_the_terms_own_score(world, capsys):
  """Three that are alike only in product: cosines of two say nothing, the term's score finds all."""
  draw = np.random.default_rng(0)
  signs = draw.choice([-1.0, 1.0], (2, 40, 64))
  rows = {"image": signs[0] * signs[1], "text/words": None}
  objective = dict(product=dict(query="image[0]/pictures", key=("text[0]/words", "text[1]/words"), score="multilinear"))

  def embed(kind, values):
    if kind.startswith("image"):
      return rows["image"][[int(image[0, 0, 0]) for image in values]]
    return np.stack([signs[int(text.split()[0] == "de")][int(text.split()[1])] for text in values])

  views = tuple([f"{language} {n}" if n else "" for n in range(40)] for language in ("en", "de"))
  data = world.set("s", False, range(40), captions=[f"en {n}" for n in range(40)], caption_id=np.arange(40),
                   text_views=views, example_id=np.arange(40), example_image=np.arange(40))  # fmt: skip
  found = retrieval.evaluate([EmbeddedSet(data, embed, joined=joined.joined_terms(objective))], [])["s"]
  assert found["image_to_text/recall@1"] < 0.2
  for way in ("query_to_keys", "keys_to_query"):
    assert found[f"product_{way}/recall@1"] == 1.0
    assert found[f"product_{way}/candidates"] == 39  # the first has no names
  alone = EmbeddedSet(world.set("s", False, range(40)), embed, joined=joined.joined_terms(objective))
  assert isinstance(alone.views_of(joined.joined_terms(objective)[0].keys), str)
