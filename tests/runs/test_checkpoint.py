"""Checkpoints that are half-written, damaged or do not fit on the disk."""

import contextlib
import json
import resource
import shutil
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore
from etils import epath
from tiny import assert_same, tiny_config

from mmcontrast.errors import UserError
from mmcontrast.runs import checkpoint, tensorstore_leak
from mmcontrast.runs.checkpoint import Checkpoints, complete_steps, disk_errors, load_run
from mmcontrast.runs.train_state import TrainState

CONFIG = tiny_config()
OPTIONS = {**CONFIG["checkpoint"], "keep_last": 3, "keep_best": 0}


def state_of(step):
  def tree(name):
    return {name: jnp.full((200, 200), step, jnp.float32)}

  return TrainState(
    step=jnp.int32(step),
    params=tree("kernel"),
    batch_stats=tree("mean"),
    opt_state=tree("mu"),
    momentum=tree("copy"),
    queues=tree("keys"),
    tables=tree("u"),
  )


def like():
  one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=one), state_of(0))


@pytest.fixture
def saved(tmp_path):
  """A folder with the checkpoints of steps 3 and 6."""
  with contextlib.closing(Checkpoints(tmp_path, OPTIONS)) as checkpoints:
    for step in (3, 6):
      checkpoints.save(state_of(step), CONFIG, {"loss": 1.0})
  return tmp_path


def restored(workdir):
  with contextlib.closing(Checkpoints(workdir, OPTIONS)) as checkpoints:
    return checkpoints.latest_step(), checkpoints.restore(like())


def test_a_save_is_of_the_state_when_it_was_asked_for(tmp_path):
  step = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)
  state = step(state_of(4))
  with contextlib.closing(Checkpoints(tmp_path, OPTIONS)) as checkpoints:
    kept = checkpoint.snapshot(state)
    state = step(state)
    checkpoints.save(kept, CONFIG, {"loss": 1.0})
    for _ in range(10):
      state = step(state)  # the buffers of the saved one are used again
  found, at = restored(tmp_path)[1], restored(tmp_path)[0]
  assert at == 5 and all(np.all(np.asarray(leaf) == 5) for leaf in jax.tree.leaves(found))


def test_what_was_not_committed_is_never_picked_up(saved, capsys):
  folder = saved / "checkpoints"
  shutil.copytree(folder / "6", folder / "9.orbax-checkpoint-tmp")  # dies while it writes
  (folder / "12").mkdir()
  for step, marker in (("15", "commit_success.txt"), ("18", "_CHECKPOINT_METADATA"), ("21", "run/commit_success.txt")):
    shutil.copytree(folder / "6", folder / step)  # a copy or a deletion that was cut short
    (folder / step / marker).unlink()
  assert complete_steps(folder) == [3, 6] and load_run(saved)[2] == 6
  step, state = restored(saved)
  assert step == 6 and int(state.step) == 6
  assert sorted(path.name for path in folder.iterdir()) == ["3", "6"]
  assert f"{folder / '15'}: an incomplete checkpoint; removed" in capsys.readouterr().out


@pytest.mark.parametrize("file", ["model/manifest.ocdbt", "run/metadata", "model/_METADATA"])
def test_a_damaged_checkpoint_is_named_with_what_to_do(saved, file):
  folder = saved / "checkpoints"
  path = folder / "6" / file
  path.write_bytes(path.read_bytes()[:-20])
  expected = r"6: the checkpoint is damaged .*; delete that folder to resume from step 3"
  with pytest.raises(UserError, match=expected) as error:
    load_run(saved)
  assert "\n" not in str(error.value) and len(str(error.value)) < 400
  shutil.rmtree(folder / "6")
  assert restored(saved)[0] == 3


def test_a_damaged_state_with_no_other_checkpoint(saved):
  folder = saved / "checkpoints"
  shutil.rmtree(folder / "3")
  path = folder / "6" / "training" / "manifest.ocdbt"
  path.write_bytes(path.read_bytes()[:-20])
  with pytest.raises(UserError, match=r"no other is kept: .*start again; config\.checkpoint\.keep_last=2"):
    restored(saved)


