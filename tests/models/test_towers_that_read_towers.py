"""Fusions: towers that read the tokens of others, from the path to the step; losses that nodes make themselves."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from tiny import tiny_batch, tiny_config, tiny_spec

from mmcontrast import encoders
from mmcontrast.encoders import Encoded
from mmcontrast.encoders.fusion import FusionTransformer
from mmcontrast.errors import UserError
from mmcontrast.modalities.views import Inputs
from mmcontrast.models.model import build_model
from mmcontrast.objectives import terms as objective
from mmcontrast.objectives.embedding_path import Source, parse_embedding
from mmcontrast.objectives.presence import taking_part
from mmcontrast.optimization import optim
from mmcontrast.parallel import sharding
from mmcontrast.training.program import build_program, make_method
from mmcontrast.training.step import init_state, train_step

FUSED = "fusion(text[0], image[1])/match"
WHICH = dict(module=dict(name="classification", label="group"), embeddings=FUSED)
PAIR = dict(query="image[0]/image_joint", key="text[0]/text_joint")


class Costly(nn.Module):
  """A tower that asks something of itself: its pooled vectors shall be short."""

  dim: int = 4

  @nn.compact
  def __call__(self, inputs, mask=None, *, train):
    del mask, train
    pooled = nn.Dense(self.dim, name="fc1")(inputs.mean((1, 2)))
    return Encoded(pooled, losses={"length": jnp.sum(pooled**2, -1)})


def config(**changes):
  c = tiny_config(objective=dict(pair=PAIR, which=WHICH))
  c["towers"]["fusion"] = dict(name="fusion_transformer", reads=("text", "image"), width=16, depth=1, heads=2)
  c["heads"] = dict(
    image_joint=dict(tower="image", name="linear", dim=8),
    text_joint=dict(tower="text", name="linear", dim=8),
    match=dict(tower="fusion", name="match", dim=4),
  )
  return c | changes


def trained(c, devices=1, steps=2):
  method = make_method(c, tiny_spec())
  mesh = sharding.make_mesh({"data": -1}, jax.devices()[:devices])
  state = jax.jit(functools.partial(init_state, method), out_shardings=sharding.replicated(mesh))(tiny_batch())
  step = jax.jit(functools.partial(train_step, method, mesh), out_shardings=sharding.replicated(mesh))
  for seed in range(steps):
    state, metrics = step(state, sharding.put_batch(tiny_batch(seed=seed), mesh))
  return state, jax.device_get(metrics)


def test_paths():
  path = parse_embedding("top(fusion(text[0], image[1]), image[1])/match@momentum")
  text, image = Source("text", 0), Source("image", 1)
  assert path.source == Source(tower="top", inputs=(Source(tower="fusion", inputs=(text, image)), image))
  assert (path.head, path.momentum, path.is_fused, path.modalities) == ("match", True, True, ("text", "image"))
  for wrong in ("fusion()/m", "fusion(text[0]/m", "fusion(text[0],)/m", "fusion(text)/m", "(text[0])/m", "a[0]b[0]/m",
                "fusion(text[0]))/m", "fusion(text[0] image[0])/m", "fusion(text[0], image[0])"):  # fmt: skip
    with pytest.raises(UserError, match=r"is not the path of an embedding"):
      parse_embedding(wrong)


def test_padding_of_either_side_is_not_seen():
  draw = np.random.default_rng(0)
  x, y = draw.normal(size=(2, 5, 8)).astype(np.float32), draw.normal(size=(2, 7, 12)).astype(np.float32)
  real, seen = np.arange(5) < np.array([[5], [3]]), np.arange(7) < np.array([[4], [7]])
  for options in ({}, {"norm": "post", "pool": "mean"}, {"causal": True, "pool": "last"}):
    module = FusionTransformer(width=16, depth=2, heads=4, **options)
    made, variables = module.init_with_output(
      jax.random.key(0), Encoded(None, x, real), Encoded(None, y, seen), train=False
    )
    other = Encoded(None, np.where(real[..., None], x, 9), real), Encoded(None, np.where(seen[..., None], y, 9), seen)
    changed = module.apply(variables, *other, train=False)
    np.testing.assert_allclose(changed.pooled, made.pooled, atol=1e-5)
    np.testing.assert_allclose(np.asarray(changed.tokens)[real], np.asarray(made.tokens)[real], atol=1e-5)
    context = module.apply(variables, Encoded(None, x, real), Encoded(None, y[:, ::-1] + 1, None), train=False)
    assert np.abs(context.pooled - made.pooled).max() > 1e-3
    later = x.copy()
    later[:, 2:] += 1.0
    moved = module.apply(variables, Encoded(None, later, real), Encoded(None, y, seen), train=False)
    assert np.allclose(moved.tokens[:, :2], made.tokens[:, :2], atol=1e-5) == bool(options.get("causal"))


def test_several_contexts_of_other_widths_stand_one_after_the_other():
  draw = np.random.default_rng(0)
  first, other, third = (
    Encoded(None, draw.normal(size=(2, n, d)).astype(np.float32)) for n, d in ((3, 8), (4, 6), (2, 5))
  )
  module = FusionTransformer(width=8, depth=1, heads=2)
  made, variables = module.init_with_output(jax.random.key(0), first, other, third, train=False)
  assert made.tokens.shape == (2, 3, 8) and {"context_0", "context_1"} <= set(variables["params"])
  without = module.apply(variables, first, other, third.replace(mask=np.zeros((2, 2), bool)), train=False)
  assert np.abs(without.pooled - made.pooled).max() > 1e-4


def test_a_fusion_is_what_its_towers_made_together():
  model = build_model(config(), 40)
  ids = tiny_batch(3)["text"]
  views = {"image": Inputs(jax.random.normal(jax.random.key(1), (3, 2, 16, 16, 3))), "text": Inputs(ids, ids != 0)}
  variables = model.init(jax.random.key(0), {name: of_set.view(0) for name, of_set in views.items()})
  made, _ = model.embed(variables, views, [FUSED], train=False)
  text = model.encode(variables, "text", views["text"].view(0))[0]
  image = model.encode(variables, "image", views["image"].view(1))[0]
  fused = model.fuse(variables, "fusion", (text, image))[0]
  assert fused.tokens.shape[1] == text.tokens.shape[1] and fused.mask is not None
  np.testing.assert_allclose(made[FUSED].logits, model.project(variables, "match", fused)[0].logits, atol=1e-6)
  assert made[FUSED].logits.shape == (3, 4) and made[FUSED].fields == {"logits"}


def test_what_is_pooled_alone_is_what_is_pooled():
  """A head that reads no token spares the last block of a fusion all but the first."""
  draw = np.random.default_rng(0)
  text = Encoded(None, draw.normal(size=(2, 5, 8)).astype(np.float32), np.arange(5) < np.array([[5], [3]]))
  image = Encoded(None, draw.normal(size=(2, 7, 8)).astype(np.float32))
  for options in ({}, {"norm": "post"}, {"scan": True}, {"pool": "mean"}):
    module = FusionTransformer(width=8, depth=2, heads=2, **options)
    made, variables = module.init_with_output(jax.random.key(0), text, image, train=False)
    alone = module.apply(variables, text, image, train=False, pooled_only=True)
    np.testing.assert_allclose(alone.pooled, made.pooled, atol=1e-5)
    assert (alone.tokens is None) == (options.get("pool") != "mean")


def test_a_momentum_branch_has_the_towers_that_a_fusion_reads():
  model = build_model(config(), 40)
  ids = jnp.ones((1, 6), jnp.int32)
  zeros = {"image": Inputs(jnp.zeros((1, 16, 16, 3))), "text": Inputs(ids, ids != 0)}
  variables = jax.eval_shape(model.init, jax.random.key(0), zeros)
  assert set(model.branch(variables, [f"{FUSED}@momentum"])["params"]["towers"]) == {"image", "text", "fusion"}
  only = model.branch(variables, ["image[0]/image_joint@momentum"])["params"]
  assert set(only["towers"]) == {"image"} and set(only["heads"]) == {"image_joint"}


def test_only_what_is_asked_for_is_computed():
  """The step of a run whose terms read no fusion holds no operation of it, nor of a second view."""
  c = config()
  texts = []
  for terms in (dict(pair=PAIR), c["objective"]):
    method = make_method(c | dict(objective=terms), tiny_spec())
    state = jax.eval_shape(functools.partial(init_state, method), tiny_batch())
    texts.append(
      jax.jit(functools.partial(train_step, method, None)).lower(state, tiny_batch()).as_text(debug_info=True)
    )
  assert "towers.fusion" not in texts[0] and "heads.match" not in texts[0] and "towers.image" in texts[0]
  assert "towers.fusion" in texts[1] and "heads.match" in texts[1]


@pytest.mark.parametrize("change", ["devices", "microbatches"])
def test_a_step_is_the_same_on_devices_and_in_microbatches(change):
  """Exactly: a fusion reads what its own example has."""
  c = config(optimizer=dict(name="sgd", learning_rate=0.1))
  c["towers"]["fusion"]["dropout"] = 0.1
  once, metrics = trained(c)
  c["batch"] = dict(size=16, microbatches=2 if change == "microbatches" else 1)
  again, found = trained(c, devices=4 if change == "devices" else 1)
  assert np.isfinite(metrics["which/loss"]) and metrics.keys() == found.keys()
  for name in metrics:
    np.testing.assert_allclose(found[name], metrics[name], rtol=2e-5, atol=1e-6, err_msg=name)
  for a, b in zip(jax.tree.leaves(once.params), jax.tree.leaves(again.params), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5)


def test_a_fusion_is_decayed_cut_adapted_and_frozen_as_any_tower():
  c = config(sharding="fsdp_tp", mesh=dict(data=1, fsdp=1, tensor=2))
  c["towers"]["fusion"].update(width=256, heads=4)
  c["lora"] = dict(targets="towers/fusion/.*/cross_attn/q/kernel", rank=2, alpha=2.0)
  mesh = sharding.make_mesh(c["mesh"], jax.devices()[:2])
  program = build_program(c, tiny_spec(), mesh)
  block = program.state.params["towers"]["fusion"]["blocks_0"]
  assert block["cross_attn"]["q"]["kernel"].sharding.spec == PartitionSpec(None, "tensor")
  assert block["cross_attn"]["proj"]["kernel"].sharding.spec == PartitionSpec("tensor", None)
  assert set(program.state.params["lora"]["towers"]) == {"fusion"}
  frozen = config()
  frozen["optimizer"]["frozen"] = ("towers/fusion/.*",)
  method = make_method(frozen, tiny_spec())
  assert "towers/fusion" in method.model.frozen
  decayed = optim._decay_by_path(0.1, ["towers/fusion/blocks_0/cross_attn/q/kernel", "towers/fusion/norm/scale"])
  assert list(decayed.values()) == [0.1, 0.0]


def test_losses_of_a_tower_enter_by_name(monkeypatch):
  monkeypatch.setitem(encoders.ENCODERS, "costly", Costly)
  term = dict(auxiliary="length", embeddings=("image[0]/image_joint", "image[1]/image_joint"), weight=0.5)
  c = config(objective=dict(length=term), towers=dict(image=dict(name="costly")))
  c["heads"] = dict(image_joint=dict(tower="image", name="linear", dim=8))
  c["data"]["views"] = dict(image=2, text=0)
  _, metrics = trained(c, steps=1)
  assert metrics["length/loss"] > 0 and metrics["loss"] == pytest.approx(0.5 * metrics["length/loss"])
  made = {name: Encoded(losses={"length": jnp.arange(4.0) * n}) for n, name in enumerate(term["embeddings"], 1)}
  terms = objective.parse_terms({"length": term})
  value, _ = objective.evaluate(terms, made, {"valid": jnp.array([True, True, True, False])}, {}, {}, {"length": 1.0})
  assert value == pytest.approx((1 + 2) * (0 + 1 + 2) / 6)
  with pytest.raises(UserError, match=r"objective\.length: wants losses/width of 'image\[0\]/image_joint', which makes "
                                      r"losses/length, pooled only"):  # fmt: skip
    make_method(c | dict(objective=dict(length=term | dict(auxiliary="width"))), tiny_spec())


def reading(**towers):
  c = config()
  c["towers"] = c["towers"] | towers
  return c


FUSION = dict(name="fusion_transformer", width=16, depth=1, heads=2)


@pytest.mark.parametrize(
  ("towers", "message"),
  [
    (dict(fusion=FUSION), r"fusion\.reads: .* the tokens of 2 or more other towers; .*'image', 'text'"),
    (dict(fusion=FUSION | dict(reads=("text", "imag"))), r"towers\.fusion\.reads: .*'imag'.*did you mean 'image'"),
    (dict(fusion=FUSION | dict(reads="text")), r"fusion\.reads: .* 2 or more towers, and \['text'\] are 1"),
    (dict(fusion=FUSION | dict(reads=("text", "fusion"))), r"config\.towers\.fusion\.reads: .*'fusion'"),
    (dict(fusion=FUSION | dict(reads=("text", "b")), b=FUSION | dict(reads=("fusion", "image"))),
     r"config\.towers\.fusion\.reads: fusion reads b reads fusion, which is a circle"),
    (dict(fusion=dict(name="vit", reads=("text", "image"))), r"a 'vit' encodes .* take name='fusion_transformer'"),
    (dict(fusion=FUSION | dict(reads=("text", "image"), modality="text")), r"reads=.* and modality='text'; .* one of"),
    (dict(fusion=FUSION | dict(reads=("text", "image"), causal=True)), r"pool 'first' .* use pool='last'"),
  ],
)  # fmt: skip
def test_what_cannot_read(towers, message):
  with pytest.raises(UserError, match=message) as error:
    build_model(reading(**towers), 40)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  ("term", "message"),
  [
    (WHICH | dict(embeddings="fusion(image[1], text[0])/match"), r"text, image in this order, and 'image' stands"),
    (WHICH | dict(embeddings="fusion(text[0])/match"), r"tower 'fusion' reads text, image, and 1 are named"),
    (WHICH | dict(embeddings="fusion(text[0], image[7])/match"), r"views\.image is 2, so image\[0\] to \[1\] exist"),
    (WHICH | dict(embeddings="fusoin(text[0], image[0])/match"), r"tower with reads: .*'fusoin'.*'fusion'"),
    (WHICH | dict(embeddings="image[0]/match"), r"head 'match' is on the fusion tower; "),
    (WHICH | dict(embeddings="fusion(text[0], image[0])/image_joint"), r"'image_joint' is on the image tower; .*match"),
    (WHICH | dict(embeddings="image[0]/image_joint"), r"the module takes logits, which head 'image_joint' does"),
    (WHICH | dict(module=dict(name="classification", label="grop")), r"module\.label: .*'grop'.*'group'"),
    (dict(query=FUSED, key="text[0]/text_joint"), r"score 'cosine' compares one vector an example, which head 'match'"),
    (dict(regularizer="alignment", embeddings=(FUSED, "text[0]/text_joint")), r"head 'match' gives logits, and a"),
    (dict(auxiliary="balance", embeddings=f"{FUSED}@momentum"), r"'.*@momentum' gets no gradient; write 'fusion"),
    (dict(auxiliary="balance", embeddings=FUSED), r"wants losses/balance of .*, which makes logits only"),
  ],
)  # fmt: skip
def test_a_term_that_asks_for_what_is_not_made(term, message):
  with pytest.raises(UserError, match=message) as error:
    make_method(config(objective=dict(t=term)), tiny_spec())
  assert "\n" not in str(error.value)


def test_a_tower_that_makes_no_tokens_is_not_read(monkeypatch):
  monkeypatch.setitem(encoders.ENCODERS, "costly", Costly)
  c = config()
  c["towers"]["image"] = dict(name="costly")
  with pytest.raises(
    UserError, match=r"fusion\.reads: tower 'image' makes no tokens, only losses/length, pooled; name"
  ):
    make_method(c, tiny_spec())


def test_a_fusion_takes_part_where_all_that_it_reads_is_there():
  present = {"text": jnp.array([True, True, False]), "image": jnp.array([True, False, True])}
  assert taking_part({"present": present}, [FUSED]).tolist() == [True, False, False]
  assert taking_part({"present": present}, ["text[0]/text_joint"]).tolist() == [True, True, False]


def test_a_queue_longer_than_an_epoch():
  term = PAIR | dict(key="text[0]/text_joint@momentum", negatives="batch+queue:80")
  with pytest.raises(
    UserError, match=r"t\.negatives: a queue of 80 is longer than an epoch of 64 .* 'batch\+queue:64'"
  ):
    make_method(config(objective=dict(t=term)), tiny_spec())


def test_as_many_logits_as_classes():
  c = config()
  c["heads"]["match"]["dim"] = 2
  with pytest.raises(UserError, match=r"head 'match' gives 2 logits and label 'group' has 4 classes; set .*dim=4"):
    make_method(c, tiny_spec())
