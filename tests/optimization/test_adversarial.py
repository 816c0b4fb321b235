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


def test_the_first_perturbation_is_within_its_size_and_another_each_step():
  def embed(params, moved, measure=None):
    return with_moved({"image": Inputs(jnp.zeros((4, 2, 8, 8, 3)))}, moved, measure), {}

  rule = Adversarial(("image[1]",), 0.5)
  first, again, later = (rule._first(embed, {}, step)["image[1]"] for step in (0, 0, 1))
  np.testing.assert_array_equal(first, again)
  assert np.abs(first).max() <= 0.5 and first.max() > 0.4 and (first != later).any()
  moved = with_moved({"image": Inputs(jnp.zeros((4, 2, 8, 8, 3)))}, {"image[1]": first}, None)["image"].values
  assert not moved[:, 0].any()
  np.testing.assert_array_equal(moved[:, 1], first)
  with pytest.raises(UserError, match=r"'imge\[1\]' is no view of this run; did you mean 'image\[1\]'"):
    Adversarial(("imge[1]",))._first(embed, {}, 0)


def test_tokens_cannot_be_moved():
  def embed(params, moved, measure=None):
    return with_moved({"text": Inputs(jnp.zeros((4, 1, 8), jnp.int32))}, moved, measure), {}

  with pytest.raises(UserError, match=r"'text\[0\]' are tokens"):
    Adversarial(("text[0]",))._first(embed, {}, 0)


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
