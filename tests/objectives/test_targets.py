"""Teachers, mixed pairs, weighted tags: published numbers, meshes, the order of a batch, and bad input."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import assert_close, compiled, make_mesh
from test_golden_losses import BOTH, IMAGE, TEXT, check, inputs, total
from token_arrays import with_tokens

from mmcontrast.errors import UserError
from mmcontrast.objectives import mixing
from mmcontrast.objectives import terms as objective
from mmcontrast.objectives.side import Side

MULTIMODAL = json.loads((pathlib.Path(__file__).parents[1] / "golden" / "multimodal.json").read_text())


def multimodal(case):
  """(inputs, expected numbers) of a case of multimodal.json."""
  found = MULTIMODAL[case]
  return {name: jnp.asarray(value) for name, value in found["inputs"].items()}, found["expected"]


def cross_entropy(logits, target):
  """Mean over rows; a row's target counts as much as it sums to."""
  return -jnp.mean(jnp.sum(target * jax.nn.log_softmax(logits), 1))


# ---- Published numbers --------------------------------------------------------------------------


@pytest.mark.usefixtures("float64")
def test_mobileclip():
  """Two teachers of their own temperatures and widths, averaged after the softmax; real and synthetic caption."""
  x = inputs("mobileclip_dr")
  config, fixed = {}, {}
  for caption, teacher in ((TEXT, "tt"), ("text[1]/joint", "tsyn")):
    keys = [caption.replace("joint", f"teacher_{m}") for m in "ab"]
    fixed |= {keys[0]: x[teacher][:, :4], keys[1]: x[teacher][:, 4:]}
    target = dict(
      name="teacher",
      query=["image[0]/teacher_a", "image[0]/teacher_b"],
      key=keys,
      temperature=[1 / 70, 1 / 60],
      normalized=False,
    )
    term = dict(BOTH, key=caption, score="dot", temperature=1 / float(x["scale"]))
    config[f"{caption}_pair"] = dict(term, weight=0.25)
    config[f"{caption}_taught"] = dict(term, target=target, weight=0.75)
  fixed |= {"image[0]/teacher_a": x["ti"][:, :4], "image[0]/teacher_b": x["ti"][:, 4:]}

  def loss(a):
    return total(config, {IMAGE: a["zi"], TEXT: a["zt"], "text[1]/joint": a["zs"], **fixed})

  check("mobileclip_dr", loss, **{name: x[name] for name in ("zi", "zt", "zs")})


@pytest.mark.usefixtures("float64")
def test_dreamlip_is_a_pair_for_each_caption():
  x = inputs("dreamlip_mpcl")
  keys = [f"text[{k}]/joint" for k in range(3)]
  config = {key[:7]: dict(BOTH, key=key, score="dot", temperature=1 / float(x["scale"]), weight=1 / 3) for key in keys}

  def loss(a):
    return total(config, {IMAGE: a["zi"], **{key: a["texts"][:, k] for k, key in enumerate(keys)}})

  check("dreamlip_mpcl", loss, zi=x["zi"], texts=x["texts"])


MIXED = dict(BOTH, target="mixed", criterion=dict(name="softmax", normalized=False), temperature=0.1)


@pytest.mark.usefixtures("float64")
def test_m3col_mixed_pairs():
  """The reference writes 1 - share over share where an example is its own partner; ours adds up to 1."""
  x, expected = multimodal("m3col")
  partner, share, n = x["perm"], x["lam"], len(x["perm"])
  mixes = jnp.diag(share) + (1 - share)[:, None] * jax.nn.one_hot(partner, n)
  unmixed = jnp.linalg.solve(mixes, x["mixed"])
  np.testing.assert_allclose(mixing.mix_arrays(unmixed, mixing.Mix(partner, share)), x["mixed"], rtol=1e-12)

  def unit(a):
    return a / jnp.linalg.norm(a, axis=1, keepdims=True)

  def wanted(a, target):
    logits = unit(mixes @ a["unmixed"]) @ unit(a["fixed"]).T / x["temp"]
    return (cross_entropy(logits, target) + cross_entropy(logits.T, target.T)) / 2

  def found(a):
    return total({"t": MIXED}, {IMAGE: a["unmixed"], TEXT: a["fixed"]}, {"mix": (partner, share)})

  arguments = {"unmixed": unmixed, "fixed": x["fixed"]}
  overwritten = jnp.where(jax.nn.one_hot(partner, n) > 0, (1 - share)[:, None], jnp.diag(share))
  np.testing.assert_allclose(wanted(arguments, overwritten), expected["mixco_nce"], rtol=1e-12)
  assert_close(jax.value_and_grad(found)(arguments), jax.value_and_grad(lambda a: wanted(a, mixes))(arguments), 1e-11)