def test_a_full_disk_names_the_folder_and_keeps_the_last_one(tmp_path, capfd):
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  with contextlib.closing(Checkpoints(tmp_path, OPTIONS)) as checkpoints:
    checkpoints.save(state_of(3), CONFIG, {"loss": 1.0})
    checkpoints.check()  # does not wait
    checkpoints.save(state_of(6), CONFIG, {"loss": 1.0})
    while len(complete_steps(tmp_path / "checkpoints")) < 2:
      checkpoints.check()
    resource.setrlimit(resource.RLIMIT_FSIZE, (400, limits[1]))  # writes fail, as on a full disk
    try:
      with pytest.raises(UserError) as error:
        checkpoints.save(state_of(9), CONFIG, {"loss": 1.0})
        while True:
          checkpoints.check()
    finally:
      resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  text = str(error.value)
  assert text.startswith(f"{tmp_path / 'checkpoints'}: the checkpoint of step 9 could not be written (")
  assert "\n" not in text
  assert "File too large" in text and "the last good one, of step 6, is intact" in text
  assert "Event loop is closed" not in capfd.readouterr().err  # the arrays that were given up
  assert restored(tmp_path)[0] == 6


def test_a_lost_process_is_no_failure_to_write(tmp_path, monkeypatch):
  """Of several processes, the one that saves when another dies: there is nothing to mend on its disk."""
  with contextlib.closing(Checkpoints(tmp_path, OPTIONS)) as checkpoints:

    def lost():
      raise jax.errors.JaxRuntimeError("UNAVAILABLE: Failed to send RPC to coordination service.")

    monkeypatch.setattr(checkpoints._manager, "wait_until_finished", lost)
    with pytest.raises(jax.errors.JaxRuntimeError, match="coordination service"):
      checkpoints.save(state_of(3), CONFIG, {"loss": 1.0})
    monkeypatch.undo()


def test_a_full_disk_elsewhere_is_one_line(tmp_path):
  with (
    pytest.raises(UserError, match=r"run: No space left on device; the last checkpoint is intact"),
    disk_errors(tmp_path / "run"),
  ):
    raise OSError(28, "No space left on device")
  with pytest.raises(PermissionError), disk_errors(tmp_path):
    raise PermissionError(13, "Permission denied")
  with pytest.raises(PermissionError), disk_errors(tmp_path / "run"):
    raise PermissionError(13, "Permission denied", str(tmp_path / "data"))
  with pytest.raises(UserError, match="run: Read-only file system; the last"), disk_errors(tmp_path / "run"):
    raise OSError(30, "Read-only file system", str(tmp_path / "run" / "metrics.jsonl"))  # a mount that gave up


@pytest.mark.parametrize(
  "error",
  [
    PermissionError(13, "Permission denied"),
    OSError(5, "Input/output error"),
    MemoryError("no room"),
    ValueError("NOT_FOUND: Error opening \"a\": x: Permission denied [os_error_code='13']"),
    RuntimeError("RESOURCE_EXHAUSTED: out of memory allocating 1 bytes"),
    AttributeError("of another Orbax"),
  ],
)
def test_what_cannot_be_read_now_is_not_called_damaged(saved, error):
  with (
    pytest.raises(UserError, match=r"6: the checkpoint cannot be read now .*; it is left as it is") as found,
    checkpoint._readable(saved / "checkpoints", 6),
  ):
    raise error
  assert "damaged" not in str(found.value) and "delete" not in str(found.value)


def test_a_whole_checkpoint_that_does_not_fit_is_not_called_damaged(saved):
  other = like()
  other = other.replace(params={"kernel": jax.ShapeDtypeStruct((200, 300), np.float32)}, ema={})
  with (
    contextlib.closing(Checkpoints(saved, OPTIONS)) as checkpoints,
    pytest.raises(UserError, match=r"the state has other shapes: params/kernel was \[200, 200\] and") as error,
  ):
    checkpoints.restore(other)
  assert "vocabulary" in str(error.value) and "delete" not in str(error.value)


