"""Terms as a user meets them: what they mean, what they refuse, what they report."""

import functools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from meshes import compiled

from mmcontrast.errors import UserError
from mmcontrast.objectives import terms as objective
from mmcontrast.objectives.side import Side
from mmcontrast.stores import queue as queue_store

IMAGE, TEXT, KEY = "image[0]/joint", "text[0]/joint", "text[0]/joint@momentum"
CLIP = dict(query=IMAGE, key=TEXT, direction="both")
MOCO = dict(query=IMAGE, key=KEY, negatives="queue:64", temperature=0.2)
TAGS = dict(name="shared_tags", overlap="count")


def random(*shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def evaluate(config, embeddings, info=None, queues=None, parameters=None, impl="dense"):
  terms = objective.parse_terms(config)
  weights = {name: term.weight for name, term in terms.items()}
  run = functools.partial(objective.evaluate, terms, weights=weights, impl=impl, tile=3)
  return jax.jit(run)(embeddings, info or {}, parameters or {}, queues or {})


def queue_of(length, dim, tags=4, seed=0):
  return queue_store.init(jax.random.key(seed), length, dim, {"tags": ((tags,), np.uint8)})


# ---- What terms mean ----------------------------------------------------------------------------


def test_a_random_queue_costs_the_logarithm_of_its_length():
  embeddings = {IMAGE: random(32, 512), KEY: random(32, 512, seed=1)}
  loss, _ = evaluate(
    {"t": dict(MOCO, temperature=0.5, negatives="queue:1024")}, embeddings, queues={KEY: queue_of(1024, 512)}
  )
  np.testing.assert_allclose(loss, np.log(1025), atol=0.05)


def test_tags_beyond_every_threshold_are_no_supervision():
  embeddings = {IMAGE: random(8, 6), KEY: random(8, 6, seed=1)}
  info = {"tags": np.ones((8, 4), np.uint8)}
  queue = queue_store.push(queue_of(64, 6), random(8, 6, seed=2), info)
  losses = [
    evaluate({"t": dict(MOCO, target=target)}, embeddings, info, {KEY: queue})[0]
    for target in ("identity", dict(TAGS, threshold=np.inf), TAGS)
  ]
  np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)
  assert abs(losses[2] - losses[0]) > 1e-3


@pytest.mark.parametrize(
  ("overlap", "threshold", "positives"),
  [("any", 5.0, [1, 1, 0]), ("count", 1.0, [1, 0, 0]), ("jaccard", 0.6, [0, 0, 0]), ("jaccard", 0.3, [1, 1, 0])],
)
def test_overlap_of_tags(overlap, threshold, positives):
  target = objective.parse_terms(
    {"t": dict(CLIP, target=dict(name="shared_tags", overlap=overlap, threshold=threshold))}
  )["t"].target
  row = Side(x=None, position=jnp.array([7]), facts={"tags": jnp.array([[1, 1, 1, 0]], jnp.uint8)})
  tags = jnp.array([[1, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 1]], jnp.uint8)
  columns = Side(x=None, position=jnp.array([-1, -1, -1]), facts={"tags": tags})
  np.testing.assert_array_equal(target.weights("row", row, columns)[0], positives)


def test_own_pair_is_positive_without_tags():
  embeddings = {IMAGE: random(6, 4), TEXT: random(6, 4, seed=1)}
  info = {"tags": np.zeros((6, 3), np.uint8)}
  plain, tagged = (evaluate({"t": dict(CLIP, target=t)}, embeddings, info)[0] for t in ("identity", TAGS))
  np.testing.assert_allclose(plain, tagged, rtol=1e-6)


@pytest.mark.parametrize("target", ["identity", dict(name="same_label", label="kind")])
def test_prototypes_are_columns_of_their_own(target):
  """Negatives of everyone, or each a positive of its class; then each anchor's loss is of several positives."""
  images, texts, prototypes = (random(*shape, seed=i) for i, shape in enumerate([(6, 4), (6, 4), (3, 4)]))
  kinds = np.array([0, 1, 2, 1, 0, 2], np.int32)
  loss, _ = evaluate(
    {"t": dict(query=IMAGE, key=TEXT, target=target, prototypes=3, temperature=0.5)},
    {IMAGE: images, TEXT: texts},
    {"labels": {"kind": kinds}},
    parameters={"t": {"prototypes": prototypes}},
  )
  logits = unit(images) @ jnp.concatenate([unit(texts), unit(prototypes)]).T / 0.5
  positive = np.eye(6, 9, dtype=bool)
  if target != "identity":
    positive = kinds[:, None] == np.concatenate([kinds, np.arange(3)])
  mean = np.sum(positive * jax.nn.log_softmax(logits), 1) / np.sum(positive, 1)
  np.testing.assert_allclose(loss, -np.mean(mean), rtol=1e-5)


