"""Other examples that are drawn: whom, how often, from how many devices; what is gathered of them, and its gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import compiled, make_mesh

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError
from mmcontrast.objectives import terms as objective
from mmcontrast.objectives.drawn_pairs import Drawer, draw_of
from mmcontrast.objectives.embedding_path import parse_embedding
from mmcontrast.objectives.other_examples import draw_others, take_others
from mmcontrast.objectives.presence import taking_part

N = 16
TEXT, IMAGE = "fusion(text[0]~pair, image[0])/match", "fusion(text[0], image[0]~pair)/match"
PAIR = dict(query="image[0]/image_joint", key="text[0]/text_joint", direction="both", temperature=0.5)
MATCH = dict(module=dict(name="matching"), embeddings=("fusion(text[0], image[0])/match", TEXT, IMAGE))
FACTS = dict(
  seed=np.random.default_rng(0).integers(0, 2**32, N, dtype=np.uint32),
  id=np.array([*range(N - 2), 3, 4], np.int32),  # the last two are of the same things as 3 and 4
  valid=np.arange(N) != 7,
  present={"text": np.arange(N) != 2, "image": np.arange(N) != 9},
)


def embeddings(seed=0, dim=4):
  draw = np.random.default_rng(seed)
  return {name: Encoded(jnp.asarray(draw.normal(size=(N, dim)))) for name in (PAIR["query"], PAIR["key"])}


def drawn(path, facts=FACTS, mesh=None, made=None, terms=None):
  """Whom each example draws in the place of its own view."""
  terms = objective.parse_terms(terms or dict(pair=PAIR))
  drawer = Drawer(terms, facts, {}, {}, {}, mesh)
  places = Encoded(tokens=jnp.arange(float(N))[:, None, None])
  return drawer(parse_embedding(path).drawn[0], places, made or embeddings()).tokens[:, 0, 0].astype(int)


@pytest.mark.parametrize("path", [TEXT, IMAGE, TEXT.replace("pair", "uniform")])
def test_never_itself_nor_what_is_not_there(path):
  modality = parse_embedding(path).drawn[0].modality
  there = FACTS["valid"] & FACTS["present"][modality]
  for seed in range(5):
    facts = FACTS | dict(seed=FACTS["seed"] + np.uint32(seed))
    found = np.asarray(drawn(path, facts))
    assert there[found].all() and (FACTS["id"][found] != FACTS["id"]).all() and len(set(found)) > 4


@pytest.mark.parametrize("path", [TEXT, IMAGE])
def test_the_same_on_any_number_of_devices_and_in_any_order(path):
  once = np.asarray(drawn(path))
  for devices in (2, 8):
    np.testing.assert_array_equal(compiled(functools.partial(drawn, path, mesh=make_mesh(devices)))(), once)
  order = np.random.default_rng(1).permutation(N)
  shuffled = jax.tree.map(lambda x: x[order], (FACTS, embeddings()))
  np.testing.assert_array_equal(order[np.asarray(drawn(path, shuffled[0], made=shuffled[1]))], once[order])


def test_as_often_as_the_softmax_says():
  made, counts, rounds = embeddings(3, dim=2), np.zeros((N, N)), 400
  unit = {name: x.pooled / jnp.linalg.norm(x.pooled, axis=-1, keepdims=True) for name, x in made.items()}
  logits = np.array(unit[PAIR["query"]] @ unit[PAIR["key"]].T / PAIR["temperature"])
  np.fill_diagonal(logits, -np.inf)
  wanted = np.asarray(jax.nn.softmax(logits, -1))
  facts = {"id": np.arange(N)}
  many = compiled(jax.vmap(lambda seed: drawn(TEXT, facts | {"seed": seed}, made=made)))
  for row in many(np.random.default_rng(2).integers(0, 2**32, (rounds, N), dtype=np.uint32)):
    counts[np.arange(N), row] += 1
  away = (counts / rounds - wanted) / np.sqrt(np.maximum(wanted * (1 - wanted), 1e-9) / rounds)
  assert np.abs(away).max() < 5 and 0.8 < np.std(away[~np.eye(N, dtype=bool)]) < 1.2


def test_a_score_of_several_keys_draws_them_together():
  term = dict(query="image[0]/a", key=("text[0]/b", "text[1]/c"), score="gram_volume", temperature=0.1)
  names = ("image[0]/a", "text[0]/b", "text[1]/c")
  made = {n: Encoded(jnp.asarray(np.random.default_rng(k).normal(size=(N, 6)))) for k, n in enumerate(names)}
  together = "fusion(text[0]~v, text[1]~v, image[0])/match"
  terms = objective.parse_terms(dict(v=term))
  assert len({draw_of(leaf, terms) for leaf in parse_embedding(together).drawn}) == 1
  assert len(set(np.asarray(drawn(together, made=made, terms=dict(v=term))))) > 4
  found = drawn("fusion(text[0], text[1], image[0]~v)/match", made=made, terms=dict(v=term))
  assert (np.asarray(found) != np.arange(N)).all()


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("devices", [1, 4])
def test_what_is_gathered_and_its_gradient(devices):
  draw, mesh = np.random.default_rng(0), make_mesh(devices)
  tree = {"tokens": jnp.asarray(draw.normal(size=(N, 3, 2))), "mask": jnp.asarray(draw.random((N, 3)) < 0.5)}
  index, weight = jnp.asarray(draw.integers(0, N, N)), jnp.asarray(draw.normal(size=(N, 3, 2)))

  def loss(tokens, mesh):
    taken = take_others(tree | {"tokens": tokens}, index, mesh)
    return jnp.sum(weight * taken["tokens"] * taken["mask"][..., None])

  value, gradient = compiled(jax.value_and_grad(functools.partial(loss, mesh=mesh)))(tree["tokens"])
  kept = weight * tree["mask"][index][..., None]
  np.testing.assert_allclose(value, jnp.sum(kept * tree["tokens"][index]), rtol=1e-12)
  np.testing.assert_allclose(gradient, jnp.zeros_like(weight).at[index].add(kept), atol=1e-12)


def test_no_device_holds_the_tokens_of_the_batch():
  """Of the compiled program, backward pass included: what a device needs beside its own rows."""
  devices, n, width = 8, 64, 256
  mesh, tokens = make_mesh(devices), jnp.zeros((n, 64, width), jnp.float32)
  cut = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
  loss = lambda x, index: jnp.sum(take_others(x, index, mesh) ** 2)  # noqa: E731
  step = jax.jit(jax.grad(loss), in_shardings=(cut, cut), out_shardings=cut)
  used = step.lower(tokens, jnp.arange(n)).compile().memory_analysis().temp_size_in_bytes
  assert used < 6 * tokens.nbytes / devices < tokens.nbytes


def test_who_takes_part():
  both = {"text": np.array([1, 1, 0, 1], bool), "image": np.array([1, 0, 1, 1], bool)}
  info = {"id": np.array([1, 2, 3, 1]), "present": both}
  assert taking_part(info, [TEXT]).tolist() == [True, False, True, True]  # by text 1 or by 0 and 3
  assert taking_part(info, [IMAGE]).tolist() == [True, True, False, True]
  alone = {"id": np.array([5, 5, 6]), "valid": np.array([True, True, False])}
  assert taking_part(alone, [TEXT]).tolist() == [False, False, False]
  assert taking_part({"valid": np.ones(1, bool), "id": np.array([4])}, [TEXT]).tolist() == [False]


@pytest.mark.usefixtures("float64")
def test_matching_is_a_mean_over_pairs_that_are_there():
  terms = objective.parse_terms(dict(match=MATCH))
  logits = np.random.default_rng(0).normal(size=(3, N, 2))
  made = {name: Encoded(logits=jnp.asarray(x)) for name, x in zip(MATCH["embeddings"], logits)}

  def loss(made, facts):
    return objective.evaluate(terms, made, facts, {}, {}, {})

  (value, metrics), gradient = compiled(jax.value_and_grad(loss, has_aux=True))(made, FACTS)
  there = FACTS["valid"] & FACTS["present"]["text"] & FACTS["present"]["image"]
  each = np.log(np.exp(logits).sum(-1)) - np.stack([logits[0, :, 1], logits[1, :, 0], logits[2, :, 0]])
  np.testing.assert_allclose(value, each[:, there].mean(), rtol=1e-12)
  assert metrics["match/anchors"] == there.sum()
  right = logits.argmax(-1) == np.array([[1], [0], [0]])
  np.testing.assert_allclose(metrics["match/mismatched_right"], right[1:, there].mean())
  for x in gradient.values():
    assert (np.asarray(x.logits)[~there] == 0).all() and (np.asarray(x.logits)[there] != 0).all()
  one = jax.tree.map(lambda x: x[:1], made)
  assert loss(one, {"id": np.array([3]), "valid": np.ones(1, bool)})[0] == 0


HEADS = {"image_joint": "image", "text_joint": "text", "match": "fusion", "wide": "fusion"}
RUN = dict(
  heads=HEADS,
  batch_size=8,
  made={"match": {"logits"}, "wide": {"logits"}},
  head_dims={"match": 2, "wide": 3},
  towers={"text": "text", "image": "image"},
  reads={"fusion": ("text", "image")},
)
BOTH = dict(query="image[0]/image_joint", key="image[1]/image_joint")


@pytest.mark.parametrize(
  ("path", "message"),
  [
    (TEXT.replace("pair", "par"), r"text\[0\] is drawn, and there is no term 'par'; did you mean 'pair'"),
    (TEXT.replace("pair", "match"), r"text\[0\] is drawn, and objective\.match compares nothing; .*pair, uniform"),
    (TEXT.replace("pair", "images"), r"objective\.images has text on neither side; name a term that compares text"),
    (IMAGE.replace("pair", "images"), r"objective\.images has image on both sides"),
    ("fusion(text[0]~pair, image[0]~pair)/match", r"the image of an example draws text\[0\], and the path reads no"),
    (f"{TEXT}@momentum", r"only the online branch has drawn examples; write 'fusion\(text\[0\]~pair, image\[0\]\)/m"),
    (TEXT.replace("[0]~", "[5]~"), r"data\.views\.text is 1, so text\[0\] to \[0\] exist"),
    ("text[0]~pair/text_joint", r"is not the path of an embedding; write view/head"),
    (TEXT.replace("/match", "/wide"), r"different lengths \('match' 2, 'wide' 3\); make their dim equal"),
    (
      ("fusion(text[0], image[0])/wide", TEXT.replace("/match", "/wide")),
      r"embeddings: head 'wide' gives 3 logits, and a pair matches or does not; set .*wide\.dim=2",
    ),
    ("fusion(text[0], image[1])/match", r"match\.embeddings: all 2 pairs are as they are; name pairs that match and"),
  ],
)
def test_what_cannot_be_drawn(path, message):
  match = MATCH | dict(embeddings=path if isinstance(path, tuple) else (MATCH["embeddings"][0], path))
  with pytest.raises(UserError, match=message) as error:
    terms = objective.parse_terms(dict(pair=PAIR, images=BOTH, match=match))
    objective.check_terms(terms, views={"image": 2, "text": 1}, **RUN)
  assert "\n" not in str(error.value)


def test_a_batch_of_one_is_said(capsys):
  uniform = tuple(name.replace("~pair", "~uniform") for name in MATCH["embeddings"])
  terms = objective.parse_terms(dict(match=MATCH | dict(embeddings=uniform)))
  for _ in range(2):
    objective.check_terms(terms, views={"image": 1, "text": 1}, **RUN | dict(batch_size=1))
  said = capsys.readouterr().err
  assert said.count("objective.match: config.batch.size=1 has no other example to draw, so it is 0 in every step") == 1


def test_nothing_to_draw_is_finite():
  index = draw_others(None, None, None, np.arange(1, dtype=np.uint32), np.arange(1), np.ones(1, bool))
  assert index.tolist() == [0]
