"""A run that goes on: with its data, moved data, other data, more steps; and which of its checkpoints is the best."""

import json
import shutil

import pytest
from own_data import encode, picture
from tiny import assert_same, tiny_config
from toy_source import Toy

from mmcontrast import train as training
from mmcontrast.data import pipeline
from mmcontrast.data.fingerprint import changes, fingerprint
from mmcontrast.data.tokenizers import make_tokenizer
from mmcontrast.errors import MissingData, UserError
from mmcontrast.evaluate import check_sets
from mmcontrast.models.model import complete_config
from mmcontrast.runs import run_lock
from mmcontrast.runs.checkpoint import SavedRun, complete_steps, load_run, saved_run
from mmcontrast.training.initialization import initial_arrays
from mmcontrast.training.observe import read_jsonl
from mmcontrast.training.program import make_plans, variable_shapes
from mmcontrast.training.resume import check_resume
from mmcontrast.training.selection import check_best_metric

QUEUE = "image[1]/image_joint@momentum"
BEST = "mine/image_to_text/recall@1"
RECALL = {2: 0.5, 4: 0.25}


def write_rows(folder, count, tags=("red", "blue", "round"), kinds=("cat", "dog"), other=()):
  """A table of so many rows and its pictures; row i has tag i % len(tags)."""
  (folder / "images").mkdir(parents=True, exist_ok=True)
  table = []
  for row in range(count):
    (folder / "images" / f"{row}.png").write_bytes(picture(row + 1000 * (row in other)))
    table.append(
      {
        "image": f"images/{row}.png",
        "caption": f"thing {row}",
        "tags": tags[row % len(tags)],
        "kind": kinds[row % len(kinds)],
      }
    )
  (folder / "rows.jsonl").write_bytes(encode("jsonl", table))
  return folder


def config_of(folder, **changes):
  c = tiny_config()
  data = {
    **c["data"],
    "dataset": f"jsonl:{folder}/rows.jsonl",
    "source": dict(tags="tags", labels="kind"),
    "split": "train",
    "views": dict(image=2, text=1),
    "tokenizer": "bytes",
    "token_ids": dict(pad=0, bos=1, eos=2),
    "cache": "none",
  }
  tower = dict(tower="image", name="linear", dim=8)
  objective = dict(
    image_tags=dict(
      query="image[0]/image_joint",
      key=QUEUE,
      negatives="queue:16",
      target=dict(name="shared_tags", overlap="jaccard", threshold=0.2),
    ),
    image_text=dict(query="image[0]/image_joint", key="text[0]/text_joint"),
  )
  evaluation = {
    **c["evaluation"],
    "image": "image_joint",
    "text": "text_joint",
    "sets": ("mine",),
    "data": dict(mine=dict(split="train")),
    "evaluators": dict(retrieval={}),
    "every_steps": 2,
  }
  checkpoint = {**c["checkpoint"], "every_steps": 1, "best_metric": BEST, "best_mode": "max"}
  settings = dict(
    steps=4,
    batch=dict(size=8, microbatches=1),
    data=data,
    evaluation=evaluation,
    checkpoint=checkpoint,
    heads=dict(image_joint=tower, text_joint={**tower, "tower": "text"}),
    objective=objective,
    optimizer=dict(name="adamw", learning_rate=1e-3),
  )
  return tiny_config(**{**settings, **changes})


def plan_of(config):
  return make_plans(config, lambda run: pipeline.spec(run["data"], run["batch"]["size"]))[""]


def with_checkpoint(**changes):
  return {**config_of("")["checkpoint"], **changes}


@pytest.fixture
def evaluated(monkeypatch):
  """One entry for each evaluation; all of the same result."""
  calls = []

  def evaluate(model, config, data_dir, workdir):
    calls.append(model)
    return {BEST: 0.125}

  monkeypatch.setattr(training, "evaluate_in_training", evaluate)
  return calls


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
  return write_rows(tmp_path_factory.mktemp("rows"), 24)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, rows):
  """(workdir, final state) of a run of four steps, a checkpoint after each, evaluated after two and four."""
  workdir, output = tmp_path_factory.mktemp("runs") / "a[1] *?", []
  with pytest.MonkeyPatch.context() as patch:
    calls = iter((2, 4))
    patch.setattr(
      training, "evaluate_in_training", lambda model, config, data_dir, workdir: {BEST: RECALL[next(calls)]}
    )
    patch.setattr(training, "_say", output.append)
    state = training.train(config_of(rows), workdir)
  return workdir, state, "\n".join(output)