def test_uniform_embeddings_know_nothing():
  ones = {IMAGE: jnp.ones((8, 4)), TEXT: jnp.ones((8, 4))}
  loss, metrics = evaluate({"t": dict(CLIP, temperature=0.01)}, ones)
  np.testing.assert_allclose(loss, np.log(8), rtol=1e-5)
  assert metrics["t/top1"] == 0.0  # A tie is not a hit.
  zeros = {IMAGE: jnp.zeros((8, 4)), TEXT: jnp.zeros((8, 4))}
  loss, _ = evaluate({"t": dict(CLIP, criterion="sigmoid", bias=-3.0)}, zeros)
  np.testing.assert_allclose(loss, 8 * np.log1p(np.exp(-3)) + 3, rtol=1e-5)


def test_bfloat16_is_widened_before_the_product():
  embeddings = {IMAGE: random(8, 64).astype(jnp.bfloat16), TEXT: random(8, 64, seed=1).astype(jnp.bfloat16)}
  wide = {name: x.astype(jnp.float32) for name, x in embeddings.items()}
  config = {"t": dict(CLIP, temperature=0.01)}
  low, high = (evaluate(config, x)[0] for x in (embeddings, wide))
  assert low.dtype == jnp.float32 and low == high


@pytest.mark.parametrize("impl", ["dense", "ring"])
def test_collapse_at_scale_100_is_finite(impl):
  embeddings = {IMAGE: jnp.ones((6, 4)), TEXT: jnp.ones((6, 4))}
  config = {"softmax": dict(CLIP, temperature=0.01), "reverse_kl": dict(CLIP, criterion="reverse_kl", temperature=0.01)}

  def loss(embeddings, info):
    return evaluate(config, embeddings, info, impl=impl)[0]

  function = compiled(jax.value_and_grad(loss))
  # Rows apart from all but a masked column: what is masked exceeds their log-sum-exp by 200.
  opposite = jnp.where(jnp.arange(6)[:, None] == 2, 1.0, -jnp.ones((6, 4)))
  apart = {IMAGE: jnp.ones((6, 4)), TEXT: opposite}
  for inputs, valid in ((embeddings, np.ones(6, bool)), (apart, np.arange(6) != 2)):
    value, gradients = function(inputs, {"valid": valid})
    assert np.isfinite(value) and all(np.all(np.isfinite(g)) for g in gradients.values())


def test_two_terms_share_a_temperature():
  config = {"a": dict(CLIP, temperature=dict(init=0.1)), "b": dict(CLIP, temperature="a")}
  terms = objective.parse_terms(config)
  assert list(objective.init_parameters(terms)) == ["a"]
  embeddings = {IMAGE: random(6, 4), TEXT: random(6, 4, seed=1)}
  _, metrics = evaluate(config, embeddings, parameters={"a": {"log_scale": jnp.log(5.0)}})
  np.testing.assert_allclose(metrics["b/temperature"], 0.2, rtol=1e-6)
  assert metrics["a/loss"] == metrics["b/loss"]


@pytest.mark.parametrize("form", ["log_scale", "tau"])
def test_clamp_after_step_or_forward(form):
  temperature = dict(init=0.07, form=form, min=0.01, max=0.5)
  stray = {"t": {form: jnp.float32(9.0 if form == "log_scale" else 0.001)}}  # Below 0.01.
  embeddings = {IMAGE: random(6, 4), TEXT: random(6, 4, seed=1)}
  for clamp in ("after_step", "forward"):
    config = {"t": dict(CLIP, temperature=dict(temperature, clamp=clamp))}
    clamped = objective.clamp_after_step(objective.parse_terms(config), stray)
    _, metrics = evaluate(config, embeddings, parameters=stray)
    after, forward = clamped != stray, bool(np.isclose(metrics["t/temperature"], 0.01))
    assert (after, forward) == (clamp == "after_step", clamp == "forward")


