"""Temperatures: fixed, learned in two forms, scheduled, shared, clamped in two places, with a bias."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from meshes import assert_close, compiled
from term_rules import check_rules, function_of, random

from mmcontrast.errors import UserError
from mmcontrast.objectives import terms as objective
from mmcontrast.objectives.drawn_pairs import check_drawn
from mmcontrast.objectives.temperature import Temperature, parse_temperature
from mmcontrast.objectives.term import Run
from mmcontrast.optimization.schedules import extremes, make_schedule

CLIP = dict(query="image[0]/joint", key="text[0]/joint", direction="both")
FALLING = dict(name="cosine", init=0.5, end=0.1)


def drawn():
  rng = np.random.default_rng(0)
  return {CLIP[side]: jnp.asarray(rng.normal(size=(6, 4)), jnp.float32) for side in ("query", "key")}


def evaluate(config, parameters=None, scheduled=None):
  """(loss, metrics) of all terms."""
  terms = objective.parse_terms(config)
  parameters = objective.init_parameters(terms) if parameters is None else parameters
  return objective.evaluate(terms, drawn(), {}, parameters, {}, {}, scheduled=scheduled)


def test_four_ways_to_say_one_temperature_are_one_loss():
  ways = dict(
    fixed=0.2,
    scale=dict(init=0.2),
    tau=dict(init=0.2, form="tau"),
    schedule=dict(schedule=dict(name="constant", value=0.2)),
  )
  config = {name: dict(CLIP, temperature=way) for name, way in ways.items()}
  _, metrics = compiled(lambda: evaluate(config, scheduled={"schedule": {"temperature": 0.2}}))()
  for name in ways:
    np.testing.assert_allclose(metrics[f"{name}/temperature"], 0.2, rtol=1e-6)
    np.testing.assert_allclose(metrics[f"{name}/loss"], metrics["fixed/loss"], rtol=1e-6)
  assert objective.init_parameters(objective.parse_terms(config)).keys() == {"scale", "tau"}


def test_the_gradients_of_both_forms_obey_the_chain_rule():
  def gradient(form):
    temperature = dict(init=0.2, form=form)
    terms = objective.parse_terms({"t": dict(CLIP, temperature=temperature)})
    loss = compiled(jax.grad(lambda p: evaluate({"t": dict(CLIP, temperature=temperature)}, p)[0]))
    return loss(objective.init_parameters(terms))["t"][form]

  by_scale, by_tau = gradient("log_scale"), gradient("tau")  # log scale = -log tau
  assert by_tau != 0
  np.testing.assert_allclose(by_tau, -by_scale / 0.2, rtol=1e-5)


@pytest.mark.parametrize("form", ["log_scale", "tau"])
@pytest.mark.parametrize("clamp", ["after_step", "forward"])
def test_a_clamp_forward_stops_the_gradient_and_one_after_the_step_does_not(form, clamp):
  config = {"t": dict(CLIP, temperature=dict(init=0.2, form=form, min=0.1, max=0.5, clamp=clamp))}
  beyond = {"t": {form: jnp.float32(-np.log(0.8) if form == "log_scale" else 0.8)}}
  gradient = compiled(jax.grad(lambda p: evaluate(config, p)[0]))(beyond)["t"][form]
  assert (gradient == 0) == (clamp == "forward")
  kept = objective.clamp_after_step(objective.parse_terms(config), beyond)
  assert (kept == beyond) == (clamp == "forward")


def test_two_terms_follow_one_schedule_each_with_the_bias_of_the_owner():
  config = dict(
    a=dict(CLIP, temperature=dict(schedule=FALLING, min=0.1, max=0.5), bias=dict(init=-1.0)),
    b=dict(CLIP, temperature="a", criterion="sigmoid"),
  )
  terms = objective.parse_terms(config)
  found = objective.schedules(terms)
  assert found.keys() == {"a", "b"}
  schedules = {
    name: make_schedule(*own["temperature"][:1], 10, where=own["temperature"][1]) for name, own in found.items()
  }
  run = compiled(lambda now: evaluate(config, scheduled=now))
  for step, wanted in ((0, 0.5), (5, 0.3), (10, 0.1)):
    now = {name: {"temperature": schedule(step)} for name, schedule in schedules.items()}
    _, metrics = run(now)
    np.testing.assert_allclose([metrics["a/temperature"], metrics["b/temperature"]], wanted, rtol=1e-6)
  assert set(objective.init_parameters(terms)["a"]) == {"bias"}
  gradient = compiled(jax.grad(lambda p: evaluate(config, p, now)[0]))(objective.init_parameters(terms))
  assert gradient["a"]["bias"] != 0


@pytest.mark.parametrize(
  ("temperature", "says"),
  [
    (dict(init=0.001, min=0.01), r"t\.temperature: 0\.001 is not above 0 and within \[0\.01, inf\]"),
    (dict(init=0.9, max=0.5), r"t\.temperature: 0\.9 is not above 0 and within \[0\.0, 0\.5\]"),
    (0.0, r"t\.temperature: 0\.0 is not above 0"),
    (-0.1, r"t\.temperature: -0\.1 is not above 0"),
    (dict(schedule=dict(name="cosine", init=0.5)), r"t\.temperature\.schedule: 0\.0 is not above 0"),
    (dict(schedule=dict(name="linear", init=0.5, end=-0.5)), r"t\.temperature\.schedule: -0\.5 is not above 0"),
    (dict(schedule=dict(FALLING, end=0.005), min=0.01), r"t\.temperature\.schedule: 0\.005 is not .* within \[0\.01"),
    (dict(schedule=dict(name="warmup_linear", peak=0.5, end=0.1, warmup_steps=5)), r"schedule: 0\.0 is not above 0"),
    (dict(schedule=FALLING, init=0.1), r"t\.temperature\.schedule: .* leave out init and learned, or the schedule"),
    (dict(schedule=FALLING, learned=True), r"t\.temperature\.schedule: .* leave out init and learned, or the sched"),
    (dict(schedule=dict(name="cosin", init=0.1)), r"t\.temperature\.schedule\.name: .* did you mean 'cosine'"),
    (dict(schedule=dict(FALLING, ende=1.0)), r"t\.temperature\.schedule: no option 'ende'; did you mean 'end'"),
    (dict(schedule=0.0), r"t\.temperature\.schedule: 0\.0 is not above 0"),
    (dict(spread=0.0, min=0.01), r"t\.temperature\.spread: 0\.0 is not a number above 0; 0\.25 makes"),
    (dict(spread=True, min=0.01), r"t\.temperature\.spread: True is not a number above 0"),
    (dict(spread=0.25), r"t\.temperature\.spread: similarities that are all alike .* min=0\.01"),
    (
      dict(spread=0.25, init=0.1, min=0.01),
      r"t\.temperature\.spread: .* leave out init, learned and schedule, or the sp",
    ),
    (dict(spread=0.25, schedule=FALLING, min=0.01), r"t\.temperature\.spread: .* leave out init, learned and schedule"),
    (dict(spread=0.25, min=0.5, max=0.1), r"t\.temperature\.min: 0\.5 is not above 0 and within \[0\.5, 0\.1\]"),
    (dict(shedule=FALLING), r"t\.temperature: no option 'shedule'; did you mean 'schedule'"),
    (dict(init=0.1, form="logscale"), r"t\.temperature\.form: .* did you mean 'log_scale'"),
    (dict(init=0.1, clamp="before"), r"t\.temperature\.clamp: .* \(one of: after_step, forward\)"),
  ],
)
def test_mistakes(temperature, says):
  with pytest.raises(UserError, match=says) as error:
    objective.parse_terms({"t": dict(CLIP, temperature=temperature)})
  assert "\n" not in str(error.value)


AUDIO, TEXT = "audio[0]/joint", "text[0]/joint"
SPREAD = dict(spread=0.25, min=0.01)


def numpy_of_spread(sounds, texts, same):
  """(loss, temperature) of sounds and texts that choose among all others of both, positives outside the logarithm."""
  x = np.stack([sounds, texts], 1).reshape(-1, sounds.shape[1])
  x = x / np.linalg.norm(x, axis=1, keepdims=True)
  scores, others = x @ x.T, ~np.eye(len(x), dtype=bool)
  temperature = 0.25 * np.std(scores[others])
  positive = np.repeat(np.repeat(same, 2, 0), 2, 1) & others
  losses = []
  for row, seen, right in zip(scores / temperature, others, positive):
    losses.append(np.log(np.exp(row[seen]).sum()) - row[right].mean())
  return np.mean(losses), temperature


@pytest.mark.usefixtures("float64")
def test_a_temperature_by_the_spread_of_both_modalities_similarities():
  term = dict(query=(AUDIO, TEXT), key=(AUDIO, TEXT), target="same_id", temperature=SPREAD)
  embeddings, ids = {AUDIO: random(9, 4), TEXT: random(9, 4, seed=1)}, jnp.array([0, 1, 2, 3, 1, 4, 5, 6, 7], jnp.int32)
  run = check_rules(term, embeddings, {"id": ids})
  (loss, metrics), gradients = run(embeddings, {"id": ids})
  same = np.asarray(ids)[:, None] == np.asarray(ids)
  wanted, temperature = numpy_of_spread(*embeddings.values(), same)
  np.testing.assert_allclose([loss, metrics["t/temperature"]], [wanted, temperature], rtol=1e-9)
  # Without gradient: that of a fixed temperature of this number.
  (_, _), fixed = function_of(dict(term, temperature=temperature))(embeddings, {"id": ids})
  assert_close(gradients, fixed, 1e-9)


@pytest.mark.usefixtures("float64")
def test_a_spread_of_queries_and_keys_with_hard_negatives_and_bounds():
  hard = "text[1]/joint"
  embeddings = {AUDIO: random(5, 4), TEXT: random(5, 4, seed=1), hard: random(5, 4, seed=2)}
  term = dict(query=AUDIO, key=TEXT, negative_keys=hard, direction="both", temperature=SPREAD)
  (_, metrics), _ = function_of(term)(embeddings, {})
  unit = [np.asarray(x) / np.linalg.norm(x, axis=1, keepdims=True) for x in embeddings.values()]
  pairs, more = unit[0] @ unit[1].T, unit[0] @ unit[2].T
  deviation = np.std(np.concatenate([pairs, pairs, more]))  # of a pair from both sides, of a hard negative from one
  np.testing.assert_allclose(metrics["t/temperature"], 0.25 * deviation, rtol=1e-9)
  alike = dict.fromkeys(embeddings, jnp.ones((5, 4)))
  for bounds, wanted in ((dict(min=0.01), 0.01), (dict(min=0.3), 0.3)):
    (loss, metrics), gradients = function_of(dict(term, temperature=dict(spread=0.25, **bounds)))(alike, {})
    assert metrics["t/temperature"] == pytest.approx(wanted) and loss == pytest.approx((np.log(10) + np.log(5)) / 2)
    assert all(np.isfinite(x).all() for x in gradients.values())


def test_who_asks_for_a_temperature_that_only_a_batch_says():
  owner = dict(query=AUDIO, key="text[0]/words", temperature=SPREAD)
  terms = objective.parse_terms({"a": owner})
  assert not objective.init_parameters(terms) and terms["a"].scales_by_batch
  assert objective.logits_between({"a": owner}, {}, ["joint", "words"]) == (None, None)
  assert objective.logits_between({"a": dict(owner, temperature=0.25)}, {}, ["joint", "words"]) == (4.0, None)
  with pytest.raises(
    UserError, match=r"objective\.b\.temperature: 'a' takes its own from the spread .* give it its own"
  ):
    objective.parse_terms({"a": owner, "b": dict(query=AUDIO, key=TEXT, temperature="a")})
  match = dict(module="matching", embeddings=("fusion(text[0], audio[0])/match", "fusion(text[0]~a, audio[0])/match"))
  with pytest.raises(UserError, match=r"temperature of objective\.a follows the similarities .* or 'uniform'"):
    check_drawn(objective.parse_terms({"a": owner, "match": match}), Run({"joint": "audio"}, 8))


def test_extremes_of_schedules():
  assert extremes(0.5) == (0.5, 0.5)
  assert extremes(dict(name="constant", value=2)) == (2, 2)
  assert extremes(dict(FALLING, epochs=0.25)) == (0.1, 0.5)
  assert extremes(dict(name="warmup_cosine", peak=1.0, init=0.2, end=0.1, warmup_epochs=0.5)) == (0.1, 1.0)
  assert extremes(dict(name="warmup_linear", peak=1.0, end=0.5)) == (0.5, 1.0)  # without a warm-up, init is not used


def test_no_schedule_is_no_schedule():
  assert parse_temperature(dict(init=0.1, schedule=None), None, "t") == Temperature(init=0.1, learned=True)
