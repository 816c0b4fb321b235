"""The state that a run, or a stage of one, starts from: a new one, or that of its newest checkpoint."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from mmcontrast.folders import Folder
from mmcontrast.runs.checkpoint import OF_THE_DATA, Checkpoints, load_run
from mmcontrast.runs.train_state import TrainState
from mmcontrast.training.initialization import initial_arrays
from mmcontrast.training.program import Plan, Program, variable_shapes
from mmcontrast.training.step import init_state


def new_state(plan: Plan, folders: Mapping[str, Folder]) -> TrainState:
  """The state before the first step, with the weights that config.init names, of a stage in `folders` perhaps."""
  program = plan.program
  sources = {name: functools.partial(_saved_variables, folder) for name, folder in folders.items()}
  weights = initial_arrays(plan.config, variable_shapes(program), sources)
  init = jax.jit(functools.partial(init_state, program.method), out_shardings=_shardings(program))
  return init(_zeros(program), weights)


def restored_state(plan: Plan, checkpoints: Checkpoints, data_changed: bool) -> TrainState:
  """The state of the newest checkpoint; where the data have changed, what it knows of examples is made anew."""
  program = plan.program
  state = checkpoints.restore(program.state, OF_THE_DATA if data_changed else ())
  if state.queues is not None:
    return state
  places = _of_the_data(_shardings(program))
  made = jax.jit(lambda batch: _of_the_data(init_state(program.method, batch)), out_shardings=places)
  return state.replace(**made(_zeros(program)))


def _zeros(program: Program) -> Any:
  return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), program.batch)


def _shardings(program: Program) -> TrainState:
  return jax.tree.map(lambda leaf: leaf.sharding, program.state)


def _of_the_data(state: TrainState) -> dict[str, Any]:
  return {name: getattr(state, name) for name in OF_THE_DATA}


def _saved_variables(workdir: Folder) -> dict[str, Any]:
  return load_run(workdir)[1]
