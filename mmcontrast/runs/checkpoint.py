"""Checkpoints by Orbax: the state, the resolved config and the format version.

A checkpoint has three items: `model` (parameters, batch statistics and, where the run keeps it,
their average: all that inference needs), `training` (optimizer, momentum branch, queues, tables, step) and `run`
(config, versions, what the data were: data/fingerprint.py). The position in the data is the step.

A checkpoint is written under a temporary name and renamed when it is whole: when what was written can be found again.
In an object store, which has no rename, a file that is written last says that it is whole. What a process that died
left behind, or a folder that lacks a marker of its commit, is never read.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import errno
import json
import math
import os
import pathlib
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers

import mmcontrast
from mmcontrast import folders
from mmcontrast.config import from_json, to_json
from mmcontrast.config.earlier import of_today
from mmcontrast.config.stages import run_folder
from mmcontrast.errors import UserError, choose, one_line
from mmcontrast.models.lora import Lora
from mmcontrast.models.model import complete_config
from mmcontrast.parallel import distributed
from mmcontrast.parameter_paths import path_name
from mmcontrast.runs import late_answers, orbax_globs, orbax_on_stores, tensorstore_leak
from mmcontrast.runs.train_state import TrainState

FORMAT = 2  # 1: without tables, and params["terms"] was "temperatures"
OF_THE_DATA = ("queues", "tables")
"""Fields of a state that hold what is known of examples; the others outlive a change of the data."""
_UNDER_WAY = ".orbax-checkpoint-tmp"  # in the name of a folder that is not committed
ON_CHANGED_DATA = ("refuse", "accept")
BEST_MODES = ("auto", "min", "max")
_MORE_IS_BETTER = re.compile(r"(recall@\d+|top\d+|accuracy|mean_per_class|map_macro|map_micro|/positive)$")
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What a machine or a mount says of itself, and not of what is in a file.
_NO_ACCESS = (
  *_NO_SPACE,
  errno.EACCES,
  errno.EPERM,
  errno.EROFS,
  errno.EIO,
  errno.ESTALE,
  errno.EMFILE,
  errno.ENFILE,
  errno.ENOMEM,
  errno.ETIMEDOUT,
  errno.ENOTCONN,
  errno.ELOOP,
)
_OF_THE_FILES = (OSError, ValueError, LookupError, EOFError)  # what reading raises when something is missing or cut
_NO_ACCESS_WORDS = ("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "DEADLINE_EXCEEDED", "out of memory")
_MARKERS = ("_CHECKPOINT_METADATA", *(f"{name}commit_success.txt" for name in ("", "model/", "training/", "run/")))


class Checkpoints:
  """The checkpoints of one run, in `workdir/checkpoints`: saved in the background, atomically."""

  def __init__(self, workdir: str | pathlib.Path, options: Mapping[str, Any]):
    """`options`: config.checkpoint (keep_last, keep_best, best_metric, best_mode, changed_data)."""
    tensorstore_leak.mend()
    orbax_globs.mend()
    late_answers.mend()
    self._accepts = options.get("changed_data", ON_CHANGED_DATA[0]) == "accept"
    best = _Best(options["keep_best"], options["best_metric"], _mode_of(options))
    self._best_metric = options["best_metric"]
    self._directory = folders.at(workdir, "--workdir").resolve() / "checkpoints"
    in_store = folders.is_store(self._directory)
    if in_store:
      orbax_on_stores.mend()
    if distributed.is_first():
      _remove_half_written(self._directory)
    distributed.first_says(True)  # the others look there when that is done
    self._manager = ocp.CheckpointManager(
      self._directory,
      item_handlers={"model": _reading_back(), "training": _reading_back(), "run": ocp.JsonCheckpointHandler()},
      options=ocp.CheckpointManagerOptions(
        preservation_policy=checkpoint_managers.AnyPreservationPolicy(
          [checkpoint_managers.LatestN(n=options["keep_last"]), best]
        ),
        best_fn=best.value,  # without it metrics are not written, and a resumed run forgets which was the best
        cleanup_tmp_directories=True,
        atomicity_options=orbax_on_stores.COMMIT_FILE if in_store else None,
      ),
    )
    self._writer = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
    self._writing: concurrent.futures.Future | None = None
    self._step: int | None = None  # of the last save
    self._failed = False

  def save(
    self,
    state: TrainState,
    config: Mapping,
    metrics: Mapping[str, float] | None = None,
    data: Mapping[str, Any] | None = None,
  ) -> None:
    """Saves `state` under its step; returns before the files are written.

    Waits for the save before this one, if it is still under way.

    Args:
      state: a `snapshot`, or one that is not donated later.
      metrics: what is known of it. One without config.checkpoint.best_metric is no candidate for the best.
      data: the fingerprint of the data.
    Raises UserError when the save before failed; of several processes, JAX's error when another is lost.
    """
    value = (metrics or {}).get(self._best_metric, math.nan)
    best = {self._best_metric: float(value)} if math.isfinite(value) else None
    self._wait()
    if jax.process_count() > 1:  # Orbax's barriers are collectives: never beside those of a training step
      with self._one_line():
        self._start(state, config, best, data)
    else:  # what Orbax does before its own threads take over takes long beside a small step
      self._writing = self._writer.submit(self._write, state, config, best, data)

  def check(self) -> None:
    """Raises UserError when a save under way has failed; does not wait for it."""
    if self._writing is None or self._writing.done():
      self._result()

  def latest_step(self) -> int | None:
    """Step of the newest complete checkpoint, or None."""
    return self._manager.latest_step()

  def restore(self, like: TrainState, anew: Sequence[str] = ()) -> TrainState:
    """The newest state. `like` gives shapes, dtypes and shardings (jax.ShapeDtypeStruct leaves).

    Args:
      anew: those of OF_THE_DATA that are not taken; None in the state that is returned.
    With config.checkpoint.changed_data="accept", those whose shapes became others are not taken either.
    Raises UserError when the checkpoint is damaged, cannot be read, or is of another state.
    """
    step = self._manager.latest_step()
    model, training = _split(like)
    if distributed.is_first():
      with _readable(self._directory, step):
        for item in ("model", "training"):
          _merge(self._directory / str(step) / item)
    distributed.first_says(True)
    with _readable(self._directory, step):
      saved = {**self._shapes(step, "model"), **self._shapes(step, "training")}
    training |= {name: saved[name] for name in anew}
    others = _other_shapes(saved, {**model, **training})
    try:
      if any(words.startswith("was ") for words in others.values()):
        raise ValueError("shapes differ")  # Orbax would say so at length, and after reading
      found = self._manager.restore(
        step,
        args=ocp.args.Composite(model=ocp.args.StandardRestore(model), training=ocp.args.StandardRestore(training)),
      )
    except Exception as error:
      with _readable(self._directory, step):
        _read_all(self._directory / str(step))
      if others and self._accepts and not anew and all(name.startswith(OF_THE_DATA) for name in others):
        return self.restore(like, OF_THE_DATA)
      raise UserError(f"{self._directory / str(step)}: {_why_not(others, error)}") from error
    state = TrainState(**found["model"], **found["training"])
    return state.replace(**dict.fromkeys(anew)) if anew else state

  def _shapes(self, step: int, item: str) -> dict[str, Any]:
    """The arrays of an item as they were saved, as jax.ShapeDtypeStruct on one device."""
    tree = self._manager.item_metadata(step)[item].tree
    one = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return {
      name: jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=one), value)
      for name, value in dict(tree).items()
    }

  def close(self) -> None:
    """Waits for the save under way. Raises UserError when it failed, unless that was said before."""
    try:
      if not self._failed:
        self._wait()
    finally:
      self._writer.shutdown()
      with contextlib.suppress(*[Exception] * self._failed):  # it raises again what was said before
        self._manager.close()

  def _write(
    self, state: TrainState, config: Mapping, metrics: Mapping[str, float] | None, data: Mapping[str, Any] | None
  ) -> None:
    self._start(jax.tree.map(np.asarray, state), config, metrics, data)
    self._manager.wait_until_finished()

  def _start(
    self, state: TrainState, config: Mapping, metrics: Mapping[str, float] | None, data: Mapping[str, Any] | None
  ) -> None:
    self._step = int(state.step)
    model, training = _split(state)
    run = {
      "format": FORMAT,
      "mmcontrast": mmcontrast.__version__,
      "config": json.loads(to_json(complete_config(config))),
      "data": data,
    }
    self._manager.save(
      self._step,
      metrics=metrics,
      args=ocp.args.Composite(
        model=ocp.args.StandardSave(model), training=ocp.args.StandardSave(training), run=ocp.args.JsonSave(run)
      ),
    )

  def _wait(self) -> None:
    self._result()
    with self._one_line():
      self._manager.wait_until_finished()

  def _result(self) -> None:
    writing, self._writing = self._writing, None
    with self._one_line():
      if writing is not None:
        writing.result()
      self._manager.check_for_errors()

  @contextlib.contextmanager
  def _one_line(self) -> Iterator[None]:
    try:
      yield
    except Exception as error:  # of many kinds: OSError, ValueError of TensorStore, ...
      self._failed = True
      if distributed.lost_another(error):
        raise
      kept = complete_steps(self._directory)
      intact = f"the last good one, of step {kept[-1]}, is intact" if kept else "there is none before it"
      raise UserError(
        f"{self._directory}: the checkpoint of step {self._step} could not be written "
        f"({_reason(error)}); {intact}: fix that, then run the same command again"
      ) from error


def snapshot(state: TrainState) -> TrainState:
  """A copy of `state` for `Checkpoints.save`; the next step, to which `state` is donated, does not touch it.

  On CPU it is asked for, not waited for: a compiled function makes it behind the steps under way. An accelerator's
  memory may not hold two states, so there it is on the host. Several processes save before the next step, and not
  before the last one has ended on each of their devices: Orbax's barriers are collectives too.
  """
  if jax.process_count() > 1:
    return jax.block_until_ready(state)
  if all(device.platform == "cpu" for device in state.step.devices()):
    return _copy(state)
  jax.tree.map(lambda leaf: leaf.copy_to_host_async(), state)
  return jax.tree.map(np.asarray, state)


def complete_steps(directory: folders.Folder) -> list[int]:
  """The steps of the whole checkpoints in the folder `directory`, which need not exist, in order."""
  return sorted(int(folder.name) for folder in _numbered(directory) if _is_complete(folder))


@contextlib.contextmanager
def disk_errors(workdir: folders.Folder) -> Iterator[None]:
  """Within it, a disk that is full, or that no longer lets a run write, is a UserError which names `workdir`."""
  try:
    yield
  except OSError as error:
    name = os.fsdecode(error.filename or "")
    inside = type(workdir)(name).is_relative_to(workdir)
    if error.errno not in _NO_SPACE and not (inside and error.errno in _NO_ACCESS):
      raise
    raise UserError(
      f"{workdir}: {error.strerror}; the last checkpoint is intact: fix that, then run the same command again"
    ) from error


def save_untrained(workdir: pathlib.Path, config: Mapping, variables: Mapping[str, Any]) -> None:
  """Makes the folder `workdir` a run that has been trained for 0 steps: config.json and a checkpoint.

  It can be loaded, not trained further. `variables`: {"params", "batch_stats"}, numpy or JAX arrays.
  """
  workdir.mkdir(parents=True, exist_ok=True)
  (workdir / "config.json").write_text(to_json(config))
  state = TrainState(jnp.int32(0), **variables, opt_state={}, momentum=None, queues={}, tables={})
  with contextlib.closing(Checkpoints(workdir, config["checkpoint"])) as checkpoints:
    checkpoints.save(jax.tree.map(jnp.asarray, state), config, None)


class SavedRun(NamedTuple):
  """What a checkpoint says of its run: the config with every option, the step, the data (None in older ones)."""

  config: Any
  step: int
  data: Mapping[str, Any] | None


def saved_run(workdir: str | pathlib.Path, step: int | None = None) -> SavedRun:
  """What the newest checkpoint of a run, or of its last stage, says of it, or that of `step`; no array is read.

  Raises UserError when there is no checkpoint, or none of that step, or it is damaged or of another format.
  """
  folder = run_folder(workdir)
  directory = folder.resolve() / "checkpoints"
  train_first = f"train first: mmcontrast train --config ... --workdir {shlex.quote(str(workdir))}"
  if not directory.is_dir():
    if folders.is_store(folder):
      _check_bucket(folder)
    raise UserError(f"{folder}: no checkpoints there; {train_first}")
  steps = complete_steps(directory)
  if not steps:
    raise UserError(f"{workdir}: no complete checkpoint yet; {train_first}")
  step = max(steps) if step is None else step
  if step not in steps:
    raise UserError(f"{workdir}: no checkpoint of step {step}; there are {steps}")
  with _readable(directory, step):
    run = json.loads((directory / str(step) / "run" / "metadata").read_text())
  if run.get("format") != FORMAT:
    raise UserError(
      f"{workdir}: checkpoint format {run.get('format')!r}, this mmcontrast reads {FORMAT}; "
      f"it was written by mmcontrast {run.get('mmcontrast')}"
    )
  # Older checkpoints leave defaults out.
  return SavedRun(complete_config(of_today(from_json(json.dumps(run["config"])))), step, run.get("data"))


def load_run(workdir: str | pathlib.Path, step: int | None = None) -> tuple[Any, dict, int]:
  """The config and the model variables of a run, or of its last stage, as numpy arrays, on any machine.

  The config has every option of towers and heads. The variables are the average of the weights where the
  run keeps one (config.ema), and what LoRA adapted is summed.

  Returns:
    (config, {"params", "batch_stats"}, step).
  Raises UserError when there is no checkpoint, or none of that step, or it is damaged or of another format.
  """
  config, step, _ = saved_run(workdir, step)
  directory = run_folder(workdir).resolve() / "checkpoints"
  with _readable(directory, step):
    model = _read_item(directory / str(step) / "model")
  lora = Lora(**config.get("lora", {}))  # older checkpoints have none
  found = model.get("ema") or {**model, "params": lora.merge(model["params"])}
  return config, found, step


def _split(state: TrainState) -> tuple[dict, dict]:
  fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
  model = {name: fields.pop(name) for name in ("params", "batch_stats", "ema")}
  if model["ema"] is None:
    del model["ema"]
  if not fields["terms"]:  # as before terms had arrays of their own
    del fields["terms"]
  return model, fields


@jax.jit
def _copy(state: TrainState) -> TrainState:
  return jax.tree.map(jnp.copy, state)


def _check_bucket(folder: folders.Folder) -> None:
  try:
    folder.check_bucket()
  except OSError as error:
    raise UserError(f"{folder}: {error.strerror}; give another --workdir, or the right to read that") from error


def _numbered(directory: folders.Folder) -> list[pathlib.Path]:
  return [entry for entry in directory.iterdir() if entry.name.isdigit()] if directory.is_dir() else []


def _is_complete(folder: folders.Folder) -> bool:
  """Whether all that Orbax leaves when it commits is there; a copy or a deletion cut short lacks some."""
  return all((folder / name).is_file() for name in _MARKERS)


def _remove_half_written(directory: folders.Folder) -> None:
  for folder in _numbered(directory):
    if not _is_complete(folder):
      print(f"{folder}: an incomplete checkpoint; removed")
      folders.remove(folder)
  for folder in directory.glob(f"*{_UNDER_WAY}*"):  # Orbax removes them too, some time later
    with contextlib.suppress(OSError):
      folders.remove(folder)


def _reading_back() -> ocp.StandardCheckpointHandler:
  """What writes an item, and looks each of its arrays up again before the checkpoint is committed."""
  handler = ocp.StandardCheckpointHandler()
  finalize = handler.finalize

  def finalize_and_look(directory: Any) -> None:
    finalize(directory)
    handler.metadata(directory)

  handler.finalize = finalize_and_look  # Orbax takes no subclass
  return handler


def _mode_of(options: Mapping[str, Any]) -> str:
  """ "min" or "max" of config.checkpoint.best_metric, which best_mode="auto" takes from its name."""
  mode = choose(options["best_mode"], BEST_MODES, "config.checkpoint.best_mode")
  if mode == "auto":
    return "max" if _MORE_IS_BETTER.search(options["best_metric"]) else "min"
  return mode


@dataclasses.dataclass(frozen=True)
class _Best(checkpoint_managers.PreservationPolicy):
  """Preserves the `count` checkpoints of the best values of `metric`; one that has none does not compete."""

  count: int
  metric: str
  mode: str

  def value(self, metrics: Mapping[str, float] | None) -> float:
    """The higher, the better; -inf without a value."""
    metrics = metrics or {}
    value = metrics.get(self.metric, metrics.get("best", math.nan))  # older checkpoints do not name it
    return -math.inf if not math.isfinite(value) else value if self.mode == "max" else -value

  def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
    del context
    values = [self.value(one.metrics) for one in checkpoints]
    places = [place for place, value in enumerate(values) if value > -math.inf]
    best = sorted(places, key=lambda place: values[place])[max(len(places) - self.count, 0) :]
    return [place in best for place in range(len(checkpoints))]


def _read_item(folder: folders.Folder) -> dict[str, Any]:
  """The arrays of an item of a checkpoint, as they were saved, as numpy arrays."""
  _merge(folder)
  with contextlib.closing(ocp.PyTreeCheckpointHandler()) as handler:
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), dict(handler.metadata(folder).tree))
    return handler.restore(folder, args=ocp.args.PyTreeRestore(restore_args=as_numpy))


def _merge(folder: folders.Folder) -> None:
  """Does what Orbax left out, in a path that it took for a pattern, when it wrote this item (orbax_globs.py)."""
  orbax_globs.mend()
  if folders.is_store(folder):
    orbax_on_stores.mend()
  if not (folder / "manifest.ocdbt").is_file() and any(folder.glob("ocdbt.process_*")):
    with contextlib.closing(ocp.PyTreeCheckpointHandler()) as handler:
      handler.finalize(epath.Path(folder))


def _read_all(folder: folders.Folder) -> None:
  """Raises what reading the arrays of a checkpoint raises; nothing when it is whole."""
  for item in ("model", "training"):
    _read_item(folder / item)


def _other_shapes(saved: Any, wanted: Any) -> dict[str, str]:
  """Path -> what became of it, of the arrays whose shapes differ or that are only in one of the two."""
  old, new = (
    {path_name(path): tuple(leaf.shape) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}
    for tree in (saved, wanted)
  )
  words = {
    name: f"was {list(old[name])} and would be {list(new[name])}"
    for name in old.keys() & new.keys()
    if old[name] != new[name]
  }
  words |= {name: "is no longer there" for name in old.keys() - new.keys()}
  return dict(sorted((words | {name: "is new" for name in new.keys() - old.keys()}).items()))


def _why_not(others: Mapping[str, str], error: Exception) -> str:
  """Why a whole checkpoint is not that of a run, and what to do."""
  if not others:
    return f"the checkpoint is complete, but could not be restored ({_reason(error)}); run the same command again"
  name, what = next(iter(others.items()))
  text = f"the checkpoint is complete, but the state has other shapes: {name} {what}"
  if all(other.startswith(OF_THE_DATA) for other in others):
    return (
      f"{text}: the data (tags, labels, number of examples) have changed; restore them, give another --workdir, "
      "or accept them with --config.checkpoint.changed_data=accept (queues and tables start empty)"
    )
  return (
    f"{text}: the data (vocabulary, tags, labels, number of examples) or the config have changed; restore them, "
    "or give another --workdir"
  )


@contextlib.contextmanager
def _readable(directory: folders.Folder, step: int) -> Iterator[None]:
  """Within it, an error in reading the checkpoint of `step` is one line that names it and the one before."""
  try:
    yield
  except Exception as error:  # of many kinds: ValueError of TensorStore, JSONDecodeError, OSError, ...
    if _is_no_access(error) or not isinstance(error, _OF_THE_FILES):
      raise UserError(
        f"{directory / str(step)}: the checkpoint cannot be read now ({_reason(error)}); it is left as "
        "it is: fix that, then run the same command again"
      ) from error
    before = [other for other in complete_steps(directory) if other < step]
    remedy = (
      f"delete that folder to resume from step {before[-1]}"
      if before
      else "no other is kept: delete that folder to start again; config.checkpoint.keep_last=2 keeps one more"
    )
    raise UserError(f"{directory / str(step)}: the checkpoint is damaged ({_reason(error)}); {remedy}") from error


def _reason(error: Exception) -> str:
  """The error of the system within `error` if there is one, else its first words."""
  text = one_line(error, most=10_000)
  found = re.search(r"([^:]+) \[os_error_code", text)
  return found[1].strip() if found else text[:120]


def _is_no_access(error: Exception) -> bool:
  """Whether an error of reading is of the machine or the mount, and says nothing of what is in the files."""
  if isinstance(error, MemoryError) or getattr(error, "errno", None) in _NO_ACCESS:
    return True
  code = re.search(r"os_error_code='?(\d+)", str(error))
  return int(code[1]) in _NO_ACCESS if code else any(word in str(error) for word in _NO_ACCESS_WORDS)