@pytest.fixture
def run(whole, tmp_path):
  """A copy of that run, to be gone on with."""
  return shutil.copytree(whole[0], tmp_path / "run")


def test_the_best_by_an_evaluation_is_kept_and_the_last_step_is_evaluated(whole):
  workdir, state, _ = whole
  assert complete_steps(workdir / "checkpoints") == [2, 4]  # the best and the last; 1 and 3 did not compete
  assert [line.get(BEST) for line in read_jsonl(workdir / "metrics.jsonl")] == [None, 0.5, None, 0.25]
  assert_same(load_run(workdir)[1]["params"], state.params)  # in a folder whose name is a pattern


def test_what_a_run_says_and_leaves_at_its_end(whole):
  workdir, _, said = whole
  assert "heads/image_joint  128 parameters (512 bytes)" in said and said.count("\n") < 12
  assert "towers/image/patch_embed/kernel" in (workdir / "parameters.txt").read_text()
  assert f"now: mmcontrast evaluate --workdir '{workdir}'" in said and "losses.png" in said
  assert (workdir / "losses.png").read_bytes().startswith(b"\x89PNG")


def test_an_evaluation_that_fails_loses_no_step(rows, tmp_path, monkeypatch):
  def evaluate(model, config, data_dir, workdir):
    raise MemoryError("of the device")

  monkeypatch.setattr(training, "evaluate_in_training", evaluate)
  with pytest.raises(MemoryError):
    training.train(config_of(rows, checkpoint=with_checkpoint(every_steps=4)), tmp_path / "run")
  assert complete_steps(tmp_path / "run" / "checkpoints") == [2]
  assert [line["step"] for line in read_jsonl(tmp_path / "run" / "metrics.jsonl")] == [1, 2]


@pytest.mark.parametrize(
  "changes, message",
  [
    (dict(checkpoint=dict(best_metric="mine/image_to_text/recal@1")), f"no such choice .* did you mean '{BEST}'"),
    (dict(checkpoint=dict(best_metric="image_tags/los")), r"did you mean 'image_tags/loss'"),
    (dict(checkpoint=dict(best_metric="min/image_to_text/recall@1")), f"did you mean '{BEST}'"),
    (dict(evaluation=dict(every_steps=0)), r"config\.evaluation\.every_steps=0 does none while training; set it to 1"),
    (dict(checkpoint=dict(every_steps=20), evaluation=dict(every_steps=30)), r"=30 and config.* rarely coincide"),
    (dict(evaluation=dict(evaluators={}, sets=())), r"metrics of an evaluation need config\.evaluation\.sets"),
    (
      dict(
        checkpoint=dict(best_metric="mine/zero_shot/kind_top5"),
        evaluation=dict(evaluators=dict(zero_shot=dict(label="kind"))),
      ),
      r"did you mean 'mine/zero_shot/kind_top1'",
    ),  # of two classes
  ],
)
def test_what_decides_is_checked_before_compilation(rows, changes, message):
  config = config_of(rows)
  config |= {section: {**config[section], **keys} for section, keys in changes.items()}
  with pytest.raises(UserError, match=message) as error:
    check_best_metric(plan_of(config))
  assert "\n" not in str(error.value)


def test_what_may_decide(rows):
  plan = plan_of(config_of(rows))
  for checkpoint, evaluation in (
    (dict(best_metric="image_tags/loss"), dict(every_steps=0)),
    (dict(best_metric="x", keep_best=0), {}),
    (dict(every_steps=20), dict(every_steps=10)),
    (dict(every_steps=10), dict(every_steps=20)),
    (dict(every_steps=0), {}),
  ):
    changed = {
      "checkpoint": {**plan.config["checkpoint"], **checkpoint},
      "evaluation": {**plan.config["evaluation"], **evaluation},
    }
    check_best_metric(plan._replace(config={**plan.config, **changed}))


