"""Terms of every kind at several widths: what they sum, what they share, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import assert_close, compiled, make_mesh

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError
from mmcontrast.objectives import terms as objective
from mmcontrast.objectives.term import Run

pytestmark = pytest.mark.usefixtures("float64")
N, D, WIDTHS, WEIGHTS = 8, 6, (3, 4, 6), (0.5, 2.0, 1.0)
IMAGE, OTHER, TEXT = "image[0]/joint", "image[1]/joint", "text[0]/joint"
MOMENTUM, TEACHER, TOKENS, WORDS = "text[0]/joint@momentum", "image[0]/teacher", "image[0]/tokens", "text[0]/tokens"
PAIR = dict(query=IMAGE, key=TEXT, direction="both", temperature=dict(init=0.1, learned=True))
TERMS = {
  "pair": PAIR,
  "sigmoid": dict(PAIR, criterion="sigmoid", bias=-2.0),
  "views": dict(query=(IMAGE, OTHER), key=(IMAGE, OTHER), temperature=0.2),
  "queued": dict(query=IMAGE, key=MOMENTUM, negatives="batch+queue:16"),
  "prototypes": dict(query=IMAGE, key=OTHER, prototypes=4, target=dict(name="same_label", label="kind")),
  "taught": dict(PAIR, target=dict(name="teacher", query=TEACHER, key=TEACHER, share=0.5, temperature=0.1)),
  "remembered": dict(PAIR, criterion="compositional"),
  "tokens": dict(query=WORDS, key=TOKENS, score="token_max"),
  "volume": dict(query=TEXT, key=(IMAGE, OTHER), score="gram_volume"),
  "uniform": dict(regularizer="uniformity", embeddings=(IMAGE, TEXT)),
  "variance": dict(regularizer="vicreg", embeddings=(IMAGE, TEXT)),
  "swav": dict(module=dict(name="swav", prototypes=5, queue=16, freeze_steps=0), embeddings=(IMAGE, OTHER)),
  "clusters": dict(module=dict(name="prototype_contrast", clusters=(3,)), embeddings=IMAGE),
  "classes": dict(module=dict(name="adaptive_negatives", hidden=3), embeddings=(IMAGE, TEXT)),
}


def at(widths, weights=(), terms=TERMS):
  """The terms at several widths."""
  return {name: dict(term, matryoshka=dict(widths=widths, weights=weights)) for name, term in terms.items()}


def unit(x):
  return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def given():
  """Embeddings, what terms have learned, queues, states."""
  with jax.enable_x64(True):
    terms, draw = objective.parse_terms(TERMS), np.random.default_rng(0)
    made = {
      path: jnp.asarray(draw.normal(size=(N, 3, D) if "tokens" in path else (N, D)))
      for path in objective.required_embeddings(terms)
    }
    shapes = {path: Encoded(x) for path, x in made.items() if x.ndim == 2}
    learned, states = (
      jax.tree.map(lambda x: x.astype(float) if x.dtype == jnp.float32 else x, start(terms, jax.random.key(1), shapes))
      for start in (objective.init_parameters, objective.init_states)
    )
    states["clusters"]["centroids_0"] = unit(jnp.asarray(draw.normal(size=(3, D))))
    for view in range(2):
      states["swav"] |= {f"queue_{view}": unit(jnp.asarray(draw.normal(size=(16, D)))), f"filled_{view}": jnp.int32(16)}
    queues = {
      name: {"keys": unit(jnp.asarray(draw.normal(size=(length, D)))), "id": jnp.arange(100, 100 + length)}
      for name, length in objective.queues(terms).items()
    }
    return made, learned, queues, states


def rows_of(config):
  """Term -> the rows of its table."""
  tables = objective.tables(objective.parse_terms(config))
  return {name: {column: jnp.full(N, 0.3 + 0.1 * k) for k, column in enumerate(of)} for name, of in tables.items()}


def results(config, made, learned, queues, states, rows=None, mesh=None, **options):
  """(loss, metrics, new rows, new states), gradients of embeddings and of what is learned."""
  terms, rows = objective.parse_terms(config), rows_of(config) if rows is None else rows
  info = {"id": jnp.arange(N), "labels": {"kind": jnp.arange(N) % 4}}

  def loss(made, learned):
    made = {path: Encoded(None, x) if x.ndim == 3 else x for path, x in made.items()}
    found = objective.evaluate_and_remember(
      terms, made, info, learned, queues, {}, mesh=mesh, states=states, remembered=rows, **options
    )
    return found[0], found

  (_, found), gradients = compiled(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(made, learned)
  return found, gradients


@pytest.fixture(scope="module")
def weighted(given):
  """All terms at widths 3, 4 and 6, of weights 0.5, 2 and 1."""
  with jax.enable_x64(True):
    return results(at(WIDTHS, WEIGHTS), *given)


def test_the_whole_embedding_alone_is_the_plain_term(given):
  """Weights 0, 0, 1: bit for bit, and metrics and what is remembered too."""
  wide = at(WIDTHS, (0, 0, 1))
  assert jax.tree.structure(rows_of(wide)) == jax.tree.structure(rows_of(TERMS))
  (expected, gradients), (found, own) = results(TERMS, *given), results(wide, *given)
  metrics = {name: value for name, value in found[1].items() if f"/{D}/" not in name}
  found = (found[0], metrics, *found[2:])
  jax.tree.map(np.testing.assert_array_equal, (found, own), (expected, gradients))


def test_the_loss_is_a_sum_over_prefixes(given, weighted):
  """Of the plain term on cut embeddings, with what it shares cut too and brought to unit length; so are gradients."""
  (made, learned, queues, states), (found, (of_made, _)) = given, weighted
  rows, total, gradients = rows_of(at(WIDTHS)), 0.0, jax.tree.map(jnp.zeros_like, made)
  for width, weight in zip(WIDTHS, WEIGHTS):
    own = {**learned, **{t: jax.tree.map(lambda x: unit(x[:, :width]) if x.ndim else x, learned[t])  # noqa: B023
                         for t in ("prototypes", "swav")}}  # fmt: skip
    hidden = learned["classes"]["hidden"]
    own["classes"] = {**learned["classes"], "hidden": {**hidden, "kernel": hidden["kernel"][:width]}}
    queue = {name: {**one, "keys": unit(one["keys"][:, :width])} for name, one in queues.items()}
    state = jax.tree.map(lambda x: unit(x[:, :width]) if x.ndim == 2 else x, states)  # noqa: B023
    narrow = {path: part if path == TEACHER else part[..., :width] for path, part in made.items()}
    kept = {t: {c: rows[t].get(f"{c}_{width}", rows[t][c]) for c in of} for t, of in rows_of(TERMS).items()}
    one, (gradient, _) = results(TERMS, narrow, own, queue, state, kept)
    total += weight * one[0]
    for name in TERMS:
      np.testing.assert_allclose(found[1][f"{name}/{width}/loss"], one[1][f"{name}/loss"], rtol=1e-9, err_msg=name)
    for column, value in one[2]["remembered"].items():
      key = column if width == D else f"{column}_{width}"
      np.testing.assert_allclose(found[2]["remembered"][key], value, rtol=1e-9)
    gradients = {
      path: whole.at[..., : gradient[path].shape[-1]].add(weight * gradient[path]) for path, whole in gradients.items()
    }
  np.testing.assert_allclose(found[0], total, rtol=1e-9)
  assert_close(of_made, gradients, 1e-8)
  assert jax.tree.structure(found[3]) == jax.tree.structure(states)


def test_on_four_devices(given):
  made, *given = given
  some = at((3, 6), terms={name: TERMS[name] for name in ("queued", "swav")})
  made = {path: made[path] for path in (IMAGE, OTHER, MOMENTUM)}
  one, four = (results(some, made, *given, mesh=make_mesh(devices), impl="ring", tile=2) for devices in (1, 4))
  assert_close(four, one, 1e-9)


def test_absent_examples_change_nothing(given):
  made = {path: given[0][path] for path in (IMAGE, TEXT)}
  term = objective.parse_terms({"t": dict(PAIR, temperature=0.1, matryoshka=WIDTHS)})
  info = {"valid": jnp.arange(N) < N - 1}
  broken = {path: x.at[-1].set(1e6) for path, x in made.items()}
  fewer = {path: x[:-1] for path, x in made.items()}
  loss = compiled(lambda made, info: objective.evaluate(term, made, info, {}, {}, {})[0])
  np.testing.assert_allclose(loss(broken, info), loss(fewer, {}), rtol=1e-9)


def test_its_matrices_are_those_of_all_widths():
  term = objective.parse_terms({"t": dict(PAIR, matryoshka=dict(widths=WIDTHS, weights=(0, 1, 1)))})["t"]
  nodes = {path: Encoded(jax.ShapeDtypeStruct((N, D), jnp.float32)) for path in (IMAGE, TEXT)}
  assert [(one.rows, one.columns, one.dim) for one in term.matrices(nodes, N)] == [(N, N, 4), (N, N, 6)]


def test_trained_widths():
  config = {"a": dict(PAIR, matryoshka=dict(widths=WIDTHS, weights=(0, 1, 1))), "b": TERMS["uniform"]}
  assert objective.trained_widths(config, "joint") == (4, 6)
  assert objective.trained_widths(config, "teacher") == objective.trained_widths({"b": PAIR}, "joint") == ()


@pytest.mark.parametrize(
  ("term", "message"),
  [
    (dict(PAIR, matryoshka=(4, 2, 6)), r"objective\.t\.matryoshka: \(4, 2, 6\) are not widths in ascending order"),
    (dict(PAIR, matryoshka=(0, 6)), r"matryoshka: \(0, 6\) are not widths"),
    (dict(PAIR, matryoshka=6), r"matryoshka: 6 are not widths"),
    (dict(PAIR, matryoshka=dict(width=(2, 6))), r"matryoshka: no option 'width'; did you mean 'widths'"),
    (dict(PAIR, matryoshka=dict(widths=(2, 6), weights=(1,))), r"weights: \(1,\) are not 2 numbers"),
    (dict(PAIR, matryoshka=dict(widths=(2, 6), weights=(1, 0))), r"weights: the last is 0"),
    (dict(PAIR, matryoshka=(2, 8)), r"the vectors of 'text\[0\]/joint' have 6 numbers.*end with 6, as in \(2, 6\)"),
    (dict(TERMS["volume"], matryoshka=(2, 6)), r"matryoshka: at width 2: objective\.t\.key: 3 vectors of length 2"),
    (dict(auxiliary="balance", embeddings=IMAGE, matryoshka=(2, 6)), r"objective\.t: no option 'matryoshka'"),
    (
      dict(module=dict(name="classification", label="kind"), embeddings="image[0]/match", matryoshka=WIDTHS),
      r"matryoshka: head 'match' gives logits, no vectors that could be cut; leave it out",
    ),
  ],
)
def test_wrong_widths(term, message):
  heads = {"joint": "image", "match": "image"}
  run = Run(heads, N, head_dims={"joint": D}, labels=("kind",), made={"joint": ("pooled",), "match": ("logits",)})
  with pytest.raises(UserError, match=message):
    objective.parse_terms({"t": term})["t"].check(run)


def test_a_head_whose_length_only_shapes_tell():
  term = objective.parse_terms({"t": dict(PAIR, matryoshka=(2, 8))})
  with pytest.raises(UserError, match=r"'image\[0\]/joint' have 6 numbers, and the last width is 8"):
    objective.init_parameters(term, jax.random.key(0), {IMAGE: Encoded(jnp.zeros((N, D)))})
