"""Facts of views, from the crop on the host to the term that asks for them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny_batch, tiny_config, tiny_spec

from mmcontrast.errors import UserError
from mmcontrast.objectives.module_loss import ModuleLoss
from mmcontrast.objectives.module_term import MODULES
from mmcontrast.parallel.sharding import make_mesh
from mmcontrast.training.program import build_program
from mmcontrast.training.step import init_state, train_step

VIEWS = ("image[0]/image_joint", "image[1]/image_joint")


class Boxes(ModuleLoss):
  """Says the boxes of its views as metrics."""

  VIEW_FACTS = ("box",)

  def __call__(self, views, facts):
    if self.is_initializing():
      return jnp.float32(0), {}
    boxes = {name[:8]: facts.of_view(name, "box") for name in facts.names}
    return views[0].pooled.mean(), {f"{name}/{i}": box[i, 0] for name, box in boxes.items() for i in range(16)}


@pytest.fixture(autouse=True)
def registered(monkeypatch):
  monkeypatch.setitem(MODULES, "boxes", Boxes)


def program(facts=("box",), embeddings=VIEWS, **batch):
  config = tiny_config(augment=dict(image=dict(flip=1.0)))
  config["data"]["facts"] = facts
  config["batch"] = {**config["batch"], **batch}
  config["heads"] = {name: head for name, head in config["heads"].items() if name in ("image_joint", "text_joint")}
  config["objective"] = dict(seen=dict(module="boxes", embeddings=embeddings))
  spec = tiny_spec()
  spec.batch["image_box"] = ((16, 2, 4), np.dtype(np.float32))
  return build_program(config, spec, make_mesh(config["mesh"], jax.devices()[:1]))


@pytest.mark.parametrize("microbatches", [1, 4])
def test_a_term_is_told_where_its_views_were_cut(microbatches):
  """In the order of the batch; where a view is mirrored, left and right are exchanged."""
  made = program(microbatches=microbatches)
  batch = tiny_batch()
  box = np.random.default_rng(0).random((16, 2, 4)).astype(np.float32)
  batch["image_box"] = box
  state = init_state(made.method, batch)
  metrics = jax.jit(lambda state, batch: train_step(made.method, None, state, batch)[1])(state, batch)
  for view in range(2):
    seen = np.array([metrics[f"seen/image[{view}]/{i}"] for i in range(16)])
    np.testing.assert_array_equal(seen, np.where(batch["mirror_safe"], box[:, view, 2], box[:, view, 0]))


def test_a_view_brings_the_regions_that_are_in_it():
  """In shares of the view, left and right exchanged where it is mirrored; zeros where half of one is not in it."""
  preparation, batch = program().method.preparations["image"], tiny_batch()
  batch["image_box"] = np.tile(np.array([[0.5, 0, 1, 1], [0, 0, 0.5, 1]], np.float32), (16, 1, 1))
  batch["text_region_box"] = np.tile(np.array([[0.5, 0.25, 0.75, 1], [0, 0, 0, 0]], np.float32), (16, 1, 1))
  found = np.asarray(jax.jit(lambda batch: preparation(batch, train=True)["image"].boxes)(batch))
  assert found.shape == (16, 2, 2, 4) and not found[:, 1].any() and not found[:, :, 1].any()
  wanted = np.where(batch["mirror_safe"][:, None], [1, 0.25, 0.5, 1], [0, 0.25, 0.5, 1])
  np.testing.assert_allclose(found[:, 0, 0], wanted, atol=1e-6)
  del batch["text_region_box"]
  assert jax.eval_shape(lambda batch: preparation(batch, train=True)["image"], batch).boxes is None


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (dict(facts=()), r"objective\.seen\.module: asks for the 'box' of 'image\[0\]/.*add it to config\.data\.facts"),
    (
      dict(embeddings=("text[0]/text_joint",)),
      r"asks for the 'box' of 'text\[0\]/text_joint', and of text views only 'ids' is known",
    ),
    (dict(facts=("boxes",)), r"data\.facts: no such choice 'boxes'; did you mean 'box'"),
    (dict(facts="box"), r"data\.facts: 'box' is no list; write \('box',\)"),
  ],
)
def test_facts_that_are_not_to_be_had(changes, message):
  with pytest.raises(UserError, match=message):
    program(**changes)
