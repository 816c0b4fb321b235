"""Views moved against the loss: the public code's loop, ours without its sum in place, wrong options in a line."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny_config, tiny_spec

from mmcontrast.errors import UserError
from mmcontrast.modalities.views import Inputs
from mmcontrast.optimization.adversarial import Adversarial, with_moved
from mmcontrast.optimization.update_rules import make_update_rule
from mmcontrast.training.program import make_method

GOLDEN = json.loads((pathlib.Path(__file__).parents[1] / "golden" / "addition.json").read_text())
CASE = GOLDEN["graphclip_free_adversarial"]
X, W, FIRST = (np.array(CASE["inputs"][name]) for name in ("x", "W", "first"))
THETA, SIZE, PASSES = (CASE["inputs"][name] for name in ("theta", "step", "passes"))


def loop(in_place):
  """(gradient of theta, what each pass saw, its losses) of (theta sum x W)^2 / 2, by hand."""
  x, moved, total, seen, losses = X.copy(), FIRST.copy(), 0.0, [], []
  for _ in range(PASSES):
    if in_place:
      x = x + moved
    now = x if in_place else x + moved
    product = np.sum(now * W)
    total += THETA * product**2 / PASSES
    seen.append(now)
    losses.append((THETA * product) ** 2 / 2)
    moved = moved + SIZE * np.sign(THETA**2 * product * W)
  return total, np.stack(seen), np.array(losses)


def make_mesh(devices):
  kinds = (jax.sharding.AxisType.Auto,)
  return jax.make_mesh((devices,), ("data",), devices=jax.devices()[:devices], axis_types=kinds)


def test_the_loop_of_the_public_code():
  total, seen, losses = loop(in_place=True)
  np.testing.assert_allclose(total, CASE["expected"]["grad_theta"], rtol=1e-6)
  np.testing.assert_allclose(seen, CASE["expected"]["x_seen"], atol=1e-6)
  np.testing.assert_allclose(CASE["expected"]["last_loss"], losses[-1] / PASSES, rtol=1e-6)


def test_a_pass_sees_the_features_and_its_perturbation(monkeypatch):
  with jax.enable_x64(True):
    monkeypatch.setattr(Adversarial, "_first", lambda *_: {"series[0]": jnp.asarray(FIRST)})
    rule = make_update_rule(
      dict(name="adversarial", views=("series[0]",), size=SIZE, passes=PASSES), {"theta": 0.0}, ("t",)
    )

    def embed(params, moved, measure=None):
      return {"e": params["theta"] * jnp.sum((jnp.asarray(X) + moved["series[0]"]) * W)}, {"statistics": 1}

    def loss(embeddings, own, terms):
      assert own == {} and terms == ("t",)
      return embeddings["e"] ** 2 / 2, ({},)

    found, gradients, metrics = jax.jit(lambda theta: rule(embed, loss, {"theta": theta}, ("t",)))(THETA)
    total, _, losses = loop(in_place=False)
    np.testing.assert_allclose(gradients["theta"], total, rtol=1e-9)
    np.testing.assert_allclose(found[0], losses.mean(), rtol=1e-9)
    np.testing.assert_allclose([metrics[f"update_rule/{n}_loss"] for n in ("first", "last")], losses[[0, -1]])


def test_the_first_perturbation_is_within_its_size_and_of_each_example_by_its_seed():
  def embed(params, moved, measure=None):
    return with_moved({"image": Inputs(jnp.zeros((4, 2, 8, 8, 3)))}, moved, measure), {}

  rule, seeds = Adversarial(("image[0]", "image[1]"), 0.5), jnp.arange(4, dtype=jnp.uint32)
  first, again, later = (rule._first(embed, {}, some) for some in (seeds, seeds[::-1], seeds + 4))
  np.testing.assert_array_equal(first["image[1]"], again["image[1]"][::-1])
  first, other, later = first["image[1]"], first["image[0]"], later["image[1]"]
  assert np.abs(first).max() <= 0.5 and first.max() > 0.4 and (first != later).all(0).any() and (first != other).any()
  assert (first[0] != first[1]).any()
  moved = with_moved({"image": Inputs(jnp.zeros((4, 2, 8, 8, 3)))}, {"image[1]": first}, None)["image"].values
  assert not moved[:, 0].any()
  np.testing.assert_array_equal(moved[:, 1], first)
  with pytest.raises(UserError, match=r"'imge\[1\]' is no view of this run; did you mean 'image\[1\]'"):
    Adversarial(("imge[1]",))._first(embed, {}, seeds)


def test_four_devices_move_as_one_does():
  """Of a loss whose sums over the batch are over all devices, as terms' are."""
  rule = make_update_rule(dict(name="adversarial", views=("series[0]",), size=0.3, passes=3), {"w": 0.0}, ("t",))
  draw = np.random.default_rng(0)
  x, seeds, params = draw.normal(size=(8, 5)), np.arange(8, dtype=np.uint32), {"w": jnp.asarray(draw.normal(size=5))}

  def step(x, seeds):
    def embed(params, moved, measure=None):
      shown = with_moved({"series": Inputs(x[:, None])}, moved, measure)["series"].values[:, 0]
      return {"e": jnp.tanh(shown * params["w"])}, {}

    def loss(embeddings, own, terms):
      scores = embeddings["e"] @ embeddings["e"].T
      return -jnp.mean(jnp.diagonal(jax.nn.log_softmax(3 * scores))), ({},)

    found, gradients, metrics = rule(embed, loss, params, ("t",), 0, seeds)
    return found[0], gradients, metrics

  with jax.enable_x64(True):
    one, mesh = jax.jit(step), make_mesh(4)
    wanted = one(x, seeds)
    cut = jax.device_put((x, seeds), jax.NamedSharding(mesh, jax.sharding.PartitionSpec("data")))
    order = draw.permutation(8)
    for found in (one(*cut), one(x[order], seeds[order])):
      jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), found, wanted)
    assert float(wanted[2]["update_rule/last_loss"]) > float(wanted[2]["update_rule/first_loss"])


def test_tokens_cannot_be_moved():
  def embed(params, moved, measure=None):
    return with_moved({"text": Inputs(jnp.zeros((4, 1, 8), jnp.int32))}, moved, measure), {}

  with pytest.raises(UserError, match=r"'text\[0\]' are tokens"):
    Adversarial(("text[0]",))._first(embed, {}, jnp.zeros(4, jnp.uint32))


@pytest.mark.parametrize(("options", "message"), [
  (dict(), r"update_rule\.views: \(\) is not a list of views"), (dict(views="image[0]"), "is not a list"),
  (dict(views=("image",)), "not a list of views"), (dict(views=("image[0]",), passes=0), "passes: 0; give 1"),
  (dict(views=("image[0]",), size=0), "size: 0; give a number above 0"),
  (dict(view=("image[0]",)), "did you mean 'views'"),
])  # fmt: skip
def test_wrong_options_are_one_line(options, message):
  with pytest.raises(UserError, match=message):
    make_update_rule(dict(name="adversarial", **options), {}, ("t",))


def test_chunks_of_a_batch_are_refused():
  config = tiny_config()
  config["update_rule"], config["batch"]["microbatches"] = dict(name="adversarial", views=("image[0]",)), 2
  with pytest.raises(UserError, match="moves the views of the whole batch"):
    make_method(config, tiny_spec())