def test_metrics_by_hand():
  rows = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
  columns = jnp.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
  _, metrics = evaluate({"t": dict(CLIP, weight=2.0)}, {IMAGE: rows, TEXT: columns})
  np.testing.assert_allclose(metrics["t/top1"], 2 / 3)
  assert metrics["t/anchors"] == 3
  np.testing.assert_allclose(metrics["t/positive"], 1 / 3, rtol=1e-6)
  np.testing.assert_allclose(metrics["t/negative"], 0.0, atol=1e-6)
  assert metrics["t/weight"] == 2.0
  queue = {"keys": jnp.array([[0.0, -1.0]]), "pointer": jnp.int32(0)}
  _, metrics = evaluate(
    {"t": dict(query=IMAGE, key=KEY, negatives="queue:1")}, {IMAGE: rows, KEY: columns}, queues={KEY: queue}
  )
  np.testing.assert_allclose(metrics["t/negative"], -1 / 3, rtol=1e-6)
  np.testing.assert_allclose(metrics["t/top1"], 2 / 3)


def test_hard_negatives_are_columns_that_are_positives_of_none():
  """By hand: one more key for each query, and one more query for each key."""
  names = (IMAGE, TEXT, "text[1]/joint", "image[1]/joint")
  embeddings = {name: random(5, 4, seed=seed) for seed, name in enumerate(names)}
  image, text, more_text, more_image = (x / jnp.linalg.norm(x, axis=1, keepdims=True) for x in embeddings.values())
  term = dict(CLIP, temperature=0.1, negative_keys=names[2], negative_queries=names[3])
  loss, _ = evaluate({"t": term}, embeddings, {"id": np.zeros(5, np.int32)})
  rows = jnp.concatenate([image @ text.T, image @ more_text.T], 1) / 0.1
  columns = jnp.concatenate([text @ image.T, text @ more_image.T], 1) / 0.1
  expected = [-jnp.mean(jnp.diag(jax.nn.log_softmax(x))) for x in (rows, columns)]
  np.testing.assert_allclose(loss, sum(expected) / 2, rtol=1e-5)
  # Not even of their own concept: with one id for all, every key but the hard ones is a positive.
  ids = dict(term, target="same_id", direction="rows", negative_queries=())
  loss, metrics = evaluate({"t": ids}, embeddings, {"id": np.zeros(5, np.int32)})
  expected = -jnp.mean(jnp.mean(jax.nn.log_softmax(rows)[:, :5], 1))
  np.testing.assert_allclose(loss, expected, rtol=1e-5)
  np.testing.assert_allclose(metrics["t/negative"], jnp.mean(rows[:, 5:]) * 0.1, rtol=1e-5)


def test_a_queue_of_queries_is_a_queue_of_keys_the_other_way_round():
  embeddings = {IMAGE: random(8, 6), KEY: random(8, 6, seed=1)}
  rows = dict(MOCO, negatives="batch+queue:64")
  columns = dict(rows, query=KEY, key=IMAGE, direction="columns")
  found = [evaluate({"t": term}, embeddings, queues={KEY: queue_of(64, 6)}) for term in (rows, columns)]
  for value, expected in zip(*map(jax.tree.leaves, found)):
    np.testing.assert_allclose(value, expected, rtol=1e-5)
  assert objective.queues(objective.parse_terms({"t": columns})) == {KEY: 64}


# ---- Permutations and masks ---------------------------------------------------------------------

N = 7
MANY = {
  "clip": CLIP,
  "sigmoid": dict(CLIP, criterion="sigmoid", bias=-1.0),
  "tags": dict(CLIP, target=TAGS, criterion=dict(name="softmax", positives="inside")),
  "hinge": dict(CLIP, criterion=dict(name="hinge", reduce="hardest")),
  "reverse_kl": dict(CLIP, criterion=dict(name="reverse_kl", floor=1e-3), target=TAGS, temperature=0.2),
}


@pytest.fixture(scope="module")
def many():
  """(embeddings, info) -> (loss, gradients of the embeddings), for all of MANY."""

  def loss(embeddings, info):
    return evaluate(MANY, embeddings, info)[0]

  return compiled(jax.value_and_grad(loss))


