"""FastCLIP's loss and the denominators it remembers: the released code's numbers, devices, edge cases."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import assert_close, compiled, make_mesh

from mmcontrast.errors import UserError
from mmcontrast.objectives import terms as objective

GOLDEN = json.loads((pathlib.Path(__file__).parents[1] / "golden" / "image_text.json").read_text())["fastclip_v3"]
IMAGE, TEXT = "image[0]/joint", "text[0]/joint"
TERM = dict(query=IMAGE, key=TEXT, direction="both", temperature=0.07, criterion="compositional")


def evaluate(config, embeddings, remembered, *, parameters=None, gamma=0.4, info=None, **options):
  """(loss, metrics, new rows of the table) of one term."""
  terms = objective.parse_terms({"t": config})

  def found(embeddings, remembered, parameters):
    found = objective.evaluate_and_remember(
      terms, embeddings, info or {}, {"t": parameters or {}}, {}, {}, scheduled={"t": {"gamma": gamma}},
      remembered={"t": remembered}, **options)  # fmt: skip
    return found[:3]

  return jax.jit(found)(embeddings, remembered, parameters)


def drawn(n=18, d=8, dtype=np.float64):
  """Embeddings and denominators of `n` examples, one of them never seen."""
  rng = np.random.default_rng(0)
  embeddings = {name: jnp.asarray(rng.normal(size=(n, d)), dtype) for name in (IMAGE, TEXT)}
  log_u = {side: jnp.asarray(rng.normal(size=n), dtype).at[4].set(-jnp.inf) for side in ("query", "key")}
  return embeddings, log_u


def gradients_of(config, embeddings, log_u, scale, **options):
  """(loss, new log u), gradients of embeddings, log u and scale."""

  def loss(embeddings, log_u, scale):
    learned = dict(config, temperature=dict(init=0.07))
    value, _, rows = evaluate(learned, embeddings, log_u, parameters={"log_scale": jnp.log(scale)}, **options)
    return value, rows["t"]

  return compiled(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(embeddings, log_u, scale)


@pytest.mark.usefixtures("float64")
def test_fastclip_v3():
  """Loss, gradients of both embeddings and the scale, and both new denominators of the released code."""
  inputs, expected = ({name: np.asarray(value) for name, value in GOLDEN[k].items()} for k in ("inputs", "expected"))
  log_u = {"query": jnp.log(inputs["ui"]), "key": jnp.log(inputs["ut"])}
  config = dict(TERM, score="dot", criterion=dict(name="compositional", rho=float(inputs["rho"])))
  (value, rows), (by_embedding, by_u, by_scale) = gradients_of(
    config, {IMAGE: inputs["zi"], TEXT: inputs["zt"]}, log_u, float(inputs["scale"]), gamma=float(inputs["gamma"])
  )
  found = dict(
    loss=value,
    u_im=jnp.exp(rows["query"]),
    u_tt=jnp.exp(rows["key"]),
    grad_scale=by_scale,
    grad_zi=by_embedding[IMAGE],
    grad_zt=by_embedding[TEXT],
  )
  for name, wanted in expected.items():
    np.testing.assert_allclose(found[name], wanted, rtol=1e-12, atol=1e-12, err_msg=name)
  assert not any(np.any(g) for g in by_u.values())


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("impl", "devices"), [("ring", 1), ("rows", 2), ("ring", 8), ("dense", 8)])
def test_devices_and_implementations(impl, devices):
  """Value, gradients and new denominators are the dense ones; two examples are padding."""
  embeddings, log_u = drawn()
  info = {"valid": (np.arange(18) != 3) & (np.arange(18) != 17)}
  wanted = gradients_of(TERM, embeddings, log_u, 9.0, info=info)
  found = gradients_of(TERM, embeddings, log_u, 9.0, info=info, impl=impl, mesh=make_mesh(devices), tile=2)
  rows, expected = found[0][1], wanted[0][1]
  assert_close((found[0][0], found[1]), (wanted[0][0], wanted[1]), 1e-10)
  for side, row in rows.items():
    np.testing.assert_allclose(row, expected[side], rtol=1e-12)
    assert np.isfinite(row).all()


def test_a_large_scale_stays_finite_in_single_precision():
  """The released code's exp(s (S_ij - S_ii)) overflows at s = 100; its logarithm does not."""
  x = jnp.eye(4, 8)
  embeddings, log_u = {IMAGE: x, TEXT: -x}, {side: jnp.full(4, -jnp.inf) for side in ("query", "key")}
  (value, rows), (by_embedding, _, by_scale) = gradients_of(TERM, embeddings, log_u, 100.0)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((value, rows, by_embedding, by_scale)))
  np.testing.assert_allclose(rows["query"], 100.0, rtol=1e-6)  # log of exp(100 (0 - -1))