@pytest.mark.usefixtures("float64")
def test_m3col_second_phase_is_a_teacher_that_is_the_key_itself():
  x, expected = multimodal("m3col")
  term = dict(BOTH, target=dict(name="teacher", query=TEXT, key=TEXT), temperature=float(x["soft_temp"]))
  found = total({"t": term}, {IMAGE: x["mixed"], TEXT: x["fixed"]})
  np.testing.assert_allclose(found, expected["soft_clip"], rtol=1e-12)


@pytest.mark.usefixtures("float64")
def test_explicit_negatives_are_a_queue():
  x, expected = multimodal("infonce_explicit_negatives")
  key = f"{TEXT}@momentum"
  term = dict(query=IMAGE, key=key, negatives="queue:5", temperature=float(x["temp"]))
  negatives = x["neg"] / jnp.linalg.norm(x["neg"], axis=1, keepdims=True)
  queues = {key: {"keys": negatives, "pointer": jnp.int32(0)}}
  found = total({"t": term}, {IMAGE: x["query"], key: x["pos"]}, queues=queues)
  np.testing.assert_allclose(found, expected["loss"], rtol=1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("part", ["image", "text"])
def test_local_parts_of_tcl(part):
  """Each local of the own example apart, against the locals of all others."""
  x = inputs(f"tcl_g2l_{part}")
  present = x.get("mask", jnp.ones(x["loc"].shape[:2]))
  local = "text[0]/tokens@momentum"
  term = dict(
    query=IMAGE, key=local, token_keys=True, score="dot", criterion="each_positive", temperature=float(x["tau"])
  )

  def loss(a):
    return total({"t": term}, {IMAGE: a["glob"], local: x["loc"] * present[..., None]})

  check(f"tcl_g2l_{part}", loss, glob=x["glob"])


@pytest.mark.usefixtures("float64")
def test_tcl():
  """Six terms of one weight: across modalities with a teacher, within, and global to local."""
  x = inputs("tcl_ita")
  tau, share, length = float(x["tau"]), float(x["alpha"]), x["qi"].shape[0]
  second, caption = "image[1]/joint@momentum", f"{TEXT}@momentum"
  patches, words = "image[1]/tokens@momentum", "text[0]/tokens@momentum"
  queued = dict(negatives=f"batch+queue:{length}", temperature=tau, weight=1 / 6)
  local = dict(token_keys=True, score="dot", criterion="each_positive", temperature=tau, weight=1 / 6)
  config = {
    "image_to_text": dict(queued, query=IMAGE, key=caption, target=dict(name="teacher", query=second, share=share)),
    "text_to_image": dict(queued, query=TEXT, key=second, target=dict(name="teacher", query=caption, share=share)),
    "image_to_image": dict(queued, query=IMAGE, key=second),
    "text_to_text": dict(queued, query=TEXT, key=caption),
    "image_local": dict(local, query=IMAGE, key=patches),
    "text_local": dict(local, query=TEXT, key=words),
  }
  unit = {name: x[name] / jnp.linalg.norm(x[name], axis=-1, keepdims=True) for name in ("him", "htm")}
  pooled = unit["him"][:, 1:].reshape(4, 2, 2, 2, 2, 6).mean((2, 4)).reshape(4, 4, 6)  # 4 x 4 patches, 2 x 2 locals
  fixed = {
    second: x["him"][:, 0],
    caption: x["htm"][:, 0],
    patches: pooled,
    words: unit["htm"][:, 1:] * x["mask"][:, 1:, None],
  }
  queues = {second: {"keys": x["qi"], "pointer": jnp.int32(0)}, caption: {"keys": x["qt"], "pointer": jnp.int32(0)}}

  def loss(a):
    query = {IMAGE: a["hi"][:, 0], TEXT: a["ht"][:, 0]}
    local = {**{name: v / jnp.linalg.norm(v, axis=1, keepdims=True) for name, v in query.items()}, **fixed}
    parts = [
      ({k: config[k] for k in config if "local" not in k}, {**query, **fixed}),
      ({k: config[k] for k in config if "local" in k}, local),
    ]
    return sum(total(part, embeddings, queues=queues) for part, embeddings in parts)

  check("tcl_ita", loss, hi=x["hi"], ht=x["ht"])


@pytest.mark.usefixtures("float64")
def test_negatives_of_reversed_order():
  """TACT: originals and reversed copies are each other's hard negatives, the own one with another weight."""
  x, expected = multimodal("tact")
  views = {"video": ["image[0]/joint", "image[1]/joint"], "text": ["text[0]/joint", "text[1]/joint"]}
  embeddings = {name: x[kind][4 * i : 4 * i + 4] for kind, names in views.items() for i, name in enumerate(names)}
  weights = [float(x["alpha_same"]), float(x["alpha_cross"])]
  for query, key in (("text", "video"), ("video", "text")):
    config = {
      str(i): dict(
        query=views[query][i],
        key=views[key][i],
        negative_keys=views[key][1 - i],
        negative_weights=weights,
        score="dot",
        temperature=1.0,
        weight=1 / 2,
      )
      for i in range(2)
    }
    # The reference takes the weights' logarithms in single precision.
    np.testing.assert_allclose(total(config, embeddings), expected[f"{query[0]}2{key[0]}"], rtol=1e-8)


@pytest.mark.usefixtures("float64")
def test_negatives_that_only_their_own_query_sees():
  """mmE5 (haon-chen/mmE5@4818cdf): the batch's targets and three further columns of each query's own; and the rest."""
  draw, names = np.random.default_rng(3), [f"text[{view}]/joint" for view in range(1, 4)]
  embeddings = {name: jnp.asarray(draw.normal(size=(5, 6))) for name in (IMAGE, TEXT, *names)}
  term = dict(query=IMAGE, key=TEXT, negative_keys=names, temperature=0.2)

  def wanted(given, others):
    unit = {name: x / jnp.linalg.norm(x, axis=1, keepdims=True) for name, x in given.items()}
    hard = jnp.stack([unit[IMAGE] @ unit[name].T for name in names], -1)  # [query, example, negative]
    met = jnp.eye(5, dtype=bool) != others
    logits = jnp.concatenate([unit[IMAGE] @ unit[TEXT].T, jnp.where(met[..., None], hard, -jnp.inf).reshape(5, -1)], 1)
    return -jnp.mean(jnp.diagonal(jax.nn.log_softmax(logits / 0.2, -1)))

  for weights, others in (((1, 0), False), ((0, 1), True)):
    found = compiled(jax.value_and_grad(lambda given: total({"t": dict(term, negative_weights=weights)}, given)))  # noqa: B023
    expected = compiled(jax.value_and_grad(lambda given: wanted(given, others)))  # noqa: B023
    assert_close(found(embeddings), expected(embeddings), 1e-12)


@pytest.mark.usefixtures("float64")
def test_supcon_weighted_by_labels():
  """The golden weights of four pairs of classes, as six labels that two examples share."""
  x, expected = multimodal("soft_supcon")
  weights, n = np.asarray(x["weights"]), len(x["weights"])
  pairs = [(i, j) for i in range(n) for j in range(i)]
  kinds = {f"pair_{i}{j}": np.where(np.isin(np.arange(n), (i, j)), 0, -1) for i, j in pairs}
  target = dict(name="shared_labels", labels={f"pair_{i}{j}": float(weights[i, j]) for i, j in pairs})
  views = ["image[0]/ssl", "image[1]/ssl"]
  term = dict(query=views, key=views, target=target, score="dot", temperature=float(x["temp"]))
  found = total({"t": term}, dict(zip(views, x["features"].swapaxes(0, 1))), {"labels": kinds})
  np.testing.assert_allclose(found, expected["loss"], rtol=5e-8)  # the reference rounds weights to single precision


# ---- Meshes, order, gradients -------------------------------------------------------------------

N, D = 18, 6  # N is a multiple of neither the devices nor the tiles.
TEACHERS = dict(
  name="teacher",
  query=["image[0]/frozen", "image[1]/frozen"],
  key=["text[0]/frozen", "text[1]/frozen"],
  temperature=[0.3, 0.2],
  share=0.7,
)
TAGS = dict(name="shared_tags", overlap="jaccard", threshold=0.2, weighted=True)
CASES = {
  "teachers": dict(target=TEACHERS),
  "mixed_normalized": dict(target=dict(name="mixed", alpha=0.5, probability=1.0, stream=1)),
  "hard": dict(negative_keys="text[1]/joint", negative_queries="image[1]/joint", negative_weights=[3.0, 0.5]),
  "own": dict(negative_keys="text[1]/joint", negative_queries="image[1]/joint", negative_weights=[1.0, 0.0]),
  "tokens": dict(key="text[0]/tokens", token_keys=True, direction="rows", criterion="each_positive", target="same_id"),
  "mixed_views": dict(MIXED, key=[TEXT, "text[1]/joint"]),
  "tags": dict(target=TAGS),
  "labels": dict(target=dict(name="shared_labels", labels=dict(kind=0.7, family=0.3))),
  "counts_inside": dict(target=dict(TAGS, overlap="count"), criterion=dict(name="softmax", positives="inside")),
}


def make_inputs(order=None):
  terms = objective.parse_terms({name: {**BOTH, **case} for name, case in CASES.items()})
  rng = np.random.default_rng(0)
  names = objective.required_embeddings(terms)
  embeddings = {name: rng.normal(size=(N, 3, D) if "tokens" in name else (N, D)) for name in names}
  embeddings["text[0]/tokens"][rng.random((N, 3)) < 0.2] = 0.0  # no tokens
  info = {
    "seed": rng.integers(0, 2**32, N, np.uint32),
    "tags": rng.integers(0, 2, (N, 5), np.uint8),
    "id": rng.integers(0, 6, N).astype(np.int32),
    "kind": rng.integers(-1, 6, N),
    "family": rng.integers(-1, 3, N),
    "valid": (np.arange(N) != 3) & (np.arange(N) != 17),
  }
  order = np.arange(N) if order is None else order
  info = {name: x[order] for name, x in info.items()}
  info["labels"] = {name: info.pop(name).astype(np.int32) for name in ("kind", "family")}
  return terms, {name: jnp.asarray(x[order]) for name, x in embeddings.items()}, info


def losses_and_gradients(impl="dense", devices=1, order=None, names=tuple(CASES)):
  """{term: (loss, gradients by embeddings)} of the cases `names`."""
  terms, embeddings, info = make_inputs(order)

  def loss(embeddings, info, name):
    given = with_tokens(embeddings)
    return objective.evaluate({name: terms[name]}, given, info, {}, {}, {}, mesh=make_mesh(devices), impl=impl, tile=4)[
      0
    ]

  # A program for each: several rings at once on simulated devices, more of them than cores, are mixed up now and then.
  return {name: jax.device_get(compiled(jax.value_and_grad(lambda x, info, name=name: loss(x, info, name)))(
    embeddings, info)) for name in names}  # fmt: skip


@pytest.fixture(scope="module")
def dense():
  with jax.enable_x64(True):
    return losses_and_gradients()


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("impl", "devices", "names"), [("ring", 8, tuple(CASES)), ("rows", 2, ("teachers", "tokens"))])
def test_meshes(dense, impl, devices, names):
  assert_close(losses_and_gradients(impl, devices, names=names), {name: dense[name] for name in names}, 1e-10)


