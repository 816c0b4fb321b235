"""Losses over clusters, prototypes and words: numbers of reference code, devices, order, and absent examples."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import assert_close, compiled, make_mesh
from test_targets import MULTIMODAL

from mmcontrast.encoders import Encoded
from mmcontrast.errors import UserError
from mmcontrast.objectives import terms as objective
from mmcontrast.objectives.assignment_prediction import assignments
from mmcontrast.objectives.capro import collective_target, corrected, moved_prototypes, prototype_logits
from mmcontrast.objectives.clustered_negatives import clustered_info_nce
from mmcontrast.objectives.prototype_alignment import prototype_loss
from mmcontrast.objectives.prototype_contrast import prototype_nce
from mmcontrast.objectives.swav import sinkhorn
from mmcontrast.objectives.term import Run
from mmcontrast.objectives.word_classification import word_targets
from mmcontrast.stores.clusters import back_translated, density

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
CASES = json.loads((GOLDEN / "clusters.json").read_text())
IMAGE_TEXT = json.loads((GOLDEN / "image_text.json").read_text())
pytestmark = pytest.mark.usefixtures("float64")
VIEWS = ("image[0]/ssl", "image[1]/ssl")
LOGITS, FEATURES, KEY = "image[0]/words", "image[0]/features", "image[1]/ssl@momentum"


def golden(cases, name):
  return [{key: jnp.asarray(x) for key, x in cases[name][part].items()} for part in ("inputs", "expected")]


# ---- Numbers of reference code ------------------------------------------------------------------


def test_superclass():
  x, expected = golden(IMAGE_TEXT, "superclass")
  term = dict(module=dict(name="word_classification"), embeddings=LOGITS)
  state = {"frequency": x["fq"][0], "count": x["count"][0, 0]}

  def loss(logits):
    info = {"views": {"text[0]": {"ids": x["ids"]}}}
    found, _, _, states = evaluate(term, {LOGITS: Encoded(logits=logits)}, info, state)
    return found, states

  (value, new), gradient = compiled(jax.value_and_grad(loss, has_aux=True))(x["logits"])
  np.testing.assert_allclose(value, expected["loss"], rtol=1e-6)  # float32 inside the reference
  np.testing.assert_allclose(gradient, expected["grad_logits"], atol=1e-6)
  has = np.stack([np.isin(np.arange(9), row) for row in np.asarray(x["ids"])])
  np.testing.assert_allclose(new["frequency"], x["fq"][0] + has.mean(0), rtol=1e-6)
  assert new["count"] == 4


def test_a_text_of_words_that_all_have_is_no_target():
  has = jnp.asarray([[1.0, 0], [1, 1]])
  target, _, _ = word_targets(has, jnp.zeros(2), jnp.float64(0), jnp.ones(2, bool))
  np.testing.assert_array_equal(target, [[0, 0], [0, 1]])


def test_meow():
  case = MULTIMODAL["meow"]
  x, expected = case["inputs"], case["expected"]
  anchor, other, clusters = (jnp.asarray(x[name]) for name in ("za", "zb", "assign"))

  def loss(anchor, other):
    return jnp.mean(clustered_info_nce(anchor, other, clusters, x["tau"], jnp.ones(4, bool))[0])

  value, gradients = compiled(jax.value_and_grad(loss, (0, 1)))(anchor, other)
  np.testing.assert_allclose(value, expected["weighted_infonce"], rtol=1e-9)

  weight = 2.0 - sum(np.equal.outer(own, own) for own in np.asarray(clusters))

  def released(anchor, other):
    dots = jnp.exp(anchor @ other.T / x["tau"])
    return jnp.mean(-jnp.log(jnp.diagonal(dots) / jnp.sum(dots * weight, 1)))

  assert_close(gradients, compiled(jax.grad(released, (0, 1)))(anchor, other), 1e-9)
  of_module = meow_of(x, anchor, other)
  np.testing.assert_allclose(of_module["t/pairs"], expected["weighted_infonce"], rtol=3e-6)  # rows are unit to 6 digits
  np.testing.assert_allclose(of_module["t/prototypes"], expected["protonce"], rtol=3e-6)
  # The released value is the softmax with each prototype's temperature, and log(N / K).
  nce = [
    jnp.mean(prototype_nce(anchor, jnp.asarray(centroids), jnp.asarray(phi), own)[0]) + np.log(4 / len(phi))
    for centroids, phi, own in zip(x["centroids"], x["density"], clusters)
  ]
  np.testing.assert_allclose(sum(nce) / 2, expected["protonce"], rtol=1e-9)


def meow_of(x, anchor, other):
  term = dict(module=dict(name="clustered_negatives", clusters=(2, 3), temperature=x["tau"]), embeddings=VIEWS)
  state = {f"centroids_{m}": jnp.asarray(x["centroids"][m]) for m in range(2)}
  state |= {f"concentrations_{m}": jnp.asarray(x["density"][m]) for m in range(2)}
  rows = {f"cluster_{m}": jnp.asarray(x["assign"][m], float) for m in range(2)}
  return evaluate(term, dict(zip(VIEWS, (anchor, other))), {}, state, rows)[1]


@pytest.mark.parametrize("name", ["proto_soft", "proto_hard"])
def test_protoclip(name):
  x, expected = golden(IMAGE_TEXT, name)
  temperature = max(float(x["tau_y"]), 0.0)

  def loss(rows):
    return jnp.mean(prototype_loss(x["scale"] * rows @ x["cs"].T, x["ct"], x["lab"], temperature))

  value, gradient = compiled(jax.value_and_grad(loss))(x["x"])
  np.testing.assert_allclose(value, expected["loss"], rtol=1e-9)
  np.testing.assert_allclose(gradient, expected["grad_x"], atol=1e-9)
  # The module: rows of unit length in, both directions, here with the same numbers on both sides.
  term = dict(module=dict(name="prototype_alignment", clusters=3, target_temperature=temperature), embeddings=VIEWS)
  state = {f"{key}_{n}": x[name] for key, name in (("prototypes", "cs"), ("means", "ct")) for n in (0, 1)}
  rows = {f"cluster_{n}": x["lab"].astype(float) for n in (0, 1)}
  found = evaluate(term, dict.fromkeys(VIEWS, x["x"]), {}, state, rows, {"log_scale": jnp.log(x["scale"])})[0]
  np.testing.assert_allclose(found, expected["loss"], rtol=3e-6)  # rows are unit to 6 digits


def test_protoclips_outer_teacher():
  """Hard targets of a third embedding's clusters, for both, at the weight that is given."""
  x, expected = golden(IMAGE_TEXT, "proto_hard")
  term = dict(module=dict(name="prototype_alignment", clusters=3, outer=0.5), embeddings=VIEWS)
  state = {f"outer_{n}": x["cs"] for n in (0, 1)}
  state |= {f"{key}_{n}": np.zeros_like(x["cs"]) for key in ("prototypes", "means") for n in (0, 1)}
  rows = {f"cluster_{n}": np.full(len(x["lab"]), -1.0) for n in (0, 1)} | {"cluster_2": x["lab"].astype(float)}
  parameters = {"log_scale": jnp.log(x["scale"])}
  found = evaluate(term, dict.fromkeys(VIEWS, x["x"]), {}, state, rows, parameters)[0]
  np.testing.assert_allclose(found, 0.5 * expected["loss"], rtol=3e-6)
  rows["cluster_2"] = -jnp.ones(len(x["lab"]))
  assert evaluate(term, dict.fromkeys(VIEWS, x["x"]), {}, state, rows, parameters)[0] == 0


