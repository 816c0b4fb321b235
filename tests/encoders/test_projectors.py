"""Projectors of frozen towers, and a trunk that several heads share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny_batch, tiny_config, tiny_spec

from mmcontrast.encoders import build_head
from mmcontrast.errors import UserError
from mmcontrast.modalities.views import Inputs
from mmcontrast.models.model import build_model
from mmcontrast.training.program import make_method

MASK = jnp.arange(6)[None] < jnp.array([6, 4, 1])[:, None]
NAMES = ("image[0]/image_joint", "text[0]/text_joint")


def draw(*shape):
  return jax.random.normal(jax.random.key(len(shape)), shape)


def test_a_residual_mlp_is_the_formula():
  head, x = build_head({"name": "residual_mlp", "dim": 4}), draw(5, 7)
  out, variables = head.init_with_output(jax.random.key(0), x, train=False)
  p = jax.tree.map(np.asarray, variables["params"])
  projected = x @ p["fc1"]["kernel"] + p["fc1"]["bias"]
  y = projected + jax.nn.gelu(projected, approximate=False) @ p["fc2"]["kernel"] + p["fc2"]["bias"]
  expected = (y - y.mean(1, keepdims=True)) / jnp.sqrt(y.var(1, keepdims=True) + 1e-6)
  np.testing.assert_allclose(out.pooled, expected, rtol=1e-4, atol=1e-5)
  dropped = head.apply(variables, x, train=True, rngs={"dropout": jax.random.key(1)})
  assert (np.asarray(dropped.pooled) != np.asarray(out.pooled)).any()


def test_a_token_projector_is_the_formula():
  head, tokens, pooled = build_head({"name": "token_projector", "dim": 4}), draw(3, 6, 7), draw(3, 7)
  out, variables = head.init_with_output(jax.random.key(0), tokens, MASK, pooled, train=False)
  p = jax.tree.map(np.asarray, variables["params"])
  x = (tokens - tokens.mean(-1, keepdims=True)) / jnp.sqrt(tokens.var(-1, keepdims=True) + 1e-6)

  def linear(name, x):
    return x @ p[name]["kernel"] + p[name]["bias"]

  y = linear("linear", x) + linear("fc2", jax.nn.gelu(linear("fc1", x), approximate=False))
  expected = jnp.stack([row[:count].mean(0) for row, count in zip(y, (6, 4, 1))])
  np.testing.assert_allclose(out.pooled, expected, rtol=1e-4, atol=1e-5)
  assert set(p) == {"norm", "linear", "fc1", "fc2"}  # the pooled vector is not looked at


@pytest.mark.parametrize(
  "options", [{"name": "token_projector", "pooled": True, "mlp": True}, {"name": "universal_projection", "heads": 2}]
)
def test_padding_changes_nothing(options):
  head, tokens, pooled = build_head({"dim": 4, **options}), draw(3, 6, 7), draw(3, 7)
  inputs = (MASK, pooled) if options["name"] == "token_projector" else (MASK,)
  out, variables = head.init_with_output(jax.random.key(0), tokens, *inputs, train=False)
  other = jnp.where(MASK[..., None], tokens, 100.0)
  padded = head.apply(variables, other, *inputs, train=False)
  np.testing.assert_allclose(padded.pooled, out.pooled, rtol=1e-5, atol=1e-6)
  unmasked, out = head.apply(variables, tokens, None, *inputs[1:], train=False).pooled, out.pooled
  np.testing.assert_allclose(unmasked[0], out[0], rtol=1e-4, atol=1e-5)  # all its tokens are real
  assert not np.allclose(unmasked[1:], out[1:], atol=1e-3)


def universal(**changes):
  """Two heads with one trunk."""
  head = dict(name="universal_projection", dim=8, heads=2)
  heads = dict(
    image_joint=dict(head, tower="image"),
    text_joint=dict(head, tower="text", shared=dict(trunk="image_joint"), **changes),
  )
  return tiny_config(heads=heads, objective=dict(image_text=dict(query=NAMES[0], key=NAMES[1])))


def test_a_shared_trunk_is_one():
  model = build_model(universal(), 40)
  batch = {name: jnp.asarray(tiny_batch(4)[name]) for name in ("image", "text")}
  views = {"image": Inputs(batch["image"] / 255.0), "text": Inputs(batch["text"], batch["text"] != 0)}
  variables = jax.jit(model.init)(jax.random.key(0), {name: view.view(0) for name, view in views.items()})
  heads = variables["params"]["heads"]
  assert set(heads["image_joint"]) - set(heads["text_joint"]) == {"trunk"} and "modality_token" in heads["text_joint"]

  def norms(params, name):
    return jnp.sum(model.embed({**variables, "params": params}, views, [name], train=False)[0][name].pooled ** 2)

  for name, own in zip(NAMES, ("image_joint", "text_joint")):
    gradient = jax.jit(jax.grad(norms), static_argnums=1)(variables["params"], name)
    moved = {
      head: {part for part, tree in parts.items() if any(np.any(leaf) for leaf in jax.tree.leaves(tree))}
      for head, parts in gradient["heads"].items()
    }
    assert {"trunk"} <= moved["image_joint"] and {"fc1", "modality_token"} <= moved[own]
    assert moved[{"image_joint": "text_joint", "text_joint": "image_joint"}[own]] <= {"trunk"}
  assert "trunk" in model.branch(variables, ["text[0]/text_joint@momentum"])["params"]["heads"]["image_joint"]


def test_a_new_modality_trains_its_own_part_of_a_frozen_trunk():
  config = universal()
  config["optimizer"]["frozen"] = ("towers/.*", "heads/image_joint/.*")
  method = make_method(config, tiny_spec())
  assert method.model.frozen == {"towers/image", "towers/text", "heads/image_joint"}


def test_a_head_all_of_which_is_shared_is_frozen_with_its_owner_only():
  """One without a parameter of its own was taken for frozen, so that its batch norm never saw a batch."""
  head = dict(name="mlp", dim=8, depth=1, batch_norm_last=True)
  heads = dict(
    image_joint=dict(head, tower="image"), text_joint=dict(head, tower="text", shared=dict(fc1="image_joint"))
  )
  config = tiny_config(heads=heads, objective=dict(image_text=dict(query=NAMES[0], key=NAMES[1])))
  method = make_method(config, tiny_spec())
  assert method.model.frozen == frozenset()
  batch = {name: jnp.asarray(tiny_batch(8)[name]) for name in ("image", "text")}
  views = {"image": Inputs(batch["image"] / 255.0), "text": Inputs(batch["text"], batch["text"] != 0)}
  variables = jax.jit(method.model.init)(jax.random.key(0), {name: view.view(0) for name, view in views.items()})
  assert "text_joint" in variables["batch_stats"]["heads"]
  made, stats = method.model.embed(variables, views, NAMES, train=True)
  np.testing.assert_allclose(made[NAMES[1]].pooled.mean(0), 0, atol=1e-5)
  assert all(np.any(stats["heads"][name]["bn1"]["mean"]) for name in ("image_joint", "text_joint"))
  config["optimizer"]["frozen"] = ("heads/image_joint/.*",)
  assert make_method(config, tiny_spec()).model.frozen == {"heads/image_joint", "heads/text_joint"}


@pytest.mark.parametrize(
  "changes, message",
  [
    (dict(shared=dict(trunk="image_join")), r"heads\.text_joint\.shared\.trunk: .* did you mean 'image_joint'"),
    (dict(shared=dict(trunc="image_joint")), r"heads\.text_joint\.shared\.trunc: .* did you mean 'trunk'"),
    (dict(depth=2), r"shared\.trunk: the 'trunk' of 'image_joint' has other parameters"),
    (dict(shared=dict(trunk="text_joint")), r"shared\.trunk: no such choice 'text_joint'"),
    (dict(heads=3), r"width 8 does not split into 3 heads"),
  ],
)
def test_mistakes(changes, message):
  config = universal()
  config["heads"]["text_joint"].update(changes)
  with pytest.raises(UserError, match=message) as error:
    make_method(config, tiny_spec())
  assert "\n" not in str(error.value)
