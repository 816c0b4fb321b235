"""Terms of regions: against plain formulas, and what regions that are not in the view change: nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import assert_close, compiled, make_mesh

from mmcontrast.encoders import Encoded
from mmcontrast.errors import UserError
from mmcontrast.objectives import terms as objective
from mmcontrast.objectives.part_contrast import compare
from mmcontrast.objectives.regions import Prompter
from mmcontrast.objectives.score import normalize

pytestmark = pytest.mark.usefixtures("float64")
N, R, D, GRID = 8, 3, 4, (4, 4)
IMAGE, TEXTS = "image[0]/map", tuple(f"text_region[{r}]/joint" for r in range(R))
TERMS = {
  "pooled_regions": dict(module=dict(name="pooled_regions", hidden=6, cells=2), embeddings=(IMAGE, *TEXTS)),
  "prompted_regions": dict(module=dict(name="prompted_regions", heads=2), embeddings=(IMAGE, *TEXTS)),
}
LEFT = jnp.array([0.0, 0.0, 0.5, 1.0])


def inputs(seed=0):
  """(embeddings, boxes of the view and of regions); regions (0, 2) and (5, 1) are not there, nor (6, 0) in view."""
  draw = np.random.default_rng(seed)
  x = {IMAGE: draw.normal(size=(N, 16, D))} | {name: draw.normal(size=(N, D)) for name in TEXTS}
  low = draw.random((R, N, 2)) * 0.4
  box = {f"text_region[{r}]": np.concatenate([low[r], low[r] + 0.3], 1) for r in range(R)}
  box["text_region[2]"][0] = box["text_region[1]"][5] = 0
  view = np.tile([0.0, 0.1, 0.9, 1.0], (N, 1))
  view[::2] = view[::2][:, [2, 1, 0, 3]]  # mirrored
  view[6] = [0.9, 0.9, 1.0, 1.0]
  return jax.tree.map(jnp.asarray, (x, {"image[0]": view, **box}))


def setup(name):
  terms = objective.parse_terms({"t": TERMS[name]})
  shapes = {IMAGE: Encoded(None, jnp.zeros((2, 16, D)), grid=GRID)} | {key: Encoded(jnp.zeros((2, D))) for key in TEXTS}
  return terms, objective.init_parameters(terms, jax.random.key(0), shapes)


def run(name, x, box, valid=None, mesh=None):
  """((loss, metrics), gradients of the embeddings)."""
  terms, parameters = setup(name)

  def loss(x):
    views = {key: Encoded(None, leaf, grid=GRID) if leaf.ndim == 3 else Encoded(leaf) for key, leaf in x.items()}
    info = {"views": {key: {"box": leaf} for key, leaf in box.items()}} | ({} if valid is None else {"valid": valid})
    return objective.evaluate(terms, views, info, parameters, {}, {}, mesh=mesh)

  return compiled(jax.value_and_grad(loss, has_aux=True))(x)


@pytest.mark.parametrize("name", TERMS)
def test_devices_absent_examples_regions_and_order(name):
  x, box = inputs()
  valid = np.arange(N) != 3
  (value, metrics), gradients = wanted = run(name, x, box, valid)
  assert all(np.isfinite(g).all() and np.any(g) for g in gradients.values())
  assert abs(metrics["t/regions"] - (7 * R - 2 - R) / 7) < 1e-6  # example 6 sees none of its regions
  for place, example in ((2, 0), (1, 5), (0, 6)):
    assert not np.any(gradients[TEXTS[place]][example])

  mesh = make_mesh(4)
  cut = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
  assert_close(run(name, *jax.device_put((x, box), cut), valid, mesh), wanted, 1e-9)

  broken = {key: leaf.at[3].set(jnp.nan) for key, leaf in x.items()}
  lost = {key: leaf.at[3].set(jnp.nan) for key, leaf in box.items()}
  other = {**broken, TEXTS[2]: broken[TEXTS[2]].at[0].set(7.0)}  # the text of a region that is not there
  assert_close(run(name, other, lost, valid)[0][0], value, 1e-12)

  order = np.array([6, 1, 0, 7, 2, 5, 4])
  (moved, _), there = run(name, *({key: leaf[order] for key, leaf in tree.items()} for tree in (x, box)))
  assert_close((moved, there), (value, {key: g[order] for key, g in gradients.items()}), 1e-9)


@pytest.mark.parametrize("name", TERMS)
def test_without_any_region_the_loss_is_nothing(name):
  x, box = inputs()
  box |= {f"text_region[{r}]": jnp.zeros((N, 4)) for r in range(R)}
  (value, _), gradients = run(name, x, box)
  assert float(value) == 0 and not any(np.any(g) for g in gradients.values())


PHRASES = tuple(f"text_relation[{k}]/joint" for k in range(2))
RELATIONS = dict(module=dict(name="region_relations", cells=2, hidden=6, temperature=0.3), embeddings=(IMAGE, *PHRASES))


def related(seed=0):
  """(embeddings, facts) of relations: (2, 1) is not there, the view of 1 is mirrored, an end of (4, 0) is unseen."""
  draw = np.random.default_rng(seed)
  x = {IMAGE: draw.normal(size=(N, 16, D))} | {name: draw.normal(size=(N, D)) for name in PHRASES}
  low = draw.random((2, 2, N, 2)) * 0.5
  box = np.concatenate([low, low + 0.4], -1)  # [relation, end, N, 4]
  box[1, :, 2], box[0, 1, 4] = 0, [0.0, 0.9, 0.1, 1.0]
  view = np.tile([0.0, 0.0, 1.0, 0.9], (N, 1))
  view[1] = view[1][[2, 1, 0, 3]]
  facts = {"image[0]": {"box": view}}
  facts |= {f"text_relation[{k}]": {"subject": box[k, 0], "object": box[k, 1]} for k in range(2)}
  return jax.tree.map(jnp.asarray, (x, facts))


def of_relations(parameters, mesh=None):
  """(embeddings, facts, valid) -> ((loss, metrics), gradients of the embeddings), compiled."""
  terms = objective.parse_terms({"t": RELATIONS})

  def loss(x, facts, valid):
    views = {key: Encoded(None, leaf, grid=GRID) if leaf.ndim == 3 else Encoded(leaf) for key, leaf in x.items()}
    return objective.evaluate(terms, views, {"views": facts, "valid": valid}, parameters, {}, {}, mesh=mesh)

  return compiled(jax.value_and_grad(loss, has_aux=True))


def numpy_of_relations(x, facts, parameters, some):
  """The loss over the relations `some`, one after the other; cells by their points."""
  view = np.array([0.0, 0.0, 1.0, 0.9])

  def cells(image, box):
    at = (np.arange(4) + 0.5) / 4  # 2 cells of 2 points
    rows, columns = ((box[i] + (box[i + 2] - box[i]) * at) * 4 - 0.5 for i in (1, 0))
    kernel = lambda places: np.maximum(1 - np.abs(np.clip(places, 0, 3)[:, None] - np.arange(4)), 0)  # noqa: E731
    return np.einsum("ir,jc,rcd->ijd", kernel(rows), kernel(columns), image.reshape(4, 4, D)).mean((0, 1))

  def waved(box):
    angle = box[:, None] * np.pi * 2.0 ** np.arange(8) / 2
    return np.concatenate([np.sin(angle), np.cos(angle)], -1).ravel()

  edges, phrases = [], []
  for n, k in some:
    ends = [np.clip(facts[f"text_relation[{k}]"][end][n], None, [1, 0.9, 1, 0.9]) for end in ("subject", "object")]
    ends = [(box - view[[0, 1, 0, 1]]) / np.array([1.0, 0.9, 1.0, 0.9]) for box in ends]
    read = np.concatenate([*(cells(np.asarray(x[IMAGE][n]), box) for box in ends), *map(waved, ends)])
    hidden = np.maximum(read @ parameters["fc1"]["kernel"] + parameters["fc1"]["bias"], 0)
    edges.append(hidden @ parameters["fc2"]["kernel"] + parameters["fc2"]["bias"])
    phrases.append(np.asarray(x[PHRASES[k]][n]))
  edges, phrases = (np.array(one) / np.linalg.norm(one, axis=1, keepdims=True) for one in (edges, phrases))
  logits, alike = edges @ phrases.T / 0.3, phrases @ phrases.T > 0.9
  logits = np.where(alike & ~np.eye(len(alike), dtype=bool), -np.inf, logits)
  rows, columns = (np.log(np.exp(logits).sum(axis)) - np.diagonal(logits) for axis in (1, 0))
  return (rows.mean() + columns.mean()) / 2


def test_relations_in_numpy_and_who_takes_part():
  draw, shapes = np.random.default_rng(1), {"fc1": (2 * D + 128, 6), "fc2": (6, D)}
  parameters = {
    "t": {name: {"kernel": draw.normal(0, 0.2, of), "bias": draw.normal(size=of[1])} for name, of in shapes.items()}
  }
  x, facts = related()
  valid, run = np.arange(N) != 3, of_relations(parameters)
  (value, metrics), gradients = wanted = run(x, facts, valid)
  some = [(n, k) for n in range(N) for k in range(2) if n not in (1, 3) and (n, k) not in ((2, 1), (4, 0))]
  np.testing.assert_allclose(value, numpy_of_relations(x, facts, parameters["t"], some), rtol=1e-6)
  assert abs(metrics["t/relations"] - len(some) / 7) < 1e-6
  assert not np.any(gradients[IMAGE][1]) and not np.any(gradients[PHRASES[1]][2]) and np.any(gradients[PHRASES[0]][2])

  mesh = make_mesh(4)
  cut = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
  assert_close(of_relations(parameters, mesh)(*jax.device_put((x, facts, valid), cut)), wanted, 1e-9)
  broken = jax.tree.map(lambda leaf: leaf.at[3].set(jnp.nan), (x, facts))
  assert_close(run(*broken, valid)[0][0], value, 1e-12)
  order = np.array([6, 1, 0, 7, 2, 5, 4, 3])
  (moved, _), there = run(*jax.tree.map(lambda leaf: leaf[order], (x, facts)), valid[order])
  assert_close((moved, there), (value, {key: g[order] for key, g in gradients.items()}), 1e-9)


def test_a_region_of_a_mirrored_view_is_cut_where_it_is():
  """The map mirrored with the view, and its box, which says so, give the same; a box that does not say so does not."""
  x, box = inputs()
  box["image[0]"] = jnp.tile(jnp.array([0.0, 0.0, 1.0, 1.0]), (N, 1))
  mirrored = {**x, IMAGE: x[IMAGE].reshape(N, *GRID, D)[:, :, ::-1].reshape(N, 16, D)}
  told = {**box, "image[0]": box["image[0]"][:, jnp.array([2, 1, 0, 3])]}
  (plain, _), _ = run("pooled_regions", x, box)
  np.testing.assert_allclose(run("pooled_regions", mirrored, told)[0][0], plain, rtol=1e-12)
  assert abs(run("pooled_regions", mirrored, box)[0][0] - plain) > 1e-4


def test_comparison_of_parts_is_the_plain_one():
  """All N K keys at once: those that do not stand left out, and those whose text is too much like the query's."""
  draw = np.random.default_rng(0)
  q, k, words = (normalize(jnp.asarray(draw.normal(size=(4, 3, 5)))) for _ in range(3))
  words = words.at[1, 2].set(words[0, 1])
  stands = jnp.asarray(draw.random((4, 3)) < 0.8).at[0, 1].set(True).at[1, 2].set(True)
  found = compiled(lambda q: compare(q, k, stands, 0.3, words, 0.9))(q)
  logits = q.reshape(12, 5) @ k.reshape(12, 5).T / 0.3
  alike = words.reshape(12, 5) @ words.reshape(12, 5).T > 0.9
  assert alike[1, 5] and alike.sum() == 14
  there = stands.reshape(12) & (~alike | np.eye(12, dtype=bool))
  wanted = jax.nn.logsumexp(jnp.where(there, logits, -jnp.inf), 1) - jnp.diagonal(logits)
  right = jnp.diagonal(logits) > jnp.where(there & ~np.eye(12, dtype=bool), logits, -jnp.inf).max(1)
  np.testing.assert_allclose(found.loss.reshape(12)[stands.reshape(12)], wanted[stands.reshape(12)], rtol=1e-12)
  others = (there & ~np.eye(12, dtype=bool)).sum(1)
  np.testing.assert_array_equal(found.others.reshape(12), others)
  np.testing.assert_array_equal(found.right.reshape(12)[stands.reshape(12)], right[stands.reshape(12)])