def test_what_orbax_did_not_merge_is_merged_when_it_is_read(saved):
  """As it left checkpoints in paths that it took for patterns: whole, and not to be found."""
  expected = restored(saved)[1]
  for item in ("model", "training"):
    folder = saved / "checkpoints" / "6" / item
    (folder / "manifest.ocdbt").unlink()
    shutil.rmtree(folder / "d")
  other = shutil.copytree(saved, saved.parent / "b[1] *")
  assert_same(restored(saved)[1], expected)
  assert_same(load_run(other)[1]["params"], expected.params)


def test_what_was_written_is_looked_up_before_it_counts(tmp_path, monkeypatch):
  """As where Orbax's merge found no file: the checkpoint before it stays the newest."""
  options = {**OPTIONS, "keep_last": 1}
  with (
    pytest.raises(UserError, match=r"of step 6 could not be written .* of step 3, is intact"),
    contextlib.closing(Checkpoints(tmp_path / "a[1]", options)) as checkpoints,
  ):
    checkpoints.save(state_of(3), CONFIG)
    while not complete_steps(tmp_path / "a[1]" / "checkpoints"):
      checkpoints.check()
    monkeypatch.setattr(type(epath.Path(".")), "glob", lambda folder, pattern: iter(()))
    checkpoints.save(state_of(6), CONFIG)


def test_the_best_is_remembered_across_a_resume(tmp_path):
  options = {**CONFIG["checkpoint"], "keep_last": 1, "keep_best": 1}
  for losses in ({1: 0.1, 2: 0.5, 3: None}, {4: 0.3, 5: 0.6}):
    with contextlib.closing(Checkpoints(tmp_path, options)) as checkpoints:
      for step, loss in losses.items():
        checkpoints.save(state_of(step), CONFIG, None if loss is None else {"loss": loss})
    assert complete_steps(tmp_path / "checkpoints") == [1, max(losses)]


@pytest.mark.parametrize("metric, best", [("mine/image_to_text/recall@1", 2), ("a/knn/kind of it_accuracy", 2),
                                          ("a/tagging/map_macro", 2), ("term/top1", 2), ("mine/x/median_rank", 1),
                                          ("term/loss", 1)])  # fmt: skip
def test_which_way_is_better_follows_from_the_metric(metric, best, tmp_path):
  policy = checkpoint._Best(1, metric, checkpoint._mode_of(dict(best_metric=metric, best_mode="auto")))
  saved = [types.SimpleNamespace(metrics={metric: value}) for value in (0.1, 0.5)]
  assert policy.should_preserve(saved, context=None) == [best == 1, best == 2]
  assert checkpoint._mode_of(dict(best_metric=metric, best_mode="min")) == "min"


def test_the_copy_shares_no_memory_with_the_state():
  state = jax.jit(lambda state: state, out_shardings=jax.tree.map(lambda leaf: leaf.sharding, like()))(state_of(4))
  where = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state)]
  copied = jax.tree.leaves(checkpoint.snapshot(state))
  assert {leaf.unsafe_buffer_pointer() for leaf in copied}.isdisjoint(where)
  assert all(np.array_equal(a, b) for a, b in zip(copied, jax.tree.leaves(state), strict=True))


def test_saves_leave_nothing_behind_in_memory(tmp_path):
  tensorstore_leak.mend()

  def blocks(folder):
    before = sys.getallocatedblocks()
    for _ in range(1000):
      spec = tensorstore.KvStore.Spec({"driver": "file", "path": f"{folder}/"})
      assert spec.to_json()["path"] == f"{folder}/"
    return sys.getallocatedblocks() - before

  blocks(tmp_path)
  assert blocks(tmp_path) < 500  # each call of TensorStore's own leaves four


@pytest.mark.parametrize(
  "error, reason",
  [
    (ValueError("Error writing \"a\" at: x: No space left on device [os_error_code='28']"), "No space left on device"),
    (json.JSONDecodeError("Expecting value", "", 0), "Expecting value: line 1 column 1 (char 0)"),
    (RuntimeError(), "RuntimeError"),
  ],
)
def test_reasons(error, reason):
  assert checkpoint._reason(error) == reason