@pytest.mark.usefixtures("float64")
def test_the_order_of_the_batch_does_not_matter(dense):
  """Partners in a mixture are drawn by seed, not by place."""
  order = np.random.default_rng(1).permutation(N)
  found = losses_and_gradients(order=order)
  wanted = {name: (loss, {key: g[order] for key, g in grads.items()}) for name, (loss, grads) in dense.items()}
  assert_close(found, wanted, 1e-10)


def test_teachers_get_no_gradient(dense):
  for name, (_, gradients) in dense.items():
    assert np.any(gradients[IMAGE]) and np.any(gradients["text[0]/tokens" if name == "tokens" else TEXT]), name
    for embedding, gradient in gradients.items():
      assert not ("frozen" in embedding and np.any(gradient)), (name, embedding)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("criterion", ["softmax", "sigmoid"])
def test_a_share_ramps_between_own_pairs_and_the_teacher(criterion):
  """The loss is linear in the target, so a share's value now must lie where it says between its ends."""
  _, embeddings, info = make_inputs()
  term = objective.parse_terms({"t": dict(BOTH, target=TEACHERS, criterion=criterion)})
  shares = [{"t": {"share": jnp.float64(share)}} for share in (0.0, 0.25, 1.0)]
  at = [objective.evaluate(term, with_tokens(embeddings), info, {}, {}, {}, scheduled=now)[0] for now in shares]
  own = total({"t": dict(BOTH, criterion=criterion)}, embeddings, info)
  np.testing.assert_allclose(at[0], own, rtol=1e-12)
  np.testing.assert_allclose(at[1], 0.75 * at[0] + 0.25 * at[2], rtol=1e-12)
  assert abs(at[2] - at[0]) > 0.01
  ramp = dict(name="linear", init=0.0, end=0.4, epochs=1)
  ramped = objective.parse_terms({"t": dict(BOTH, target=dict(TEACHERS, share=ramp))})
  assert objective.schedules(ramped) == {"t": {"share": (ramp, "objective.t.target.share")}}


