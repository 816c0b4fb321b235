"""Metric files through a resume, timings by a fake clock, and what the progress line says."""

import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mmcontrast.report.losses import draw_losses
from mmcontrast.training import metric_files, observe
from mmcontrast.training.window import Window


def test_jsonl_lines(tmp_path):
  path = tmp_path / "run" / "metrics.jsonl"
  writer = observe.JsonlWriter(path)
  writer.write(1, {"loss": jnp.float32(0.5), "a/b": np.int32(2)})
  writer.write(2, {"loss": float("nan")})
  writer.write(2, {"evaluation/recall": 0.25})
  assert path.read_text().endswith("\n")  # Readable while the run goes on.
  with pytest.raises(ValueError, match="step 1 after"):
    writer.write(1, {"loss": 0})
  writer.close()
  assert [json.loads(line) for line in path.read_text().splitlines()] == [
    {"step": 1, "loss": 0.5, "a/b": 2.0},
    {"step": 2, "loss": None, "evaluation/recall": 0.25},
  ]


def test_jsonl_resume_drops_what_will_be_written_again(tmp_path):
  path = tmp_path / "metrics.jsonl"
  writer = observe.JsonlWriter(path)
  for step in (10, 20, 30):
    writer.write(step, {"loss": step})
  writer.close()
  with path.open("a") as file:
    file.write('{"step": 40, "lo')  # The crash.
  assert [record["step"] for record in observe.read_jsonl(path)] == [10, 20, 30]
  writer = observe.JsonlWriter(path, resume_step=20)
  writer.write(20, {"evaluation": 1})  # Joins the line that was kept.
  writer.write(30, {"loss": -30})
  writer.close()
  assert observe.read_jsonl(path) == [
    {"step": 10, "loss": 10},
    {"step": 20, "loss": 20, "evaluation": 1},
    {"step": 30, "loss": -30},
  ]


def test_jsonl_starts_afresh(tmp_path):
  path = tmp_path / "metrics.jsonl"
  path.write_text('{"step": 5, "loss": 1.0}\n')
  observe.JsonlWriter(path).close()
  assert path.read_text() == ""


def test_tensorboard_and_resume(tmp_path):
  with metric_files.make_writer(tmp_path) as writer:
    for step in (1, 2, 3):
      writer.write(step, {"loss": jnp.float32(step), "term/loss": 0.5})
  with metric_files.make_writer(tmp_path, resume_step=1) as writer:
    writer.write(2, {"loss": 20.0})
  events = EventAccumulator(str(tmp_path / "tensorboard"))
  events.Reload()
  assert set(events.Tags()["scalars"]) == {"loss", "term/loss"}
  assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 1.0), (2, 20.0)]
  assert [r["step"] for r in observe.read_jsonl(tmp_path / "metrics.jsonl")] == [1, 2]


