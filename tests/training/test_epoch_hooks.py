"""What is computed between epochs: k-means into a term's state, the same after a kill and on any devices."""

import dataclasses
import pathlib
import types
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from own_data import encode, picture
from tiny import assert_same, tiny_config

from mmcontrast import train as training
from mmcontrast.data import pipeline
from mmcontrast.data.sources import open_source
from mmcontrast.encoders import Encoded
from mmcontrast.errors import UserError
from mmcontrast.modalities.views import Inputs
from mmcontrast.objectives import terms as objective
from mmcontrast.parallel import sharding
from mmcontrast.stores.epoch_hooks import HOOKS
from mmcontrast.stores.group_hooks import ClusterBatches
from mmcontrast.stores.hook import Examples
from mmcontrast.training.epoch_hooks import EpochHooks, Update, check_hooks, parse_hooks, written
from mmcontrast.training.program import make_plans
from mmcontrast.training.step import init_state

ROWS, BATCH, PATH = 26, 8, "image[0]/image_ssl@momentum"  # three batches an epoch, two rows in none of them
MODULE = dict(name="prototype_contrast", clusters=(3, 5))
HOOK = dict(name="kmeans", term="prototypes", embedding=PATH, first_epoch=1, iterations=4)
SIDES = ("image[0]/image_ssl", "image[1]/image_ssl")
GROUPS = dict(name="cluster_batches", embeddings=(PATH,), clusters=2, iterations=4)
EPISODE = dict(name="prototype_back_translation", term="alignment", embeddings=SIDES, first_epoch=1, iterations=4)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  folder = tmp_path_factory.mktemp("data")
  table = []
  for row in range(ROWS):
    (folder / f"{row}.png").write_bytes(b"no picture" if row == 9 else picture(row))
    table.append({"image": f"{row}.png", "caption": f"thing {row}"})
  (folder / "rows.jsonl").write_bytes(encode("jsonl", table))
  return folder


def config(data: pathlib.Path, **changes):
  c = tiny_config(steps=8, momentum=dict(decay=0.9, update="before_keys"))
  c["data"] |= dict(dataset=f"jsonl:{data}/rows.jsonl", split="train", views=dict(image=2, text=0), cache="none")
  c["data"]["on_error"] = {**c["data"]["on_error"], "max_share": 0.1}
  c["batch"] = dict(size=BATCH, microbatches=1)
  c["towers"] = dict(image=dict(name="vit", patch=8, width=8, depth=0, heads=2))
  c["heads"] = dict(image_ssl=dict(tower="image", name="linear", dim=4))
  c["objective"] = dict(
    views=dict(query="image[0]/image_ssl", key="image[1]/image_ssl@momentum", temperature=0.2),
    prototypes=dict(module=MODULE, embeddings="image[0]/image_ssl"),
    alignment=dict(module=dict(name="prototype_alignment", clusters=3), embeddings=SIDES),
  )
  c["evaluation"]["text"], c["checkpoint"]["every_steps"] = "", 100
  return c | dict(epoch_hooks=dict(clusters=HOOK, episode=EPISODE, groups=GROUPS)) | changes


def plan_of(config):
  return make_plans(config, lambda run: pipeline.spec(run["data"], run["batch"]["size"], None))[""]


@pytest.fixture
def devices(monkeypatch):
  """Trains on so many of the simulated devices."""
  make_mesh = sharding.make_mesh

  def use(count):
    monkeypatch.setattr(sharding, "make_mesh", lambda sizes, _=None: make_mesh(sizes, jax.devices()[:count]))

  use(1)
  return use


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
  """The state of a run of eight steps on one device, without a stop."""
  make_mesh = sharding.make_mesh
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sharding, "make_mesh", lambda sizes, _=None: make_mesh(sizes, jax.devices()[:1]))
    return jax.device_get(training.train(config(data), tmp_path_factory.mktemp("whole")))


def test_clusters_are_written_before_the_epoch_and_learned_from(whole):
  state, rows = whole.terms["prototypes"], whole.tables["prototypes"]
  for number, count in enumerate(MODULE["clusters"]):
    centroids, spread = state[f"centroids_{number}"], state[f"concentrations_{number}"]
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, rtol=1e-5)
    assert centroids.shape == (count, 4) and np.isclose(spread.mean(), 0.2) and (spread > 0).all()
    clusters = rows[f"cluster_{number}"][:ROWS]
    assert clusters[9] == -1 and set(np.delete(clusters, 9)) <= set(range(count))  # a record that is no picture
    assert len(set(clusters)) > 2
  groups = whole.tables["groups"]["group"][:ROWS]
  assert groups[9] == -1 and set(groups) == {-1, 0, 1}
  alignment = whole.terms["alignment"]
  assert all(np.any(alignment[f"{array}_{n}"], 1).all() for array in ("means", "prototypes") for n in (0, 1))