# ---- Mixing -------------------------------------------------------------------------------------


@jax.jit
def draw(seeds, valid, alpha, stream):
  return mixing.draw_mix(seeds, valid, alpha, 0.5, stream)


def test_partners_are_a_cycle_and_shares_are_as_asked():
  seeds = np.random.default_rng(0).integers(0, 2**32, 2000, np.uint32)
  partner, share = draw(seeds, np.ones(len(seeds), bool), 0.15, 0)
  place, seen = 0, set()
  while place not in seen:
    seen.add(place)
    place = int(partner[place])
  assert len(seen) == len(seeds)  # one cycle: nobody is its own partner
  assert 0.45 < np.mean(share == 1) < 0.62 and share.min() >= 0 and share.max() <= 1  # Beta(0.15, 0.15) rounds to 1 too
  drawn = share[share < 1]
  assert np.mean((drawn < 0.1) | (drawn > 0.9)) > 0.5  # U-shaped
  other, _ = draw(seeds, np.ones(len(seeds), bool), 0.15, 1)
  assert np.mean(other == partner) < 0.01


def test_nobody_is_mixed_with_an_absent_example():
  seeds, valid = np.arange(2000, dtype=np.uint32), np.arange(2000) % 3 > 0
  partner, share = draw(seeds, valid, 1.0, 0)
  np.testing.assert_array_equal(share[~valid[partner]], 1.0)
  assert 0.4 < np.mean(share[valid[partner]] < 1) < 0.6