def test_the_prompter_is_a_layer_over_prompt_and_tokens():
  """One pre-norm layer over the sequence [prompt; tokens], of which the first place is read."""
  key = jax.random.split(jax.random.key(0), 3)
  prompts, tokens = jax.random.normal(key[0], (2, 3, 8)), jax.random.normal(key[1], (2, 5, 8))
  module = Prompter(heads=2)
  variables = module.init(key[2], prompts, tokens)
  p = variables["params"]

  def dense(name, x):
    return x @ p[name]["kernel"] + p[name]["bias"]

  def norm(name, x):
    x = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * p[name]["scale"] + p[name]["bias"]

  def layer(prompt, tokens):
    x = jnp.concatenate([prompt[None], tokens])
    q, k, v = (dense(name, norm("norm1", x)).reshape(-1, 2, 4) for name in "qkv")
    share = jax.nn.softmax(jnp.einsum("ihd,jhd->hij", q, k) / 2, -1)
    x = x + dense("proj", jnp.einsum("hij,jhd->ihd", share, v).reshape(-1, 8))
    return (x + dense("fc2", jax.nn.gelu(dense("fc1", norm("norm2", x)))))[0]

  wanted = jax.vmap(jax.vmap(layer, (0, None)))(prompts, tokens)
  np.testing.assert_allclose(compiled(module.apply)(variables, prompts, tokens), wanted, atol=1e-6)