def test_back_translation():
  x, expected = golden(IMAGE_TEXT, "pbt")
  found = back_translated(x["x"], x["lab"], 4)
  np.testing.assert_allclose(found, expected["prototypes"], atol=1e-12)
  assert not found[3].any()  # no row is in it
  again = back_translated(jnp.concatenate([x["x"], x["x"][:1]]), jnp.append(x["lab"], -1), 4)
  np.testing.assert_array_equal(again, found)


def test_vlap():
  x, expected = golden(MULTIMODAL, "vlap_assign")
  found = assignments(x["scores"], x["vocab_dist"][:, 0], float(x["epsilon"]), int(x["iters"]))
  np.testing.assert_allclose(found, expected["q"], rtol=1e-9)
  np.testing.assert_allclose(jnp.sum(found, 1), 1)


def test_vlap_counts_words_of_texts():
  embeddings, info, rows = batch()
  info["views"]["text[0]"]["ids"] = np.array([[0, 3, 3]] * 4 + [[0, 4, -1]] * 4)
  parameters, before = start("assignment")
  after = evaluate(TERMS["assignment"], embeddings, info, before, rows, parameters)[3]
  np.testing.assert_allclose(
    after["frequency"] - before["frequency"], [8, 0, 0, 4, 4, 0, 0, 0, 0], atol=1e-6
  )  # a word counts once a text


