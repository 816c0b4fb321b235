"""`mmcontrast align FIRST SECOND --out MAP.npz`: a map from one model's space into another's, fitted on embeddings.

FIRST and SECOND are folders that `mmcontrast embed` made of the same records, by two runs or by one. The map is in
closed form (evaluation/adaptation/linear_maps.py), and is measured by retrieval among records that it is not fitted to.
`mmcontrast search --map` searches SECOND with queries of the first run, `mmcontrast embed --map` puts more things into
the second space.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mmcontrast.called import call_as
from mmcontrast.errors import UserError, choose
from mmcontrast.evaluation.adaptation.linear_maps import METHODS, LinearMap, fit, held_out_retrieval
from mmcontrast.evaluation.labelled import held_out_concepts
from mmcontrast.evaluation.matches import Matches, matches_of
from mmcontrast.evaluation.protocols import described
from mmcontrast.inference import space_map
from mmcontrast.inference.embeddings import Embeddings
from mmcontrast.modalities import MODALITIES

PROTOCOL = "linear_maps-v1"
_PREPARED = "as `mmcontrast embed` made them: by the config of each run"  # images and texts
_SHOWN = ("recall@1", "recall@5", "recall@10", "median_rank")


class Aligned(NamedTuple):
  """What `align` measured: method ("none": as the vectors are) -> held-out retrieval, and how it is said."""

  retrieval: dict[str, dict[str, float]]
  text: str


class _Side(NamedTuple):
  """The embeddings of one kind in a folder: rows [N, D], and int or text of each row by column."""

  there: Embeddings
  kind: str
  rows: np.ndarray
  columns: dict[str, np.ndarray]


def align(
  first: str | os.PathLike,
  second: str | os.PathLike,
  out: str | os.PathLike,
  *,
  kinds: str | Sequence[str] | None = None,
  method: str = "ridge",
  l2: float = 1.0,
  held_out: float = 0.2,
  seed: int = 0,
) -> Aligned:
  """Fits a map from the space of `first` into that of `second`, measures it on held-out records, and writes it.

  Things of one record belong together: all of one kind with all of the other, or, of the same kind, the same drawing
  (caption) in both. All methods are measured, and `method` is written, fitted to all but the held-out records.

  Args:
    first, second: folders of embeddings, of the same source.
    out: the .npz file.
    kinds: of `first` and of `second`, such as "image,text"; None: where each has one, or both have the same.
    method: "least_squares", "ridge", "procrustes" or "robust_procrustes".
    l2: of "ridge".
    held_out: share of the ids that are measured; seed: which.
  Raises UserError: no such embeddings, of different sources or not whole; kinds that are not there; too few records.
  """
  choose(method, METHODS, "--method")
  space_map.check_path(out)
  if not 0 < held_out < 1:
    raise UserError(f"--held_out {held_out:g}: a share of the records, between 0 and 1, such as 0.2")
  folders = [Embeddings(first), Embeddings(second)]
  _check_sources(folders)
  sides = [_side(there, kind) for there, kind in zip(folders, _kinds(kinds, folders))]
  one, other = sides
  places = _pairs(one, other)
  if len(set(one.columns["id"][places[0]].tolist())) < 3:
    raise UserError(f"{second}: fewer than three records have {one.kind} there and {other.kind} here to be paired")
  tested = held_out_concepts(one.columns["id"], held_out, seed)
  tested_ids = np.unique(one.columns["id"][tested])
  fitted_to = places[:, ~tested[places[0]]]
  x, y = one.rows[fitted_to[0]], other.rows[fitted_to[1]]
  if len(x) < 2:
    raise UserError(
      f"--held_out {held_out:g}: leaves {len(x)} pairs to fit a map to, and it takes two; give a smaller share"
    )
  maps: dict[str, LinearMap | None] = {"none": None} if x.shape[1] == y.shape[1] else {}
  maps |= {name: fit(x, y, name, l2) for name in METHODS}
  queries, gallery = (np.flatnonzero(np.isin(side.columns["id"], tested_ids)) for side in sides)
  matches = _matches(one, other, queries, gallery)
  found = {
    name: held_out_retrieval(one.rows[queries], other.rows[gallery], matches, fitted) for name, fitted in maps.items()
  }
  by = described(PROTOCOL, held_out=held_out, seed=seed, kinds=f"{one.kind}, {other.kind}", prepared=_PREPARED)
  notes = {"method": method, "l2": l2, "source": _notes(one), "target": _notes(other), "pairs": len(x), "protocol": by}
  path = space_map.save(out, maps[method], notes)
  return Aligned(found, _said(found, sides, (len(queries), len(gallery)), len(x), method, path))


def _check_sources(folders: Sequence[Embeddings]) -> None:
  one, other = (
    {name: there.manifest["source"].get(name) for name in ("dataset", "options", "split", "kept")} for there in folders
  )
  if one != other:
    raise UserError(
      f"{folders[1].folder}: embeddings of {other['dataset']} ({other['split']}), and {folders[0].folder} holds those "
      f"of {one['dataset']} ({one['split']}); embed the same source with both runs"
    )
  for there in folders:
    if "space" in there.manifest or "width" in there.manifest["model"]:
      raise UserError(
        f"{there.folder}: holds vectors that were mapped or cut; align those of whole vectors (mmcontrast embed "
        "without --map and --width)"
      )
    if missing := there.manifest["shards"] - len(there.done):
      raise UserError(
        f"{there.folder}: {missing} of {there.manifest['shards']} shards are not made yet; run mmcontrast embed again"
      )


def _kinds(kinds: str | Sequence[str] | None, folders: Sequence[Embeddings]) -> list[str]:
  has = [there.manifest["kinds"] for there in folders]
  if kinds is None:
    if len(has[0]) == len(has[1]) == 1 or (has[0] == has[1] and len(has[0]) == 1):
      return [has[0][0], has[1][0]]
    raise UserError(
      f"--kinds: {folders[0].folder} has {' and '.join(has[0])}, {folders[1].folder} {' and '.join(has[1])}; say which "
      f"are aligned, such as --kinds {has[0][0]},{has[1][-1]}"
    )
  names = kinds.split(",") if isinstance(kinds, str) else list(kinds)
  if len(names) != 2:
    raise UserError(f"--kinds {kinds}: give two, of the first folder and of the second, such as image,text")
  return [choose(name, of, f"--kinds: of {there.folder}") for name, of, there in zip(names, has, folders)]


def _side(there: Embeddings, kind: str) -> _Side:
  if not sum(there.counts(kind)):
    raise UserError(f"{there.folder}: has no {kind} embeddings")
  rows = np.concatenate([np.asarray(part) for part in there.rows(kind)])
  described = there.describe(kind, np.arange(len(rows)))
  columns = {name: np.array([one[name] for one in described]) for name in described[0]}
  return _Side(there, kind, rows, columns)


def _pairs(one: _Side, other: _Side) -> np.ndarray:
  """int [2, P]: places of rows of both that belong together."""
  key = MODALITIES[one.kind].key if one.kind == other.kind else None
  places: dict[Any, list[int]] = {}
  for place, name in enumerate(_names(other, key)):
    places.setdefault(name, []).append(place)
  pairs = [(place, match) for place, name in enumerate(_names(one, key)) for match in places.get(name, ())]
  return np.array(pairs, np.int64).reshape(-1, 2).T


def _names(side: _Side, key: str | None) -> list[Any]:
  """What rows of one record, and one drawing of it, have in common."""
  index = side.columns["index"].tolist()
  return index if key is None else list(zip(index, side.columns[key].tolist()))


def _matches(one: _Side, other: _Side, queries: np.ndarray, gallery: np.ndarray) -> Matches:
  """Things of one id match; texts that are written alike are one."""
  ids = [side.columns["id"][places] for side, places in ((one, queries), (other, gallery))]
  groups = [
    side.columns["text"][places] if MODALITIES[side.kind].words else None
    for side, places in ((one, queries), (other, gallery))
  ]
  return matches_of(*ids, *groups)


def _notes(side: _Side) -> dict[str, Any]:
  model = side.there.manifest["model"]
  return {
    "kind": side.kind,
    "workdir": model["workdir"],
    "step": model["step"],
    "digest": model["digest"],
    "compared": side.there.manifest.get("compared", {}).get(side.kind, []),
  }


def _said(found, sides: Sequence[_Side], counts: Sequence[int], pairs: int, method: str, path: os.PathLike) -> str:
  one, other = (MODALITIES[side.kind].nouns for side in sides)
  lines = [f"held out: {counts[0]} {one} and {counts[1]} {other}; fitted to {pairs} pairs"]
  head = "".join(f"{name:>13}" for name in _SHOWN)
  ways = {"there": f"{one} find {other}", "back": f"{other} find {one}"}
  for way, title in ways.items():
    lines.append(f"{title:<24}{head}")
    for name, values in found.items():
      numbers = [values[f"{way}/{metric}"] for metric in _SHOWN]
      lines.append(f"  {name:<22}" + "".join(f"{100 * x:>12.1f}%" for x in numbers[:-1]) + f"{numbers[-1]:>13g}")
  if "none" not in found:
    lengths = [side.rows.shape[1] for side in sides]
    lines.append(f"none: vectors of {lengths[0]} and of {lengths[1]} numbers cannot be compared without a map")
  return "\n".join(
    [*lines, f"by {PROTOCOL}, equal scores against the map", f"{path}: {method}; apply it with --map {path}"]
  )


call_as(__name__, align)
