"""A map between the spaces of two models in a file: what `mmcontrast align` writes, and `embed` and `search` apply.

    weight, mean, scale, target_mean, target_scale     float64 arrays of evaluation/adaptation/linear_maps.py
    notes                                              JSON: method, l2, and of `source` and `target` the kind of thing,
                                                       the run, its step and digest, and what kinds its space compares

One .npz file, read without pickle.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from mmcontrast import folders
from mmcontrast.errors import UserError
from mmcontrast.evaluation.adaptation.linear_maps import LinearMap
from mmcontrast.inference.trained_model import Inference


class SpaceMap(NamedTuple):
  """A map, what it leads from and to ("source", "target": see above), and 16 digits that another file does not have."""

  linear: LinearMap
  notes: Mapping[str, Any]
  digest: str = ""

  def rows(self, rows: np.ndarray) -> np.ndarray:
    """Unit rows float32 [N, E] of the target's space, of rows [N, D] of the source's."""
    return self.linear.apply(rows)

  def check_model(self, model: Inference, kind: str, where: str) -> None:
    """Raises UserError, which begins with `where`, unless things of `kind`, embedded by `model`, can be mapped: it
    is the model that the map leads from, and the kind is the map's, or one of the same space."""
    source = self.notes["source"]
    if model.digest != source["digest"]:
      raise UserError(
        f"{where}: the map leads from the space of another model (of {source['workdir']}); give that run, or align "
        "again"
      )
    if kind not in (source["kind"], *source["compared"]):
      raise UserError(
        f"{where}: the map leads from {source['kind']} embeddings, which this run compares with "
        f"{' and '.join(source['compared']) or 'nothing'}, not with {kind}"
      )


def check_path(path: str | os.PathLike) -> folders.Folder:
  """Where a map is written; UserError for a name of another ending."""
  path = folders.at(path, "--out")
  if path.suffix != ".npz":
    raise UserError(f"--out {path}: a map is a .npz file; give {path.with_name(path.name + '.npz').name}")
  return path


def save(path: str | os.PathLike, linear: LinearMap, notes: Mapping[str, Any]) -> folders.Folder:
  """Writes a map; one that is there under this name is made anew. Raises UserError where it cannot be written."""
  path = check_path(path)
  try:
    folders.make(path.parent, "--out")
    with folders.written(path) as scratch, scratch.open("wb") as file:
      np.savez(file, notes=np.array(json.dumps(notes)), **linear._asdict())
  except OSError as error:
    raise UserError(f"--out {path}: cannot be written ({error.strerror or error})") from None
  return path


def read(path: str | os.PathLike, option: str = "--map") -> SpaceMap:
  """The map in a file. Raises UserError where there is none."""
  file = folders.at(path, option)
  if not file.is_file():
    raise UserError(f"{option} {path}: no such file; make one: mmcontrast align FIRST SECOND --out {path}")
  try:
    with folders.fetched(file) as local, np.load(local) as arrays:
      linear = LinearMap(*(arrays[name] for name in LinearMap._fields))
      notes = json.loads(str(arrays["notes"]))
      for side in ("source", "target"):
        notes[side]["digest"], notes[side]["kind"], notes[side]["compared"]
      return SpaceMap(linear, notes, hashlib.blake2b(local.read_bytes(), digest_size=8).hexdigest())
  except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
    raise UserError(f"{option} {path}: is no map of spaces, which `mmcontrast align` writes") from None