def test_sinkhorn():
  x, expected = golden(IMAGE_TEXT, "sinkhorn")
  found = sinkhorn(x["s"], jnp.ones(len(x["s"]), bool), 0.05, 3)
  np.testing.assert_allclose(found, expected["out"], rtol=1e-9)


def test_gpc_prototypes():
  x, expected = golden(CASES, "gpc_prototypes")

  def loss(*views):
    return sum(jnp.mean(prototype_nce(view, x["centroids"], x["phi"], x["assignment"])[0]) for view in views) / 2

  value, gradients = compiled(jax.value_and_grad(loss, (0, 1)))(x["q"], x["k"])
  np.testing.assert_allclose(value, expected["loss"], rtol=1e-9)
  for gradient, side in zip(gradients, "qk"):
    np.testing.assert_allclose(gradient, expected[f"grad_{side}"], atol=1e-9)
  more = jnp.concatenate([x["centroids"], jnp.ones((2, 3))]), jnp.append(x["phi"], jnp.zeros(2))
  padded = [prototype_nce(x[side], *more, x["assignment"])[0] for side in "qk"]
  np.testing.assert_allclose(jnp.mean(jnp.stack(padded)), expected["loss"], rtol=1e-9)  # those that do not exist


def capro(**options):
  names = (VIEWS[0], FEATURES, KEY)
  return dict(module=dict(name="capro", label="kind", classes=3, **{"queue": 10} | options), embeddings=names)


def test_capro():
  """A step, from what the reference gives of it: its logits, targets, labels, queue and prototypes."""
  x, expected = golden(CASES, "capro_step")
  embeddings = {VIEWS[0]: x["x"], FEATURES: x["x"], KEY: x["x_aug"]}
  parameters = {name: {"kernel": x[name].T} for name in ("classifier", "classifier_low")}
  parameters |= {f"reconstruct{n}": {"kernel": jnp.eye(4), "bias": jnp.full(4, n - 1.0)} for n in (1, 2)}
  queue = jnp.roll(x["queue"].T, -5, 0)  # newest first: the reference overwrites the first five
  state = {"prototypes": x["prototypes"], "queue": queue, "filled": jnp.int32(10)}

  def loss(embeddings, step):
    info = {"labels": {"kind": x["label"].astype(int)}}
    found, metrics, _, new = evaluate(capro(), embeddings, info, state, {}, parameters, step=step)
    return found, (metrics, new)

  (value, (metrics, new)), gradients = compiled(jax.value_and_grad(loss, has_aux=True))(embeddings, 0)
  np.testing.assert_allclose(new["prototypes"], expected["prototypes_after"], atol=1e-6)
  np.testing.assert_allclose(new["queue"].T, expected["queue_after"], atol=1e-6)

  def entropy(logits, label):
    return -jnp.take_along_axis(jax.nn.log_softmax(jnp.asarray(logits)), jnp.asarray(label, int)[:, None], 1).mean()

  label, rows = expected["label_after"], expected["kept_rows_of_x"]
  logits = rows @ x["classifier"].T
  soft = -jnp.sum(expected["collective_target"] * jax.nn.log_softmax(logits), -1).mean()
  unit = rows / jnp.linalg.norm(rows, axis=1, keepdims=True)
  parts = {
    "class": 0.9 * entropy(logits, label) + 0.1 * soft, "low": entropy(expected["low_logits"], label),
    "instance": entropy(expected["instance_logits"], np.zeros(5)),
    "reconstruction": jnp.mean((jax.nn.relu(unit) + 1 - rows) ** 2),
    "prototype": entropy(expected["prototype_logits"], label),
  }  # fmt: skip
  for name, part in parts.items():
    np.testing.assert_allclose(metrics[f"t/{name}"], part, rtol=1e-6)
  np.testing.assert_allclose(value, sum(parts.values()), rtol=1e-6)
  kept = np.flatnonzero([any(np.allclose(row, one) for one in rows) for row in x["x"]])
  changed = np.asarray(x["label"])[kept] != np.asarray(label)
  np.testing.assert_allclose(
    [metrics["t/kept"], metrics["t/relabelled"]], [len(kept) / 5, changed.sum() / 5], rtol=1e-9
  )
  assert not np.any(gradients[KEY]) and np.isfinite(gradients[VIEWS[0]]).all()