@pytest.mark.usefixtures("float64")
def test_gamma_one_forgets_and_an_example_never_seen_takes_all():
  embeddings, log_u = drawn()
  forgetful = evaluate(TERM, embeddings, log_u, gamma=1.0)[2]["t"]
  mixed = evaluate(TERM, embeddings, log_u, gamma=0.25)[2]["t"]
  x = {name: np.asarray(e / jnp.linalg.norm(e, axis=1, keepdims=True)) for name, e in embeddings.items()}
  difference = (x[IMAGE] @ x[TEXT].T - np.sum(x[IMAGE] * x[TEXT], 1)[:, None]) / 0.07
  g = np.exp(difference)[~np.eye(18, dtype=bool)].reshape(18, 17).mean(1)
  np.testing.assert_allclose(np.exp(forgetful["query"]), g, rtol=1e-10)
  wanted = np.where(np.isinf(log_u["query"]), g, 0.75 * np.exp(log_u["query"]) + 0.25 * g)
  np.testing.assert_allclose(np.exp(mixed["query"]), wanted, rtol=1e-10)


@pytest.mark.usefixtures("float64")
def test_padding_changes_nothing_and_a_lone_example_costs_and_learns_nothing():
  embeddings, log_u = drawn()
  part = jax.tree.map(lambda x: x[:12], (embeddings, log_u))
  loss, _, rows = evaluate(TERM, *part)
  padded, _, padded_rows = evaluate(TERM, embeddings, log_u, info={"valid": np.arange(18) < 12})
  np.testing.assert_allclose(padded, loss, rtol=1e-12)
  np.testing.assert_allclose(padded_rows["t"]["key"][:12], rows["t"]["key"], rtol=1e-12)
  lone, _, lone_rows = evaluate(TERM, embeddings, log_u, info={"valid": np.arange(18) < 1})
  assert lone == 0.0
  assert lone_rows["t"]["query"][0] == log_u["query"][0]  # the others are no anchors, and not written


@pytest.mark.usefixtures("float64")
def test_version_one_is_the_quotient_alone():
  """With a fixed temperature: the mean over both directions' sum of g / u."""
  embeddings, log_u = drawn()
  config = dict(TERM, temperature=0.1, criterion=dict(name="compositional", multiply_tau=False))
  loss, metrics, rows = evaluate(config, embeddings, log_u, gamma=0.3)
  log_g = evaluate(config, embeddings, log_u, gamma=1.0)[2]["t"]
  wanted = sum(np.mean(np.exp(log_g[side] - rows["t"][side])) for side in ("query", "key"))
  np.testing.assert_allclose(loss, wanted, rtol=1e-12)
  assert metrics["t/gamma"] == 0.3


def test_one_direction_remembers_one_side():
  terms = objective.parse_terms({d: dict(TERM, direction=d) for d in ("rows", "columns", "both")})
  assert objective.tables(terms) == {
    "rows": {"query": -np.inf},
    "columns": {"key": -np.inf},
    "both": {"query": -np.inf, "key": -np.inf},
  }
  embeddings, log_u = drawn(dtype=np.float32)
  rows = evaluate(dict(TERM, direction="columns"), embeddings, {"key": log_u["key"]})[2]["t"]
  assert set(rows) == {"key"}


COMPOSITIONAL = dict(name="compositional")


@pytest.mark.parametrize(
  ("change", "says"),
  [
    (dict(key=f"{TEXT}@momentum", negatives="queue:64", direction="rows"), r"t\.negatives: .* use negatives='batch'"),
    (dict(target="same_id"), r"t\.criterion: .* one query, one other key and target='identity'"),
    (dict(key=[TEXT, "text[1]/joint"]), r"t\.criterion: .* one query"),
    (dict(criterion=dict(COMPOSITIONAL, gamma=0.0)), r"t\.criterion\.gamma: goes from 0 to 0, not within \(0, 1\]"),
    (dict(criterion=dict(COMPOSITIONAL, gamma=dict(name="cosine", init=1.0))), r"gamma: goes from 0 to 1"),
    (dict(criterion=dict(COMPOSITIONAL, gamma=dict(name="cosin", init=1.0))), r"gamma\.name: .*did you mean 'cosine'"),
    (dict(criterion=dict(COMPOSITIONAL, eps=0)), r"eps: 0 is not above 0"),
    (dict(criterion=dict(COMPOSITIONAL, gama=0.5)), r"no option 'gama'; did you mean 'gamma'"),
  ],
)
def test_what_does_not_go_together(change, says):
  with pytest.raises(UserError, match=says) as error:
    objective.parse_terms({"t": dict(TERM, **change)})
  assert "\n" not in str(error.value)


def test_a_dataset_of_unknown_length_is_refused():
  terms = objective.parse_terms({"t": dict(TERM, key="image[1]/joint")})
  around = dict(views=dict(image=2), heads=dict(joint="image"), batch_size=8)
  objective.check_terms(terms, examples=100, **around)
  with pytest.raises(UserError, match=r"t\.criterion: .* length of the dataset is not known"):
    objective.check_terms(terms, **around)