def test_a_killed_run_has_the_same_arrays_bit_for_bit(whole, data, tmp_path, devices):
  """Killed where an epoch ends, before the hook has run, and in the middle of one."""
  for steps in (3, 5, 8):
    state = training.train(config(data, steps=steps), tmp_path)
  assert_same(jax.device_get(state), whole)


def test_four_devices_do_what_one_does(whole, data, tmp_path, devices):
  devices(4)
  state = jax.device_get(training.train(config(data), tmp_path))
  for ours, theirs in ((state.terms, whole.terms), (state.tables, whole.tables), (state.params, whole.params)):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


@dataclasses.dataclass(frozen=True)
class Remember:
  """Keeps what it was given."""

  TAKES: ClassVar = ("pooled",)
  seen: ClassVar[list] = []
  column: str = "cluster_0"

  embeddings: ClassVar = ("image[0]/image_ssl", PATH)

  def check(self, state, examples, of_training):
    pass

  def __call__(self, embed, state, key):
    self.seen.append((embed(self.embeddings), jax.random.key_data(key)))
    return Update(tables={"prototypes": {self.column: np.arange(ROWS)}}, shown={"loss": 0.5})


@pytest.fixture
def remember(monkeypatch, data, devices):
  monkeypatch.setitem(HOOKS, "remember", Remember)
  Remember.seen.clear()

  def hooks(**options):
    plan = plan_of(config(data, epoch_hooks=dict(mine=dict(name="remember", every_epochs=2) | options)))
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), plan.program.batch)
    return plan, EpochHooks(plan), jax.jit(lambda batch: init_state(plan.program.method, batch))(zeros)

  return hooks


def test_when_it_runs_and_what_it_is_given(remember):
  _, hooks, state = remember()
  said, done = [], []
  due = []
  for steps in range(13):
    before = len(Remember.seen)
    new = hooks(state, steps, done.append, said.append)
    due += [steps] if len(Remember.seen) > before else []
    assert (new is state) == (len(Remember.seen) == before)
  assert due == [0, 6, 12] and said[1] == "epoch hook mine before step 7, loss 0.5"
  assert "epoch hook mine" in done and any(line.startswith("reading batch 4 of 4") for line in done)
  (first, key), (second, other), _ = Remember.seen
  assert_same(first, second)
  assert not np.array_equal(key, other)
  online, momentum = (first.nodes[name].pooled for name in Remember.embeddings)
  assert online.shape == (ROWS, 4) and np.array_equal(online, momentum)  # before the first step
  assert first.present[PATH].tolist() == [row != 9 for row in range(ROWS)] and len(first.facts["id"]) == ROWS
  assert new.tables["prototypes"]["cluster_0"][:ROWS].tolist() == list(range(ROWS))


def test_an_example_is_embedded_as_it_is_alone(remember, data):
  """Whatever else is in its batch, and however many there are."""
  plan, hooks, state = remember()
  hooks(state, 0, str, str)
  rows = Remember.seen[0][0].nodes[PATH].pooled
  source = open_source(plan.config["data"], "train", None)
  batches = pipeline.batches_in_order(plan.config["data"], source, seed=0, batch_size=ROWS)
  batch = next(batches)
  batches.close()
  assert batch["index"].tolist() == [row if row != 9 else 10 for row in range(ROWS)]
  method = plan.program.method
  pixels = (
    batch["image"][:, 0] / np.float32(255) - np.array(method.preparations["image"].mean, np.float32)
  ) / np.array(method.preparations["image"].std, np.float32)
  variables = {"params": state.params, "batch_stats": state.batch_stats}
  encoded = method.model.encode(variables, "image", Inputs(pixels.astype(np.float32)))[0]
  np.testing.assert_allclose(method.model.embed_through(variables, "image_ssl", encoded).pooled, rows, atol=1e-5)