def test_capro_before_there_are_prototypes_and_of_a_class_without():
  draw = np.random.default_rng(0)
  q, label = jnp.asarray(draw.normal(size=(4, 3))), jnp.asarray([0, 0, 2, -1])
  one = jnp.zeros((3, 3)).at[0].set(jnp.eye(3)[0])
  np.testing.assert_array_equal(np.isinf(prototype_logits(q, one, 0.1)), [[0, 1, 1]] * 4)
  assert not np.any(prototype_logits(q, jnp.zeros((3, 3)), 0.1))
  moved = moved_prototypes(one, q, label, jnp.asarray([True, True, False, False]), 0.5)
  wanted = 0.25 * one[0] + 0.75 * (q[0] + q[1]) / 2
  np.testing.assert_allclose(moved[0], wanted / np.linalg.norm(wanted), rtol=1e-9)
  assert not moved[1:].any()
  new, kept = corrected(label, jnp.asarray([[0.1, 0.7, 0.2], [0.4, 0.3, 0.3], [0.5, 0.3, 0.2], [0.5, 0.3, 0.2]]), 0.6)
  assert new.tolist() == [1, 0, 2, -1] and kept.tolist() == [True, True, False, False]
  target = collective_target(q, jnp.eye(3), jnp.eye(3), jnp.zeros(3, bool))
  assert not target.any()  # a queue without keys


def test_density():
  x, expected = golden(CASES, "capro_density")
  np.testing.assert_allclose(density(x["distance_sum"], x["visited"], 10.0), expected["density"], rtol=1e-7)


def test_supcon_of_what_is_labelled():
  """As if the other examples were not there."""
  embeddings, info, _ = jax.tree.map(jnp.asarray, batch())
  embeddings = {name: embeddings[name] for name in VIEWS}
  there = np.flatnonzero(np.asarray(info["labels"]["kind"]) >= 0)
  term = dict(query=VIEWS, key=VIEWS, temperature=0.5)

  def loss(embeddings, labels, **option):
    target = dict(name="same_label", label="kind", **option)
    return evaluate(term | dict(target=target), embeddings, {"labels": {"kind": labels}})[0]

  labels = info["labels"]["kind"]
  found = compiled(jax.value_and_grad(functools.partial(loss, labelled_only=True)))(embeddings, labels)
  whole = compiled(jax.value_and_grad(loss))
  fewer = whole(jax.tree.map(lambda x: x[there], embeddings), labels[there])
  assert 1 < len(there) < N
  np.testing.assert_allclose(found[0], fewer[0], rtol=1e-9)
  assert_close(jax.tree.map(lambda x: x[there], found[1]), fewer[1], 1e-9)
  assert abs(whole(embeddings, labels)[0] - found[0]) > 1e-3


def test_an_anchor_in_a_cluster_of_all_has_no_loss():
  draw = np.random.default_rng(0)
  a, b = jnp.asarray(draw.normal(size=(2, 4, 3)))
  clusters = jnp.asarray([[0, 0, 0, 0]])
  for found in (clustered_info_nce, jax.grad(lambda *x: jnp.sum(clustered_info_nce(*x)[0]))):
    each = jax.tree.leaves(found(a, b, clusters, 0.5, jnp.ones(4, bool)))
    assert all(not np.any(leaf) for leaf in each)
  _, weighed = clustered_info_nce(a, b, jnp.asarray([[0, 0, 0, 0], [0, 0, 0, 1]]), 0.5, jnp.ones(4, bool))
  assert weighed.all()


# ---- Devices, order, and who is absent ------------------------------------------------------------


N, D = 8, 6
TERMS = {
  "words": dict(module=dict(name="word_classification"), embeddings=LOGITS),
  "prototypes": dict(module=dict(name="prototype_contrast", clusters=(3, 4)), embeddings=VIEWS),
  "alignment": dict(module=dict(name="prototype_alignment", clusters=3), embeddings=VIEWS),
  "assignment": dict(module=dict(name="assignment_prediction", prototypes=9, text="text[0]"), embeddings=VIEWS),
  "capro": capro(threshold=0.5),
  "meow": dict(module=dict(name="clustered_negatives", clusters=(3, 4)), embeddings=VIEWS),
}


