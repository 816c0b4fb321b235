"""A term with a learned weight, against MultiMAE's; with other options of terms; what is refused."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcontrast.errors import UserError
from mmcontrast.objectives import terms as objective
from mmcontrast.objectives.balance import LEARNED, balanced

CASE = json.loads((pathlib.Path(__file__).parents[1] / "golden" / "addition.json").read_text())["multimae_balance"]
PAIR = dict(query="image[0]/a", key="text[0]/b", direction="both")


@pytest.mark.usefixtures("float64")
def test_it_is_multimaes():
  loss, s = (jnp.asarray(CASE["inputs"][name]) for name in ("loss", "s"))
  np.testing.assert_allclose(balanced(loss, s), CASE["expected"]["weighted"], rtol=1e-12)
  gradients = jax.grad(lambda loss, s: balanced(loss, s).sum(), argnums=(0, 1))(loss, s)
  some = np.asarray(loss) != 0
  np.testing.assert_allclose(gradients[0], np.where(some, np.exp(-s), 0), rtol=1e-12)
  np.testing.assert_allclose(gradients[1], np.where(some, 1 - np.exp(-s) * loss, 0), rtol=1e-12)


@pytest.mark.usefixtures("float64")
def test_of_a_pairwise_term_at_several_widths():
  """Beside what the term learns itself; the term it is around is the same."""
  nodes = {name: jnp.sin(jnp.arange(20.0).reshape(4, 5) * k) for name, k in (("image[0]/a", 0.3), ("text[0]/b", 0.5))}
  options = PAIR | dict(temperature=dict(init=0.1, learned=True), matryoshka=(2, 5), weight=0.5)
  plain, learned = (objective.parse_terms({"t": options | more}) for more in ({}, dict(balance=True)))
  shapes = jax.eval_shape(lambda: objective._as_encoded(nodes))
  own = objective.init_parameters(learned, jax.random.key(0), shapes)["t"]
  assert own[LEARNED] == 0 and set(own) == {"log_scale", LEARNED}
  own = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), own) | {LEARNED: jnp.float64(0.7)}
  value, _ = objective.evaluate(plain, nodes, {}, {"t": own}, {}, {})
  found, metrics = objective.evaluate(learned, nodes, {}, {"t": own}, {}, {})
  np.testing.assert_allclose(found, 0.5 * balanced(value / 0.5, 0.7), rtol=1e-12)
  np.testing.assert_allclose(metrics["t/unbalanced"], value / 0.5, rtol=1e-12)
  moved = objective.clamp_after_step(learned, {"t": own})["t"]
  assert set(moved) == set(own) and moved[LEARNED] == own[LEARNED]
  assert learned["t"].widths == (2, 5) and objective.comparisons(learned) == objective.comparisons(plain)


def test_one_line():
  with pytest.raises(UserError, match=r"objective\.t\.balance: 0\.5; write True for a learned weight, or False"):
    objective.parse_terms({"t": PAIR | dict(balance=0.5)})