@pytest.mark.parametrize(
  ("update", "message"),
  [
    (dict(tables={"prototypes": {"clutser": np.zeros(ROWS)}}), r"gives 'clutser' .*, which has cluster_0"),
    (
      dict(tables={"prototypes": {"cluster_0": np.zeros(5000)}}),
      r"'cluster_0' .* of shape \[5000\], where \[1024\] bel",
    ),
    (dict(terms={"prototypes": {"centroids_0": np.zeros((3, 5))}}), r"of shape \[3, 5\], where \[3, 4\] belongs"),
    (dict(terms={"prototypes": {"centroids_0": np.full((3, 4), np.nan)}}), r"not all of it is finite"),
    (dict(terms={"views": {"x": np.zeros(1)}}), r"gives 'x' for the state of term 'views', which has none"),
  ],
)
def test_what_a_hook_may_not_write(update, message, remember):
  with pytest.raises(UserError, match=message):
    written(remember()[2], Update(**update), "config.epoch_hooks.mine")


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (dict(name="kmean"), r"epoch_hooks\.clusters\.name: .*'kmean'.*did you mean 'kmeans'"),
    (dict(every_epoch=2), r"epoch_hooks\.clusters: no option 'every_epoch'"),
    (dict(every_epochs=0), r"epoch_hooks\.clusters\.every_epochs: 0 is not a whole number of 1 or more"),
    (dict(iterations=-1), r"epoch_hooks\.clusters\.iterations: -1 is below 0"),
    (dict(set="others"), r"epoch_hooks\.clusters\.set: no set 'others', as config.evaluation.data names none"),
    (dict(term="view"), r"epoch_hooks\.clusters\.term: 'view' is no entry .* with centroids; .*prototypes"),
    (dict(embedding="image[0]/image_ss"), r"clusters\.embedding .*head: .*'image_ss'.*did you mean 'image_ssl'"),
    (
      EPISODE | dict(term="prototypes"),
      r"clusters\.term: 'prototypes' is no entry .* of module 'prototype_alignment'; .*alignment",
    ),
    (EPISODE | dict(embeddings=(PATH,)), r"clusters\.embeddings: .* are 1; name the two of the term"),
    (EPISODE | dict(restarts=0), r"clusters\.restarts: 0 is below 1"),
    (GROUPS | dict(first_epoch=1), r"clusters\.first_epoch: batches are of its groups from the first step on; leave"),
    (GROUPS | dict(embeddings=()), r"clusters\.embeddings: nothing to cluster; name the embeddings of earlier stages"),
    (GROUPS | dict(clusters=27), r"clusters\.clusters: 27 clusters of 26 examples; give 26 or fewer"),
    (GROUPS | dict(clusters=10**6, embeddings=SIDES), r"clusters: 1000000 of each of 2 embeddings are too many groups"),
    (dict(embedding="image[0]/image_ssl@momentum[0]"), r"is not the path of an embedding"),
    (dict(embedding="image[2]/image_ssl"), r"views\.image is 2, so image\[0\] to \[1\] exist"),
  ],
)
def test_what_is_refused_before_anything_compiles(changes, message, data, tmp_path, devices):
  hook = changes if "embeddings" in changes else HOOK | changes
  c = config(data, epoch_hooks=dict(clusters=hook))
  with pytest.raises(UserError, match=message) as error:
    training.train(c, tmp_path / "run")
  assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
  ("hook", "kept"),
  [
    (dict(HOOK, embedding="image[0]/wide"), "prototypes"),
    (dict(EPISODE, embeddings=(PATH, "image[0]/wide")), "alignment"),
  ],
)
def test_vectors_of_another_width_are_refused_before_anything_compiles(hook, kept, data, devices):
  c = config(data, epoch_hooks=dict(clusters=hook))
  c["heads"]["wide"] = dict(tower="image", name="linear", dim=5)
  message = (
    rf"epoch_hooks\.clusters: vectors of 'image\[0\]/wide' are of 5 numbers, and those that term '{kept}' keeps of 4"
  )
  with pytest.raises(UserError, match=message + r"; name what the term reads, image\[0\]/image_ssl"):
    check_hooks(plan_of(c))


def test_an_outer_teacher_makes_clusters_of_which_both_have_means():
  draw = np.random.default_rng(0)
  hook = HOOKS["prototype_back_translation"](
    term="t", embeddings=("image[0]/a", "text[0]/b", "text[0]/outer"), iterations=3
  )
  rows = {path: draw.normal(size=(12, 4)).astype(np.float32) for path in hook.embeddings}
  there = {path: np.arange(12) != 5 for path in rows}
  found = Examples({path: Encoded(x) for path, x in rows.items()}, there, {})
  state = types.SimpleNamespace(terms={"t": {"means_0": np.zeros((3, 4)), "outer_0": np.zeros((3, 4))}})
  update = hook(lambda names: found, state, jax.random.key(0))
  clusters = np.where(there["text[0]/outer"], update.tables["t"]["cluster_2"], -1)
  for number, path in enumerate(hook.embeddings[:2]):
    unit = rows[path] / np.linalg.norm(rows[path], axis=1, keepdims=True)
    wanted = [unit[clusters == one].mean(0) if (clusters == one).any() else np.zeros(4) for one in range(3)]
    np.testing.assert_allclose(update.terms["t"][f"outer_{number}"], wanted, atol=1e-6)
  two = HOOKS["prototype_back_translation"](term="t", embeddings=hook.embeddings[:2])
  with pytest.raises(
    UserError, match=r"^embeddings: .* name no third, and config\.objective\.t\.module\.outer is its weight"
  ):
    two.check(state, 12, True)
  del state.terms["t"]["outer_0"]
  with pytest.raises(UserError, match=r"name a third, an outer teacher, and .*outer is 0; give it a weight"):
    hook.check(state, 12, True)


