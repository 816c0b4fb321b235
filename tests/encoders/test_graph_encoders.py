"""Towers of graphs: what a node hears and where it is beside loops, padding and order of nodes, several devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from mmcontrast.data.tokenizers import make_tokenizer
from mmcontrast.encoders import build_encoder
from mmcontrast.encoders.graph_layers import TypedMessages, edges_between, return_probabilities
from mmcontrast.errors import UserError
from mmcontrast.modalities.hashed_words import hashed_words

KINDS, NODES, WIDTH, BATCH = 3, 6, 5, 4
DRAW = np.random.default_rng(0)
REAL = np.arange(NODES) < np.array([[6], [4], [0], [5]])
FEATURES = DRAW.normal(size=(BATCH, NODES, WIDTH)).astype(np.float32)
# Of real nodes, of nodes that are padding, of kinds that are none, padding; one edge twice.
EDGES = DRAW.integers(0, NODES, (BATCH, 9, 3)).astype(np.int32)
EDGES[..., 2] %= KINDS
EDGES[0, 0], EDGES[0, 1], EDGES[0, 2], EDGES[0, 8] = (0, 1, KINDS), (0, NODES, 0), EDGES[0, 3], (-1, -1, -1)
TOWERS = {
  "graph_transformer": dict(width=8, depth=1, heads=2, kinds=KINDS, steps=3),
  "gcn": dict(width=8, depth=2, kinds=KINDS, pool="mean_and_centre"),
}


def real_edges(example):
  return [
    (a, b, kind) for a, b, kind in EDGES[example].tolist()
    if 0 <= kind < KINDS and all(0 <= end < NODES and REAL[example, end] for end in (a, b))
  ]  # fmt: skip


@pytest.mark.parametrize("normalize", ["mean", "symmetric"])
def test_a_node_hears_its_neighbours_by_kind_and_direction(normalize):
  with jax.enable_x64(True):
    layer, x = TypedMessages(KINDS, normalize), jnp.asarray(FEATURES, jnp.float64)

    @jax.jit
    def run(x):
      between = edges_between(jnp.asarray(EDGES), jnp.asarray(REAL), KINDS)
      shapes = jax.eval_shape(layer.init, jax.random.key(0), x, between)["params"]
      draw = np.random.default_rng(1)
      params = jax.tree.map(lambda leaf: jnp.asarray(draw.normal(size=leaf.shape)), shapes)
      return layer.apply({"params": params}, x, between), params

    made, params = run(x)
  by_kind = np.asarray(params["neighbours"]["kernel"]).reshape(2 * KINDS, WIDTH, WIDTH)
  for example in range(BATCH):
    told = real_edges(example)
    told = [(a, b, kind) for a, b, kind in told] + [(b, a, kind + KINDS) for a, b, kind in told]
    heard_by = lambda node, kind: sum(b == node and k == kind for _, b, k in told)  # noqa: E731, B023
    told_by = lambda node, kind: sum(a == node and k == kind for a, _, k in told)  # noqa: E731, B023
    own = FEATURES[example].astype(np.float64)
    wanted = own @ np.asarray(params["itself"]["kernel"]) + np.asarray(params["itself"]["bias"])
    for a, b, kind in told:
      scale = 1 / heard_by(b, kind)
      scale = scale if normalize == "mean" else 1 / np.sqrt(heard_by(b, kind) * told_by(a, kind))
      wanted[b] += scale * own[a] @ by_kind[kind]
    np.testing.assert_allclose(made[example], wanted, rtol=1e-9, atol=1e-9)


def test_walks_come_back_as_powers_say():
  found = jax.jit(lambda e, m: return_probabilities(edges_between(e, m, KINDS), NODES, 4))(EDGES, REAL)
  for example in range(BATCH):
    adjacency = np.zeros((NODES, NODES))
    for a, b, _ in real_edges(example):
      adjacency[a, b] = adjacency[b, a] = 1
    walk = adjacency / np.maximum(adjacency.sum(1, keepdims=True), 1)
    wanted = [np.diag(np.linalg.matrix_power(walk, step)) for step in range(1, 5)]
    np.testing.assert_allclose(found[example], np.stack(wanted, -1), atol=1e-6)


@pytest.fixture(scope="module", params=list(TOWERS))
def tower(request):
  """A tower, its weights, and what it makes of nodes, mask and edges."""
  module = build_encoder(dict(name=request.param, **TOWERS[request.param]))
  shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), FEATURES, REAL, EDGES, train=False))
  draw = np.random.default_rng(2)
  variables = jax.tree.map(lambda leaf: draw.normal(0, 0.4, leaf.shape).astype(np.float32), shapes)
  return module, variables, jax.jit(lambda *graphs: module.apply(variables, *graphs, train=False))


def test_neither_padding_nor_the_order_of_nodes_changes_anything(tower):
  _, _, run = tower
  made = run(FEATURES, REAL, EDGES)
  assert made.tokens.shape == (BATCH, NODES, 8) and np.isfinite(made.pooled).all()
  other = np.where(REAL[..., None], FEATURES, 7)
  np.testing.assert_array_equal(made.pooled, run(other, REAL, EDGES).pooled)
  more = [np.pad(x, ((0, 0), (0, 3), *((0, 0),) * (x.ndim - 2)), constant_values=fill)
          for x, fill in ((FEATURES, 3), (REAL, False), (EDGES, -1))]  # fmt: skip
  # Of the first example edges named nodes beyond the padding, which are there now but still not real.
  np.testing.assert_allclose(made.pooled, run(*more).pooled, atol=2e-6)
  order = np.array([0, 3, 1, 2])  # the second example's real nodes, the centre first
  place = np.argsort(np.concatenate([order, [4, 5]]))
  moved, edges = FEATURES.copy(), EDGES.copy()
  moved[1, :4] = FEATURES[1, order]
  edges[1, :, :2] = place[EDGES[1, :, :2]]
  again = run(moved, REAL, edges[:, ::-1])
  np.testing.assert_allclose(made.pooled, again.pooled, atol=2e-6)
  np.testing.assert_allclose(made.tokens[1, order], again.tokens[1, :4], atol=2e-6)


def test_kinds_directions_and_edges_matter(tower):
  _, _, run = tower
  pooled = np.asarray(run(FEATURES, REAL, EDGES).pooled)
  turned, other, none = EDGES[..., [1, 0, 2]], EDGES.copy(), np.full_like(EDGES, -1)
  other[..., 2] = np.where(EDGES[..., 2] < KINDS, (EDGES[..., 2] + 1) % KINDS, EDGES[..., 2])
  for edges in (turned, other, none):
    changed = np.abs(np.asarray(run(FEATURES, REAL, edges).pooled) - pooled).max(1) > 1e-3
    assert changed[[0, 1, 3]].all()


def test_values_and_gradients_are_those_of_one_device(tower):
  module, variables, _ = tower

  def loss(variables, *graphs):
    return jnp.sum(jnp.sin(module.apply(variables, *graphs, train=True).pooled))

  value = jax.jit(jax.value_and_grad(loss), compiler_options={"xla_backend_optimization_level": 0})
  one = value(variables, FEATURES, REAL, EDGES)
  mesh = jax.make_mesh((4,), ("data",), devices=jax.devices()[:4], axis_types=(AxisType.Auto,))
  cut = NamedSharding(mesh, PartitionSpec("data"))
  several = value(variables, *(jax.device_put(x, cut) for x in (FEATURES, REAL, EDGES)))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5), one, several)


def test_pools_and_loops():
  def shapes(**options):
    module = build_encoder({"name": "graph_transformer", **TOWERS["graph_transformer"], **options})
    made = jax.eval_shape(lambda: module.init_with_output(jax.random.key(0), FEATURES, train=False))
    return made[0], made[1]["params"]

  made, params = shapes(pool="cls", scan=True)
  assert made.pooled.shape == (BATCH, 8) and made.tokens.shape == (BATCH, NODES, 8)
  assert "cls_token" in params and "pool" not in params
  assert params["blocks"]["messages"]["neighbours"]["kernel"].shape == (1, 2 * KINDS * 8, 8)
  assert "pool" not in shapes(pool="gap")[1] and "place" not in shapes(steps=0)[1]


def test_what_nodes_came_in_with_is_weighed_by_what_they_became():
  module = build_encoder(dict(name="graph_transformer", **TOWERS["graph_transformer"], pool="features"))
  made, variables = module.init_with_output(jax.random.key(3), FEATURES, REAL, EDGES, train=False)
  pool = variables["params"]["pool"]
  for example in range(BATCH):
    real = REAL[example]
    scores = (np.asarray(made.tokens[example]) @ np.asarray(pool["kernel"]) + np.asarray(pool["bias"]))[real, 0]
    weights = np.exp(scores - scores.max(initial=-np.inf))
    wanted = weights @ FEATURES[example][real] / weights.sum() if real.any() else np.zeros(WIDTH)
    np.testing.assert_allclose(made.pooled[example], wanted, atol=1e-6)
  other = np.where(REAL[..., None], FEATURES, 7)
  np.testing.assert_array_equal(made.pooled, module.apply(variables, other, REAL, EDGES, train=False).pooled)


@pytest.mark.parametrize("features", [16, 256])
def test_words_are_to_a_tower_of_texts_what_nodes_are_hashed_to(features):
  tokenizer, texts = make_tokenizer("word_parts", lower=True), ["Animals", "dog", ""]
  ids = tokenizer.encode(texts, 40)
  mask = np.arange(40) < (ids != tokenizer.pad_id).sum(1)[:, None]
  module = build_encoder(dict(name="word_parts", features=features, vocab_size=tokenizer.vocab_size))
  made, variables = module.init_with_output(jax.random.key(0), ids, mask, train=False)
  length = np.maximum(np.linalg.norm(made.pooled, axis=1, keepdims=True), 1e-9)
  np.testing.assert_allclose(made.pooled / length, hashed_words(texts, features), atol=1e-6)
  weight = np.random.default_rng(5).normal(size=tokenizer.vocab_size).astype(np.float32)
  again = module.apply({"params": {"weight": weight}}, ids, mask, train=False).pooled
  wanted = np.zeros((3, features))
  for row, its in enumerate(tokenizer.tokens(texts)):
    for number in its[1:-1]:
      wanted[row, (number - 3) // 2 % features] += weight[number] * (1 if (number - 3) % 2 else -1)
  np.testing.assert_allclose(again, wanted, atol=1e-5)
  shorter = module.apply(variables, ids[:, :30], mask[:, :30], train=False).pooled
  np.testing.assert_array_equal(made.pooled[1:], shorter[1:])


@pytest.mark.parametrize(("options", "message"), [
  (dict(name="gcn", kinds=0), "kinds: 0 is not a whole number of 1 or more"),
  (dict(name="graph_transformer", steps=-1), "steps: -1 is not a whole number of 0 or more"),
  (dict(name="graph_transformer", heads=5), "192 does not split into 5 heads"),
  (dict(name="gcn", normalize="men"), "did you mean 'mean'"), (dict(name="gcn", pool="cls"), "no such choice 'cls'"),
])  # fmt: skip
def test_wrong_options_are_one_line(options, message):
  with pytest.raises(UserError, match=message) as caught:
    build_encoder(options)
  assert "\n" not in str(caught.value)