RUN = dict(views={"image": 2, "text": 1, "text_region": 3}, heads={"map": "image", "joint": "text"}, batch_size=8,
           token_heads=("map",), facts={"image": ("box",), "text_region": ("box",)},
           head_dims={"map": 6, "joint": 6})  # fmt: skip


@pytest.mark.parametrize(
  ("options", "embeddings", "run", "message"),
  [
    ({}, (IMAGE,), {}, r"t\.embeddings: .*; name the map of an image, 'image\[0\]/HEAD', then texts of regions"),
    ({}, (IMAGE, "text[0]/joint"), {}, r"asks for the 'box' of 'text\[0\]/joint', and of text views only 'ids'"),
    ({}, (IMAGE, *TEXTS), dict(facts={"image": ("box",)}), r"asks for the 'box' of 'text_region\[0\].*data\.facts"),
    (
      {},
      (IMAGE, *TEXTS),
      dict(views={"image": 1, "text": 1, "text_region": 0}),
      r"data\.regions\.views is 0, so there",
    ),
    ({}, (IMAGE, *TEXTS), dict(token_heads=()), r"takes tokens, which head 'map' does not give"),
    (dict(alike=0), (IMAGE, *TEXTS), {}, r"t\.module\.alike: 0 is not a cosine above 0"),
    (dict(heads=0), (IMAGE, *TEXTS), {}, r"t\.module\.heads: 0 is not a whole number of 1 or more"),
    (dict(name="pooled_regions", cells=0), (IMAGE, *TEXTS), {}, r"t\.module\.cells: 0 is not a whole number of 1"),
    (dict(seen=0), (IMAGE, *TEXTS), {}, r"t\.module\.seen: 0 is not a share of a region's area"),
    (
      dict(heads=4),
      (IMAGE, *TEXTS),
      {},
      r"t\.module\.heads: 4 heads do not divide the 6 dimensions of 'image\[0\]/map'",
    ),
  ],
)
def test_what_is_refused(options, embeddings, run, message):
  check_refused(options, embeddings, run, message)


@pytest.mark.parametrize(
  ("embeddings", "run", "message"),
  [
    ((IMAGE, *TEXTS), {}, r"then texts of relations, 'text_relation\[0\]/HEAD', .* \(data\.regions\.relations\)"),
    ((IMAGE, *PHRASES), {}, r"asks for the 'subject' of 'text_relation\[0\].*add it to config\.data\.facts"),
    (
      (IMAGE, *PHRASES),
      dict(views={"image": 1, "text_relation": 0}),
      r"data\.regions\.relations is 0, so there are none",
    ),
  ],
)
def test_what_relations_refuse(embeddings, run, message):
  run = dict(views={"image": 1, "text": 1, "text_region": 3, "text_relation": 2}) | run
  check_refused(dict(name="region_relations"), embeddings, run, message)


def check_refused(options, embeddings, run, message):
  term = dict(module={"name": "prompted_regions", **options}, embeddings=embeddings)
  with pytest.raises(UserError, match=message) as error:
    objective.check_terms(objective.parse_terms({"t": term}), **{**RUN, **run})
  assert "\n" not in str(error.value)