def test_groups_are_made_by_one_hook_of_one_dataset(data, devices):
  with pytest.raises(
    UserError, match=r"epoch_hooks: batches are of one hook's groups, and a and b make some; leave one"
  ):
    check_hooks(plan_of(config(data, epoch_hooks=dict(a=GROUPS, b=GROUPS))))
  with pytest.raises(UserError, match=r"epoch_hooks\.views: an entry of the objective has this name; give the hook"):
    plan_of(config(data, epoch_hooks=dict(views=GROUPS)))


def test_groups_are_of_what_is_together_in_all_embeddings():
  rows = np.repeat(np.eye(4, dtype=np.float32), 3, 0)
  first, second = (
    rows[:, :2].sum(1, keepdims=True) * [1, 0] + [[0, 0.5]],
    rows[:, ::2].sum(1, keepdims=True) * [1, 0] + [[0, 0.5]],
  )
  nodes = dict(zip(SIDES, (Encoded(first.astype(np.float32)), Encoded(second.astype(np.float32)))))
  there = np.arange(12) != 4
  given = Examples(nodes, dict.fromkeys(SIDES, there), {})
  update = ClusterBatches(embeddings=SIDES, clusters=2)(lambda names: given, None, jax.random.key(0))
  group = update.own["group"]
  assert group[4] == -1 and sorted(np.bincount(group[there])) == [2, 3, 3, 3]
  assert all(len(set(group[start : start + 3]) - {-1}) == 1 for start in range(0, 12, 3))
  assert update.shown == {"groups": 4, "largest": 3, "smallest": 2}


def test_a_hook_without_what_it_needs(data, devices):
  c = config(data)
  c["objective"] = {"views": c["objective"]["views"]}
  with pytest.raises(UserError, match=r"clusters\.term: 'prototypes' is no entry .*; add one with module=dict"):
    check_hooks(plan_of(c))
  c = config(data)
  c["objective"]["prototypes"]["module"] = dict(name="prototype_contrast", clusters=(27,))
  with pytest.raises(UserError, match=r"module\.clusters: 27 clusters of 26 examples; give 26 or fewer"):
    plan_of(c)
  c = config(data, epoch_hooks=dict(clusters=HOOK | dict(set="mine")))
  c["evaluation"]["data"] = dict(mine=dict(split="train"))
  with pytest.raises(UserError, match=r"clusters\.set: clusters are those of the examples that are trained on"):
    check_hooks(plan_of(c))
  with pytest.raises(UserError, match=r"config\.epoch_hooks\.x: 3 is not a dict"):
    parse_hooks({"x": 3})


# ---- The term -----------------------------------------------------------------------------------


def test_prototype_contrast_is_the_formula():
  draw = np.random.default_rng(0)
  x, label = draw.normal(size=(6, 4)), np.array([0, 2, 1, 2, -1, 0])
  centroids = draw.normal(size=(3, 4))
  spread = np.array([0.1, 0.2, 0.3])
  terms = objective.parse_terms(
    {"t": dict(module=dict(name="prototype_contrast", clusters=(3,)), embeddings="image[0]/ssl")}
  )
  assert objective.tables(terms) == {"t": {"cluster_0": -1.0}}
  valid = np.array([1, 1, 0, 1, 1, 1], bool)

  def loss(x, label=label):
    states = {"t": {"centroids_0": jnp.asarray(centroids), "concentrations_0": jnp.asarray(spread)}}
    return objective.evaluate_and_remember(
      terms, {"image[0]/ssl": Encoded(x)}, {"valid": jnp.asarray(valid)}, {}, {}, {}, states=states,
      remembered={"t": {"cluster_0": jnp.asarray(label, jnp.float32)}},
    )  # fmt: skip

  with jax.enable_x64(True):
    value, metrics, rows, _ = loss(jnp.asarray(x))
    gradient = jax.grad(lambda x: loss(x)[0])(jnp.asarray(x))
    nothing = loss(jnp.asarray(x), np.full(6, -1))[0]
    value, metrics, rows, gradient, nothing = jax.device_get((value, metrics, rows, gradient, nothing))
  unit = x / np.linalg.norm(x, axis=1, keepdims=True)
  logits = unit @ centroids.T / spread
  each = np.log(np.exp(logits).sum(1)) - logits[np.arange(6), label]
  np.testing.assert_allclose(value, each[valid & (label >= 0)].mean(), rtol=1e-6)
  assert metrics["t/clustered"] == 4 and nothing == 0 and np.array_equal(rows["t"]["cluster_0"], label)
  assert not gradient[2].any() and not gradient[4].any() and gradient[0].any()