def batch(seed):
  rng = np.random.default_rng(seed)
  return (
    {IMAGE: random(N, 4, seed=seed), TEXT: random(N, 4, seed=seed + 1)},
    {"tags": rng.integers(0, 2, (N, 3), np.uint8), "valid": np.ones(N, bool)},
  )


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), order=st.permutations(range(N)))
def test_order_does_not_matter(many, seed, order):
  embeddings, info = batch(seed)
  order = np.array(order)
  loss, gradients = many(embeddings, info)
  moved, moved_gradients = many(*jax.tree.map(lambda x: x[order], (embeddings, info)))
  np.testing.assert_allclose(moved, loss, rtol=1e-5)
  for name in gradients:
    np.testing.assert_allclose(moved_gradients[name], gradients[name][order], rtol=1e-4, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), absent=st.sets(st.integers(0, N - 1), max_size=N - 1))
def test_absent_examples_do_not_matter(many, seed, absent):
  """Whatever stands in masked places: the same loss and gradients of the others, none to them."""
  embeddings, info = batch(seed)
  info["valid"][list(absent)] = False
  loss, gradients = many(embeddings, info)
  changed = {name: jnp.where(info["valid"][:, None], x, 9.0 * x + 1.0) for name, x in embeddings.items()}
  other, other_gradients = many(changed, info)
  np.testing.assert_allclose(other, loss, rtol=1e-5)
  for name in gradients:
    np.testing.assert_allclose(other_gradients[name], gradients[name], rtol=1e-4, atol=1e-5)
  assert not any(np.any(np.asarray(g)[~info["valid"]]) for g in gradients.values())


def test_absent_examples_are_as_if_never_there(many):
  embeddings, info = batch(0)
  info["valid"][4:] = False
  kept = jax.tree.map(lambda x: x[:4], (embeddings, info))
  np.testing.assert_allclose(many(embeddings, info)[0], many(*kept)[0], rtol=1e-5)


def unit(x):
  return x / jnp.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("criterion", ["softmax", "sigmoid"])
def test_anchors_may_have_weights(criterion):
  """Of zero: no anchor, but a negative still. In proportion: the same loss."""
  embeddings, info = batch(0)
  weight = np.array([0.0, 1.0, 2.0, 0.0, 1.0, 3.0, 1.0], np.float32)
  config = {"t": dict(CLIP, temperature=0.1, criterion=criterion)}
  logits = unit(embeddings[IMAGE]) @ unit(embeddings[TEXT]).T / 0.1
  if criterion == "softmax":
    losses = [-jnp.diag(jax.nn.log_softmax(x)) for x in (logits, logits.T)]
  else:
    losses = [jnp.sum(jax.nn.softplus(x), 1) - jnp.diag(x) for x in (logits, logits.T)]
  for factor in (1.0, 0.25):
    found, _ = evaluate(config, embeddings, info | {"weight": factor * weight})
    np.testing.assert_allclose(found, np.mean([np.average(x, weights=weight) for x in losses]), rtol=1e-5)
  assert evaluate(config, embeddings, info | {"weight": 0.0 * weight})[0] == 0.0


def test_all_absent_is_zero(many):
  embeddings, info = batch(0)
  info["valid"][:] = False
  loss, gradients = many(embeddings, info)
  assert loss == 0.0 and not any(np.any(g) for g in gradients.values())


# ---- What terms refuse --------------------------------------------------------------------------