# ---- Tags ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
  ("overlap", "weights"),
  [("count", [[2, 1, 0], [1, 3, 0], [0, 0, 1]]), ("jaccard", [[1, 0.25, 0], [0.25, 1, 0], [0, 0, 1]])],
)
def test_weights_of_tags(overlap, weights):
  term = objective.parse_terms({"t": dict(BOTH, target=dict(name="shared_tags", overlap=overlap, weighted=True))})["t"]
  tags = np.array([[1, 1, 0, 0], [0, 1, 1, 1], [0, 0, 0, 0]], np.uint8)
  side = Side(x=None, position=np.arange(3), facts={"tags": tags})
  np.testing.assert_allclose(term.target.weights("row", side, side), weights)


# ---- Bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (dict(target=dict(TEACHERS, key="text[0]/frozen")), "objective.t.target.key: 1 for 2 teachers; give one for"),
    (dict(target=dict(TEACHERS, temperature=[0.1] * 3)), "objective.t.target.temperature: 3 for 2 teachers"),
    (dict(target=dict(TEACHERS, key=None)), "objective.t.target.key: must be given for each of the 2 teachers"),
    (dict(target=dict(TEACHERS, temperature=0.0)), "objective.t.target.temperature: 0.0 is not above 0"),
    (dict(target=dict(TEACHERS, share=1.4)), r"objective.t.target.share: 1.4 is not in \[0, 1\]; ALBEF uses 0.4"),
    (dict(target=dict(TEACHERS, share=dict(name="linear", init=0.0, end=4.0))), "objective.t.target.share: 4.0 is not"),
    (dict(target=dict(TEACHERS, share="ramp")), "objective.t.target.share: a schedule is a number or a mapping"),
    (dict(target=dict(name="teacher")), "objective.t.target.query: must be given"),
    (dict(target=dict(name="mixed", alpha=0)), "objective.t.target.alpha: 0 is not above 0; M3CoL uses 0.15"),
    (dict(target=dict(name="mixed", probability=2)), r"objective.t.target.probability: 2 is not in \[0, 1\]"),
    (dict(target="mixed", query=[IMAGE, TEXT], key=[IMAGE, TEXT]), "objective.t.target: 'mixed' mixes the queries"),
    (dict(target="shared_labels"), "objective.t.target.labels: must be given; names of labels"),
    (dict(target=dict(name="shared_labels", labels="group")), "objective.t.target.labels: 'group' is not a table"),
    (dict(target=dict(name="shared_labels", labels=dict(group=2))), "objective.t.target.labels.group: 2 is not in"),
    (dict(negative_weights=[2, 1]), "objective.t.negative_weights: there are no hard negatives; name negative_keys"),
    (dict(negative_weights=2.0), "objective.t.negative_weights: 2.0 is not a pair of numbers of 0 or more"),
    (dict(token_keys=True), "objective.t.token_keys: each token is a key for queries of one vector"),
    (dict(target=dict(name="shared_tags", overlap="any", weighted=True)), "objective.t.target.weighted: overlap 'any'"),
    (dict(target=dict(name="shared_tags", weighted=True), criterion="sigmoid"), "objective.t.target.overlap: sigmoid"),
    (dict(criterion=dict(name="softmax", normalized=False, smoothing=0.1)), "objective.t.criterion.normalized: False"),
  ],
)
def test_bad_input(changes, message):
  with pytest.raises(UserError, match=message):
    objective.parse_terms({"t": {**BOTH, **changes}})


def test_token_keys_want_a_token_head():
  term = dict(query=IMAGE, key="text[0]/words", token_keys=True)
  run = dict(views={"image": 1, "text": 1}, heads={"joint": "image", "words": "text", "locals": "text"}, batch_size=8)
  objective.check_terms(objective.parse_terms({"t": term}), **run, token_heads=("words",))
  with pytest.raises(UserError, match="token_keys wants tokens, which head 'words' does not give"):
    objective.check_terms(objective.parse_terms({"t": term}), **run, token_heads=("locals",))


def test_labels_must_be_the_datasets():
  target = dict(name="shared_labels", labels=dict(group=0.5, subgruop=1.0))
  terms = objective.parse_terms({"t": dict(query=IMAGE, key="text[0]/words", target=target)})
  run = dict(views={"image": 1, "text": 1}, heads={"joint": "image", "words": "text"}, batch_size=8)
  with pytest.raises(UserError, match=r"t.target.labels: no such choice 'subgruop'"):
    objective.check_terms(terms, **run, labels=("group", "subgroup"))