def test_only_process_0_writes(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(jax, "process_index", lambda: 1)
  with metric_files.make_writer(tmp_path) as writer, observe.Progress(1) as progress:
    writer.write(1, {"loss": 1.0})
    progress.update(1, {"loss": 1.0})
  assert not list(tmp_path.iterdir()) and capsys.readouterr().out == ""


def test_check_finite():
  metrics = {"loss": jnp.inf, "a/loss": jnp.float32(jnp.nan), "b/loss": 1.0}
  assert observe.check_finite(metrics) == ["loss", "a/loss"]
  assert observe.check_finite({"loss": 0}) == []


class Clock:
  now = 0.0

  def __call__(self):
    return self.now


def test_stopwatch():
  clock = Clock()
  watch = observe.Stopwatch(clock)
  with watch.waiting():
    clock.now += 1
  clock.now += 3
  rates = watch.lap(steps=2, examples=64)
  assert rates == {
    "seconds_per_step": 2,
    "examples_per_second": 16,
    "examples_per_second_per_device": 2,
    "data_wait": 0.25,
  }
  clock.now += 1
  assert watch.lap(1, 32)["data_wait"] == 0


RATES = {
  "loss": 3.25,
  "seconds_per_step": 2.0,
  "examples_per_second": 1234.4,
  "examples_per_second_per_device": 154.3,
  "data_wait": 0.031,
}


def test_progress_lines():
  clock, file = Clock(), io.StringIO()
  with observe.Progress(100, every_seconds=10, file=file, clock=clock) as progress:
    for step in (1, 2, 3, 99, 100):
      progress.update(step, RATES if step == 3 else {"loss": jnp.float32(1)})
      clock.now += 5
    progress.print("saved")
  assert file.getvalue().splitlines() == [
    "step 1/100 (1%)  loss 1.0000",
    "step 3/100 (3%)  loss 3.2500  1,234 examples/s (154 a device)  data wait 3%  3:14 left",
    "step 100/100 (100%)  loss 1.0000",
    "saved",
  ]


class Terminal(io.StringIO):
  def isatty(self):
    return True


def test_progress_bar_on_a_terminal(monkeypatch):
  monkeypatch.setenv("TERM", "xterm")
  monkeypatch.setenv("COLUMNS", "160")
  file = Terminal()
  with observe.Progress(100, start_step=10, file=file) as progress:
    progress.update(50, RATES)
    progress.print("checkpoint [50]")
  text = file.getvalue()
  for part in ("50/100", "loss 3.2500", "1,234 examples/s", "data wait 3%", "1:40 left", "checkpoint [50]"):
    assert part in text


@pytest.mark.parametrize("seconds, text", [(7, "0:07"), (760, "12:40"), (11100, "3:05:00")])
def test_duration(seconds, text):
  assert observe.duration(seconds) == text


def test_parameter_overview():
  params = {"towers": {"image": {"kernel": jnp.ones((3, 4)), "bias": jnp.zeros(4)}}}
  table = observe.parameter_overview(params)
  assert "towers/image/kernel" in table and "(3, 4)" in table and "Total: 16" in table
  assert "towers/image/kernel" in observe.parameter_overview(jax.eval_shape(lambda: params))


def test_terms_in_which_nobody_took_part_are_named():
  means = {"a/loss": 0.0, "a/anchors": 0.0, "b/loss": 0.0, "b/anchors": 0.1, "c/loss": 0.0, "loss": 0.0}
  assert observe.idle_terms(means) == ["a"]
  window = Window(2, 4)
  (line,) = window.remarks(means)
  assert line.startswith("objective.a: no example since the last report took part in it") and "data.missing" in line
  assert window.remarks(means) == []  # it was said
  assert window.remarks({"a/anchors": 3.0}) == [] and len(window.remarks(means)) == 1  # again, after a better window


def test_parameter_summary():
  leaf = jax.ShapeDtypeStruct((1000, 700), np.float32)
  params = {
    "towers": {"image": {"block": {"kernel": leaf}, "bias": jnp.zeros(1)}},
    "heads": {"joint": {"k": leaf}},
    "terms": {"t": {"log_scale": jnp.zeros((), jnp.bfloat16)}},
  }
  assert observe.parameter_summary(params).splitlines() == [
    "  heads/joint   700,000 parameters (2.8 MB)",
    "  terms/t       1 parameter (2 bytes)",
    "  towers/image  700,001 parameters (2.8 MB)",
    "  total         1,400,002 parameters (5.6 MB); each of them in parameters.txt",
  ]


def test_evaluation_line():
  results = {
    "val/image_to_text/recall@1": 0.3125,
    "val/image_to_text/recall@5": 0.5,
    "val/image_to_text/queries": 8.0,
    "val/knn/kind_accuracy": 1.0,
    "val/linear_probe/kind_l2": 0.1,
  }
  assert observe.evaluation_line(20, results) == (
    "evaluation after step 20: val/image_to_text/recall@1 0.3125, val/knn/kind_accuracy 1, 3 more in metrics.jsonl"
  )
  assert observe.evaluation_line(20, {"val/score": 2.5}) == "evaluation after step 20: val/score 2.5"
  assert observe.evaluation_line(20, {}) == "evaluation after step 20: no results"


def test_a_run_begun_anew_hides_what_was_before(tmp_path):
  for loss in (1.0, 2.0):
    with metric_files.make_writer(tmp_path) as writer:
      writer.write(1, {"loss": loss})
  events = EventAccumulator(str(tmp_path / "tensorboard"))
  events.Reload()
  assert [e.value for e in events.Scalars("loss")] == [2.0]


def test_losses_are_drawn_where_there_are_any(tmp_path):
  records = [
    {"step": step, "loss": 1 / step, "a/loss": None if step == 2 else 0.5, "b/loss": 0.1, "a/top1": 0.3}
    for step in (1, 2, 3)
  ]
  assert min(Image.open(draw_losses(records, tmp_path / "losses.png")).size) > 300
  for none in ([], [{"step": 1, "val/recall@1": 0.5}], [{"step": 1, "loss": None}]):
    assert draw_losses(none, tmp_path / "none.png") is None
  assert [path.name for path in tmp_path.iterdir()] == ["losses.png"]