@pytest.mark.parametrize(
  ("term", "message"),
  [
    (dict(CLIP, temprature=0.1), r"objective\.t: no option 'temprature'; did you mean 'temperature'"),
    (dict(query=IMAGE), r"objective\.t\.key: must be given"),
    (dict(CLIP, query="image0/joint"), r"objective\.t\.query: 'image0/joint' is not the path"),
    (dict(CLIP, criterion="sofmax"), r"objective\.t\.criterion: .* did you mean 'softmax'"),
    (dict(CLIP, criterion=dict(name="hinge", marge=1)), r"t\.criterion: no option 'marge'; did you mean 'margin'"),
    (dict(CLIP, criterion=dict(name="softmax", positives="in")), r"t\.criterion\.positives: .*'inside'"),
    (dict(CLIP, target="tags"), r"objective\.t\.target: .* did you mean 'shared_tags'"),
    (dict(CLIP, target="same_label"), r"objective\.t\.target\.label: must be given"),
    (dict(CLIP, score="cosin"), r"objective\.t\.score: .* did you mean 'cosine'"),
    (dict(CLIP, negatives="queue:64"), r"t\.key: a queue holds keys of one momentum embedding"),
    (dict(MOCO, negatives="queue"), r"t\.negatives: 'queue' has no queue length"),
    (dict(MOCO, negatives="que:64"), r"t\.negatives: .* did you mean 'queue'"),
    (dict(MOCO, direction="both"), r"t\.direction: 'both' does not go with a queue"),
    (dict(MOCO, direction="columns"), r"t\.query: a queue holds keys of one momentum embedding"),
    (
      dict(CLIP, direction="rows", negative_queries="image[1]/joint"),
      r"t\.negative_queries: no anchor sees them in direction 'rows'; use direction='columns'",
    ),
    (
      dict(CLIP, negative_keys="text[1]/joint", target=dict(name="soft_similarity", of=IMAGE)),
      r"t\.target: soft weights of negative_keys are unknown; leave it out",
    ),
    (dict(CLIP, prototypes=-3), r"t\.prototypes: -3 is not a number of prototypes"),
    (
      dict(CLIP, prototypes=8, score="token_max"),
      r"t\.prototypes: a prototype is one vector, and score 'token_max' compares tokens",
    ),
    (dict(CLIP, negative_keys="text[1]"), r"t\.negative_keys: 'text\[1\]' is not the path"),
    (dict(MOCO, target=dict(name="soft_similarity", of=IMAGE)), r"t\.target: soft weights of queued keys"),
    (dict(CLIP, temperature=dict(init=0.001, min=0.01)), r"t\.temperature: 0\.001 is not above 0 and within"),
    (dict(CLIP, temperature=dict(initial=0.1)), r"t\.temperature: no option 'initial'; did you mean 'init'"),
    (dict(CLIP, temperature="u"), r"t\.temperature: no such choice 'u'"),
    (dict(CLIP, temperature="t"), r"t\.temperature: t -> t is a cycle"),
    (dict(query=IMAGE, key=IMAGE), r"t\.key: 'image\[0\]/joint' would be compared only with itself"),
    (dict(query=[IMAGE, TEXT], key=TEXT), r"t\.key: .* are queries too"),
    (dict(query=[IMAGE, TEXT], key=[IMAGE, TEXT], criterion="hinge"), r"t\.criterion: hinge measures"),
    ("clip", r"objective\.t: a term is a dict"),
  ],
)
def test_one_line_says_what_to_change(term, message):
  with pytest.raises(UserError, match=message) as error:
    objective.parse_terms({"t": term})
  assert "\n" not in str(error.value)


def test_no_terms_and_two_lengths_of_one_queue():
  with pytest.raises(UserError, match="objective: has no terms"):
    objective.parse_terms({})
  with pytest.raises(UserError, match=r"b\.negatives: the queue of 'text\[0\]/joint@momentum' has length 64"):
    objective.parse_terms({"a": MOCO, "b": dict(MOCO, negatives="queue:128")})


RUN = dict(views={"image": 2, "text": 1}, heads={"joint": "image", "words": "text"}, batch_size=16)


@pytest.mark.parametrize(
  ("term", "run", "message"),
  [
    (CLIP, {}, r"embedding 'text\[0\]/joint': head 'joint' is on the image tower; .*words"),
    (dict(query=IMAGE, key="text[1]/words"), {}, r"data\.views\.text is 1"),
    (dict(query=IMAGE, key="audio[0]/words"), {}, r"modality: no such choice 'audio'"),
    (dict(query=IMAGE, key="text[0]/word"), {}, r"head: .* did you mean 'words'"),
    (dict(query=IMAGE, key="text[0]/words@momentum"), dict(momentum=False), r"there is no momentum branch"),
    (dict(query=IMAGE, key="text[0]/words", target=TAGS), {}, r"t\.target: the dataset has no tags"),
    (
      dict(query=IMAGE, key="text[0]/words", target=dict(name="same_label", label="grup")),
      dict(labels=["group"]),
      r"t\.target\.label: .* did you mean 'group'",
    ),
    (
      dict(query=IMAGE, key="text[0]/words@momentum", negatives="queue:40"),
      {},
      r"a queue of 40 is not a multiple of the global batch 16; use 'queue:32'",
    ),
  ],
)
def test_terms_must_fit_the_run(term, run, message):
  terms = objective.parse_terms({"t": term})
  with pytest.raises(UserError, match=message):
    objective.check_terms(terms, **(RUN | run))