def evaluate(term, embeddings, info, state=None, rows=None, parameters=None, **options):
  """(loss, metrics, rows, new state) of one term "t"."""
  terms = objective.parse_terms({"t": term})
  loss, metrics, new_rows, states = objective.evaluate_and_remember(
    terms, embeddings, info, {"t": parameters or {}}, {}, {}, states={"t": state} if state else {},
    remembered={"t": rows or {}}, **options,
  )  # fmt: skip
  return loss, metrics, new_rows, states.get("t", {})


def batch():
  """Everything that a module may be given, [N, ...] each."""
  draw = np.random.default_rng(0)
  embeddings = {name: Encoded(draw.normal(size=(N, D))) for name in (*VIEWS, FEATURES, KEY)}
  embeddings[LOGITS] = Encoded(logits=draw.normal(size=(N, 9)))
  rows = {f"cluster_{m}": draw.integers(-1, 3, N).astype(float) for m in range(2)}
  info = {
    "views": {"text[0]": {"ids": draw.integers(-1, 9, (N, 3))}}, "labels": {"kind": draw.integers(-1, 3, N)},
  }  # fmt: skip
  return embeddings, info, rows


@functools.cache
def start(name):
  """(parameters, state) of a term in which something was learned and remembered."""
  terms = objective.parse_terms({"t": TERMS[name]})

  def init(key):
    shapes = jax.tree.map(lambda x: jnp.zeros((2, *x.shape[1:])), batch()[0])
    return objective.init_parameters(terms, key, shapes), objective.init_states(terms, key, shapes)

  draw = np.random.default_rng(7)

  def fill(leaf):
    return draw.uniform(0.2, 1.0, leaf.shape).astype(float if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf.dtype)

  learned, state = jax.tree.map(fill, jax.eval_shape(init, jax.random.key(0)))
  return learned.get("t", {}), state.get("t", {})


@functools.cache
def stepper(name, mesh):
  @compiled
  def step(embeddings, parameters, info, rows, state):
    def loss(embeddings, parameters):
      found, metrics, _, new = evaluate(TERMS[name], embeddings, info, state, rows, parameters, mesh=mesh)
      return found, (metrics, new)

    return jax.value_and_grad(loss, (0, 1), has_aux=True)(embeddings, parameters)

  return step


def run(name, everything, valid, mesh=None):
  """(loss, metrics, new state), gradients of embeddings and of what is learned."""
  embeddings, info, rows = everything
  embeddings = {path: embeddings[path] for path in objective.parse_terms({"t": TERMS[name]})["t"].embeddings}
  given = (embeddings, {**info, "valid": valid}, rows)
  if mesh is not None:
    given = jax.device_put(given, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data")))
  parameters, state = start(name)
  return jax.device_get(stepper(name, mesh)(given[0], parameters, *given[1:], state))


def without_order(outcome):
  """An outcome in which the keys of a queue are sorted: they stand in the order of the batch."""
  loss, (metrics, state) = outcome
  return loss, (metrics, {key: np.sort(x, 0) if key == "queue" else x for key, x in state.items()})


@pytest.mark.parametrize("name", TERMS)
def test_devices_order_and_absent_examples(name):
  everything, absent = batch(), np.arange(N) == 3
  wanted = run(name, everything, ~absent)
  assert np.any(wanted[0][0]) and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(wanted))
  assert_close(run(name, everything, ~absent, make_mesh(4)), wanted, 1e-9)
  fewer = run(name, jax.tree.map(lambda x: x[~absent], everything), np.ones(N - 1, bool))
  for a, b in ((wanted[0][0], fewer[0][0]), (wanted[0][1][1], fewer[0][1][1]), (wanted[1][1], fewer[1][1])):
    assert_close(a, b, 1e-9)
  assert_close(jax.tree.map(lambda x: x[~absent], wanted[1][0]), fewer[1][0], 1e-9)
  learns = any(np.any(leaf) for leaf in jax.tree.leaves(wanted[1][1]))
  assert learns == (name in ("alignment", "capro"))  # what is given has no gradient
  assert not any(np.any(leaf[absent]) for leaf in jax.tree.leaves(wanted[1][0]))
  order = np.random.default_rng(1).permutation(N)
  moved = run(name, jax.tree.map(lambda x: x[order], everything), ~absent[order])
  assert_close(without_order(moved[0]), without_order(wanted[0]), 1e-9)
  assert_close(moved[1], (jax.tree.map(lambda x: x[order], wanted[1][0]), wanted[1][1]), 1e-9)
  embeddings = jax.tree.map(lambda x: np.where(absent[:, None], 1e6, x), everything[0])
  assert_close(run(name, (embeddings, *everything[1:]), ~absent)[0], wanted[0], 1e-9)