def test_more_steps_go_on_with_optimizer_and_queues(whole, rows, run, evaluated, tmp_path):
  state = training.train(config_of(rows, steps=6), run)
  assert len(evaluated) == 1 and [line["step"] for line in read_jsonl(run / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]
  assert json.loads((run / "config.json").read_text())["steps"] == 6
  at_once = training.train(config_of(rows, steps=6), tmp_path / "at once")
  assert_same(state, at_once)


@pytest.mark.parametrize(
  "changes, where",
  [
    (dict(optimizer=dict(name="adamw", learning_rate=dict(name="cosine", init=0.1))), "optimizer.learning_rate"),
    (dict(momentum=dict(decay=dict(name="linear", init=0.9, end=1.0), update="before_keys")), "momentum.decay"),
  ],
)
def test_a_schedule_over_all_steps_does_not_go_on(rows, changes, where, tmp_path):
  plan = plan_of(config_of(rows, steps=6, **changes))
  saved = SavedRun(complete_config({**plan.config, "steps": 4}), 4, None)
  with pytest.raises(UserError, match=rf"steps was 4, now 6, and config\.{where}.*another --workdir.*init=") as error:
    check_resume(saved, plan, tmp_path)
  assert f"init={{'*': '{tmp_path}:*'}}" in str(error.value)


def test_the_way_that_a_message_names_works(whole, rows):
  """Other steps or another learning rate in another folder, from these weights; the path is no pattern there either."""
  workdir, state, _ = whole
  plan = plan_of(config_of(rows, steps=9, init={"*": f"{workdir}:*"}))
  assert "*" in plan.config["init"]
  given = initial_arrays(plan.config, variable_shapes(plan.program), {})
  assert_same(given["params/heads/image_joint/fc1/kernel"], state.params["heads"]["image_joint"]["fc1"]["kernel"])


def test_a_second_training_is_refused_and_readers_are_not(whole, rows):
  workdir, _, _ = whole
  with run_lock.held(workdir):
    with pytest.raises(UserError, match=r"another training writes into this folder .process"):
      training.train(config_of(rows), workdir)
    assert load_run(workdir)[2] == 4


def test_data_that_moved_are_the_same(rows, run, tmp_path, capsys):
  moved = shutil.copytree(rows, tmp_path / "else where")
  assert check_resume(saved_run(run), plan_of(config_of(rows)), run) == []
  lines = check_resume(saved_run(run), plan_of(config_of(moved)), run)
  assert lines == [f"{run}: data.dataset has changed, and the data are the same"]


@pytest.mark.parametrize(
  "changes, message",
  [
    (
      dict(count=25, tags=("red", "blue", "round", "square")),
      r"24 examples became 25: .*; tags: new 'square': their columns moved; restore them, .*changed_data=accept",
    ),
    (dict(count=16), r"24 examples became 16: each epoch has another order; restore them"),
    (dict(count=24, kinds=("ant", "cat", "dog")), r"classes of label 'kind': new 'ant': their numbers moved"),
    (dict(count=24, kinds=("dog", "elk")), r"classes of label 'kind': new 'elk' and gone 'cat'"),
    (dict(count=24, other=(0, 23)), r"2 of 16 examples compared have changed, such as number 0"),
  ],
)
def test_other_data_are_refused_by_what_changed(changes, message, run, rows, tmp_path):
  other = write_rows(tmp_path / "other", **changes)
  before = sorted(run.rglob("*"))
  with pytest.raises(UserError, match=message) as error:
    training.train(config_of(other), run)
  assert "\n" not in str(error.value) and "damaged" not in str(error.value) and "delete" not in str(error.value)
  assert sorted(run.rglob("*")) == before


def test_other_data_are_taken_by_choice(whole, run, tmp_path, evaluated, capsys):
  _, state, _ = whole
  other = write_rows(tmp_path / "other", 25, tags=("red", "blue", "round", "square"))
  accept = with_checkpoint(changed_data="accept")
  new = training.train(config_of(other, steps=5, checkpoint=accept), run)
  assert "continuing with other data: 24 examples became 25" in capsys.readouterr().out
  assert int(new.step) == 5 and state.queues[QUEUE]["tags"].shape == (16, 3)
  assert new.queues[QUEUE]["tags"].shape == (16, 4) and int(new.queues[QUEUE]["pointer"]) == 8  # begun anew
  assert saved_run(run).data["examples"] == 25  # and from now on these are its data
  assert check_resume(saved_run(run), plan_of(config_of(other, steps=5)), run) == []


def forget_the_data(run):
  for file in run.glob("checkpoints/*/run/metadata"):
    file.write_text(json.dumps({**json.loads(file.read_text()), "data": None}))


def test_a_checkpoint_that_does_not_know_its_data(whole, run, rows, tmp_path):
  forget_the_data(run)
  assert_same(training.train(config_of(rows), run), whole[1])  # as before
  other = write_rows(tmp_path / "other", 24, tags=("red", "blue", "round", "square"))
  with pytest.raises(UserError, match=r"data\.dataset was"):
    training.train(config_of(other), run)
  shutil.copy(rows / "rows.jsonl", tmp_path / "kept")
  try:
    shutil.copy(other / "rows.jsonl", rows / "rows.jsonl")
    with pytest.raises(
      UserError,
      match=r"complete, but the state has other shapes: queues/.*/tags was \[16, 3\] and "
      r"would be ",
    ):
      training.train(config_of(rows), run)
    new = training.train(config_of(rows, checkpoint=with_checkpoint(changed_data="accept")), run)
    assert new.queues[QUEUE]["tags"].shape == (16, 4)
  finally:
    shutil.copy(tmp_path / "kept", rows / "rows.jsonl")


ON_ERROR = dict(retries=0, backoff_seconds=0.0, timeout_seconds=30.0)


def test_a_fingerprint_of_failing_reads_a_tokenizer_and_parts():
  class Failing(Toy):
    def __getitem__(self, index):
      if index == 0:
        raise OSError("gone for now")
      return super().__getitem__(index)

  tokenizer = make_tokenizer("bytes", lower=True)
  known = fingerprint(Toy(40), tokenizer, ON_ERROR)
  assert known == json.loads(json.dumps(known)) and len(json.dumps(known)) < 2000
  assert changes(known, fingerprint(Failing(40), tokenizer, ON_ERROR)) == []  # what cannot be read says nothing
  assert changes(known, fingerprint(Toy(40), make_tokenizer("bytes", lower=False), ON_ERROR)) == [
    "the tokenizer gives other ids for the same texts"
  ]
  assert changes(known, fingerprint(Toy(40, {39: {"captions": {"caption": ["else"]}}}), tokenizer, ON_ERROR)) == [
    "1 of 16 examples compared have changed, such as number 39"
  ]
  sounds = [{"audio": {"en": b"a sound"}}, {"audio": {"en": b"another"}}]  # what is no image and no text counts too
  first, second = (fingerprint(Toy(40, {39: one}), tokenizer, ON_ERROR) for one in sounds)
  assert changes(first, second) == ["1 of 16 examples compared have changed, such as number 39"]
  assert fingerprint(Toy(0), None, ON_ERROR)["digests"] == {}


def test_a_set_that_is_not_built_stops_a_run_before_it_starts(rows, tmp_path):
  config = config_of(rows)
  evaluation = {**config["evaluation"], "sets": ("mine", "emoji_noto")}
  with pytest.raises(MissingData, match=r"emoji_noto is not in .*; run: mmcontrast data build emoji_noto"):
    check_sets({**config, "evaluation": evaluation}, tmp_path)
  for free in (dict(optional_sets=("emoji_noto",)), dict(every_steps=0)):
    check_sets({**config, "evaluation": {**evaluation, **free}}, tmp_path)


def test_a_share_of_few_rows_that_left_a_set_empty_is_said_before_training(rows, tmp_path, capsys):
  config = config_of(rows)
  source = {**config["data"]["source"], "splits": dict(train=0.999, mine=0.001)}
  data, own = {**config["data"], "source": source}, dict(held_out=dict(split="mine"))
  evaluation = {**config["evaluation"], "sets": ("held_out",), "data": own, "every_steps": 0}
  config = {**config, "data": data, "evaluation": evaluation}
  check_sets(config, tmp_path, 24)
  said = capsys.readouterr().err
  assert "held_out" in said and "split 'mine' has none of its" in said and "`mmcontrast evaluate` will have" in said
  check_sets(config, tmp_path, 10**6)
  check_sets({**config, "evaluation": {**evaluation, "data": dict(held_out=dict(split="train"))}}, tmp_path, 24)
  assert not capsys.readouterr().err