def test_a_config_dict_and_what_it_needs():
  config = ml_collections.ConfigDict(
    dict(tags=dict(MOCO, target=dict(TAGS)), moco=dict(MOCO), clip=dict(query=IMAGE, key="text[0]/words"))
  )
  terms = objective.parse_terms(config)
  assert set(objective.required_embeddings(terms)) == {IMAGE, KEY, "text[0]/words"}
  assert objective.queues(terms) == {KEY: 64}
  keys = objective.keys_to_push(terms, {KEY: 3 * random(16, 8)})[KEY]
  np.testing.assert_allclose(jnp.linalg.norm(keys, axis=1), 1.0, rtol=1e-6)


# ---- Defaults are the term's own ------------------------------------------------------------------


def test_without_weights_a_term_has_the_one_of_its_config():
  embeddings = {IMAGE: random(6, 4), TEXT: random(6, 4, seed=1)}
  config = {"off": dict(CLIP, weight=0.0), "half": dict(CLIP, weight=0.5)}
  terms = objective.parse_terms(config | {"pull": dict(regularizer="alignment", embeddings=(IMAGE, TEXT), weight=0.0)})
  loss, metrics = objective.evaluate(terms, embeddings, {}, {}, {}, {})
  np.testing.assert_allclose(loss, 0.5 * metrics["half/loss"], rtol=1e-6)
  assert metrics["off/weight"] == metrics["pull/weight"] == 0.0 and metrics["off/loss"] > 0


@pytest.mark.parametrize(
  ("changes", "key"),
  [
    (dict(weight=dict(name="linear", init=0.0, end=1.0)), r"t\.weight: follows the schedule 'linear'.*`weights`"),
    (dict(temperature=dict(schedule=dict(name="cosine", init=0.2, end=0.1))), r"t\.temperature\.schedule.*`scheduled`"),
    (
      dict(target=dict(name="teacher", query=IMAGE, key=TEXT, share=dict(name="linear", init=0.1, end=0.4))),
      r"t\.target\.share: follows the schedule",
    ),
  ],
)
def test_what_follows_a_schedule_must_be_given(changes, key):
  terms = objective.parse_terms({"t": dict(CLIP, **changes)})
  embeddings = {IMAGE: random(6, 4), TEXT: random(6, 4, seed=1)}
  with pytest.raises(UserError, match=key) as error:
    objective.evaluate(terms, embeddings, {}, {}, {}, {})
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (dict(criterion=dict(name="decoupled", decoupled=False)), r"t\.criterion: no option 'decoupled'"),
    (dict(target=dict(name="teacher", query=IMAGE, key=TEXT, share=0.0)), r"t\.target\.share: 0 leaves .*'identity'"),
    (dict(target=dict(name="mixed", probability=0.0)), r"t\.target\.probability: 0 mixes nothing; .*'identity'"),
  ],
)
def test_an_option_does_not_turn_a_thing_into_another(changes, message):
  with pytest.raises(UserError, match=message) as error:
    objective.parse_terms({"t": dict(CLIP, **changes)})
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  "changes, has",
  [
    ({}, False),
    (dict(direction="both"), False),
    (dict(criterion="sigmoid"), False),
    (dict(query=["image[0]/i", "image[1]/i"], key=["image[0]/i", "image[1]/i"], criterion="mv_dhel"), False),
    (dict(key="text[0]/t@momentum", negatives="batch+queue:4"), True),
    (dict(negative_keys="text[1]/t"), True),
    (dict(prototypes=8), True),
  ],
)
def test_a_batch_of_one_needs_negatives_from_elsewhere(changes, has):
  terms = objective.parse_terms({"t": dict(dict(query="image[0]/i", key="text[0]/t"), **changes)})
  run = dict(views=dict(image=2, text=2), heads=dict(i="image", t="text"))
  objective.check_terms(terms, **run, batch_size=2)
  if has:
    return objective.check_terms(terms, **run, batch_size=1)
  with pytest.raises(UserError, match=r"objective\.t: with config\.batch\.size=1 .* no negatives .* raise it to 2"):
    objective.check_terms(terms, **run, batch_size=1)