# ---- What is refused ------------------------------------------------------------------------------


RUN = dict(
  heads={"ssl": "image", "words": "image", "features": "image"},
  batch_size=8, examples=20, made={"words": ("logits",), "ssl": ("pooled",)},
  facts={"image": (), "text": ("ids",)}, words=9, views={"image": 2, "text": 1}, head_dims={"words": 9},
  labels={"kind": ("a", "b", "c")},
)  # fmt: skip


@pytest.mark.parametrize(
  ("term", "run", "message"),
  [
    (TERMS["words"] | dict(embeddings=VIEWS[0]), {}, r"takes logits, which head 'ssl' does not give; .*'words'|words"),
    (TERMS["words"], dict(facts={"text": ()}), r"module\.text: 'text\[0\]' must say its tokens; add .*\('ids',\)"),
    (TERMS["words"], dict(head_dims={"words": 8}), r"the tokenizer has 9 pieces, and 8 are told apart; make it 9"),
    (
      TERMS["words"],
      dict(head_dims={"words": 10}),
      r"head 'words' gives 10 logits and the tokenizer has 9 pieces; set",
    ),
    (
      dict(module=dict(name="word_classification", text="text[1]"), embeddings=LOGITS),
      {},
      r"module\.text: 'text\[1\]' does not exist; config\.data\.views\.text is 1",
    ),
    (
      dict(module=dict(name="word_classification", text="words"), embeddings=LOGITS),
      {},
      r"module\.text: 'words' is no view of texts; write it as in 'text\[0\]'",
    ),
    (
      dict(module=dict(name="prototype_alignment", clusters=21), embeddings=VIEWS),
      {},
      r"module\.clusters: 21 clusters of 20 examples; give 20 or fewer",
    ),
    (TERMS["alignment"] | dict(embeddings=VIEWS[0]), {}, r"t\.embeddings: .* are 1; name two, such as an image's and"),
    (TERMS["assignment"] | dict(embeddings=VIEWS[0]), {}, r"t\.embeddings: .* are 1; name two, such as an image's and"),
    (
      TERMS["assignment"],
      dict(words=10),
      r"module\.text: the tokenizer has 10 pieces, and 9 are told apart; make it 10",
    ),
    (TERMS["capro"] | dict(embeddings=VIEWS), {}, r"t\.embeddings: .* are not three; name a projection, the features"),
    (TERMS["capro"], dict(labels={"kinds": ("a",)}), r"module\.label: no such choice 'kind'; did you mean 'kinds'"),
    (TERMS["capro"], dict(labels={"kind": ("a", "b")}), r"module\.classes: label 'kind' has 2 classes, not 3; use 2"),
    (capro(queue=21), {}, r"module\.queue: 21 keys are more than an epoch of 20, .*; use 20 or fewer"),
    (TERMS["meow"] | dict(embeddings=VIEWS[0]), {}, r"t\.embeddings: .* are 1; name the anchor, then its other view"),
    (
      dict(module=dict(name="clustered_negatives", clusters=(21,)), embeddings=VIEWS),
      {},
      r"module\.clusters: 21 clusters of 20 examples; give 20 or fewer",
    ),
  ],
)
def test_what_is_refused(term, run, message):
  with pytest.raises(UserError, match=message) as error:
    objective.parse_terms({"t": term})["t"].check(Run(**(RUN | run)))
  assert "\n" not in str(error.value)


def test_embeddings_of_two_widths_have_no_common_prototypes():
  terms = objective.parse_terms({"t": TERMS["assignment"]})
  shapes = dict(zip(VIEWS, (Encoded(jnp.zeros((2, 3))), Encoded(jnp.zeros((2, 4))))))
  message = r"objective\.t\.embeddings: 'image\[0\]/ssl' has 3 numbers and 'image\[1\]/ssl' 4; .* give their heads one"
  with pytest.raises(UserError, match=message):
    jax.eval_shape(lambda: objective.init_parameters(terms, jax.random.key(0), shapes))
