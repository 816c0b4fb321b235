"""Where parameters come from that are not drawn at random: `config.init`.

    init={"towers/image": "pretrain:towers/image",   # an earlier stage of this run
          "heads/text_joint": "runs/clip:heads/text_joint",  # another run's folder
          "towers/text": "hf:weights/bert",           # a file of another package
          "heads": (("runs/a:heads", 0.5), ("runs/b:heads", 0.5)),  # a weighted sum
          "towers/text": dict(experts=("first:towers/text", "second:towers/text")),  # an MLP of each
          "*": "masked:*"}                           # everything

A key is a part of this run: a path in its parameters, "*" for all. A value is "WHERE:PATH", the
same kind of path in the newest checkpoint of WHERE. Batch statistics travel with the parameters.
Both parts must have the same arrays, by name and shape, whether blocks are one by one or in a loop
(encoders/layers.py); the optimizer starts anew. Of another
package's file ("KIND:PATH": interop/formats.py) the architecture, the ids of tokens and the
normalisation of images must be this run's too; `:PATH` may be left out where it is the key.
Weights that were trained from the same start may be summed, by weights whose sum is 1: between a
model and what it was fine-tuned to (WiSE-FT, Wortsman et al., arXiv:2109.01903; `mmcontrast
interpolate` makes a run of that), or over several runs (model soups, arXiv:2203.05482).
A tower with experts takes one without: its MLP is that of all of them (sparse upcycling, arXiv:2212.05055), or expert e
is the MLP of source e of `experts`, over again where these are fewer, and all else the first source's (CLIP-MoE,
arXiv:2409.19291). Gates that a source has not stay as they were drawn.
A text tower of a larger `max_length` than its source's has the positions stretched: the first 20 stay, those behind are
interpolated (Long-CLIP, arXiv:2403.15378).
"""

from __future__ import annotations

import math
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mmcontrast.encoders.layers import layers_as
from mmcontrast.encoders.positions import stretched
from mmcontrast.errors import UserError, nearest
from mmcontrast.folders import at, of_store
from mmcontrast.interop import initial
from mmcontrast.interop.formats import FORMATS
from mmcontrast.models.finite import check_weights
from mmcontrast.parameter_paths import path_name
from mmcontrast.runs.checkpoint import load_run

COLLECTIONS = ("params", "batch_stats")
Arrays = dict[str, Any]  # "params/towers/image/patch_embed/kernel" -> array


def initial_arrays(
  config: Mapping[str, Any], variables: Mapping[str, Any], stages: Mapping[str, Callable[[], Mapping[str, Any]]]
) -> Arrays:
  """The arrays that `config.init` names, by their path in this run.

  Args:
    config: of this run.
    variables: {"params", "batch_stats"} of this run; shapes will do.
    stages: name of an earlier stage -> a function that gives its variables, or their shapes.
  Raises UserError for a part, a place or a path that does not exist, for parts that overlap, where two parts
  do not have the same names and shapes, and for weights that are not finite.
  """
  target, arrays = _flat(variables), {}
  for part, entry in config["init"].items():
    where = f"config.init[{part!r}]"
    wanted = _part(target, part, where, "this run")
    experts = isinstance(entry, Mapping)
    weights = _sources_of_experts(entry, where) if experts else _weights(entry, where)
    sources = [_arrays_of_source(source, part, wanted, target, config, stages, where) for source in weights]
    made = upcycled(sources) if experts else {
      name: _sum([source[name] for source in sources], list(weights.values())) for name in sources[0]
    }  # fmt: skip
    new = {_join(part, name): leaf for name, leaf in made.items()}
    if both := sorted(new.keys() & arrays.keys()):
      raise UserError(
        f"{where}: {both[0].partition('/')[2]!r} is set by another entry of config.init too; name each parameter once"
      )
    check_weights({name: leaf for name, leaf in new.items() if not isinstance(leaf, jax.ShapeDtypeStruct)}, where)
    arrays.update(new)
  return arrays


def _weights(entry: Any, where: str) -> dict[str, float]:
  """The sources that an entry names, and what each weighs."""
  if isinstance(entry, str):
    return {entry: 1.0}
  try:
    weights = {source: float(weight) for source, weight in entry}
  except (TypeError, ValueError):
    raise UserError(
      f"{where}: {entry!r} is neither 'WHERE:PATH', such as 'pretrain:towers/image', nor several (source, weight)"
    ) from None
  if not math.isclose(sum(weights.values()), 1.0, abs_tol=1e-6):
    raise UserError(f"{where}: the weights {list(weights.values())} sum to {sum(weights.values()):g}; make it 1")
  return weights


def _sources_of_experts(entry: Mapping, where: str) -> dict[str, float]:
  """The sources of an entry whose experts come from several."""
  sources = entry.get("experts", ())
  if (
    set(entry) != {"experts"} or isinstance(sources, str) or not sources or not all(isinstance(s, str) for s in sources)
  ):
    raise UserError(f"{where}: {dict(entry)!r} is not dict(experts=('WHERE:PATH', ...)), the source of each expert")
  return dict.fromkeys(sources, 1.0)


def upcycled(sources: Sequence[Arrays]) -> Arrays:
  """Expert e as source e has it, over again where these are fewer; all else as the first has it."""
  made = {}
  for name in sources[0]:
    expert = _EXPERT.search(name)
    made[name] = sources[int(expert[1]) % len(sources) if expert else 0][name]
  return made


def _dense_as_experts(wanted: Arrays, arrays: Arrays) -> Arrays:
  """The arrays of a part without experts as one with them is called: each MLP as often as it has experts."""
  if not any(map(_EXPERT.search, wanted)) or any(map(_EXPERT.search, arrays)):
    return arrays
  spread = {name: arrays[dense] for name in wanted if (dense := _EXPERT.sub("", name)) in arrays}
  used = {_EXPERT.sub("", name) for name in spread}
  return spread | {name: leaf for name, leaf in arrays.items() if name not in used}


def _as_long(wanted: Arrays, arrays: Arrays, where: str) -> Arrays:
  """The arrays of a part, learned positions of texts [L, D] stretched to those of a longer tower (Long-CLIP)."""
  made = dict(arrays)
  for name, leaf in arrays.items():
    like = wanted.get(name)
    if not name.endswith("/pos_embed") or like is None or leaf.ndim != 2 or like.shape[0] <= leaf.shape[0]:
      continue
    end = int(f"{name.removesuffix('pos_embed')}cls_token" in wanted)  # that of a token behind the text stays the last

    is_shape = isinstance(leaf, jax.ShapeDtypeStruct)
    array = np.zeros(leaf.shape, leaf.dtype) if is_shape else np.asarray(leaf)
    text, behind = np.split(array, [len(array) - end])
    try:
      found = np.concatenate([stretched(text, like.shape[0] - end), behind])
    except UserError as error:
      raise UserError(f"{where}: {name.partition('/')[2]!r}: {error}; give the tower their max_length") from None
    made[name] = jax.ShapeDtypeStruct(found.shape, found.dtype) if is_shape else found
  return made


_EXPERT = re.compile(r"/experts_(\d+)(?=/)")
_GATE = re.compile(r"/mlp/gate/kernel$")


def _arrays_of_source(
  source: str,
  part: str,
  wanted: Arrays,
  target: Arrays,
  config: Mapping[str, Any],
  stages: Mapping[str, Callable[[], Any]],
  where: str,
) -> Arrays:
  """The arrays of one source that are wanted, by collection and the rest of their path."""
  place, colon, path = source.rpartition(":")
  if not (place and colon):
    raise UserError(f"{where}: {source!r} is not 'WHERE:PATH', such as 'pretrain:towers/image'")
  if source.partition(":")[0] not in stages and initial.is_of_a_format(source):
    path, opened = initial.open_part(source, part, target, config, where)
  else:
    opened = _flat(_open(place, stages, where))
  arrays = _dense_as_experts(wanted, layers_as(wanted, _part(opened, path, f"{where}={source!r}", place)))
  arrays = _as_long(wanted, arrays, f"{where}={source!r}")
  _check_same({name: leaf for name, leaf in wanted.items() if name in arrays or not _GATE.search(name)}, arrays,
              f"{where}={source!r}")  # fmt: skip
  return arrays


def _sum(arrays: Sequence[Any], weights: Sequence[float]) -> Any:
  """The weighted sum in the type of the first; of shapes, the first."""
  if len(arrays) == 1 or any(isinstance(array, jax.ShapeDtypeStruct) for array in arrays):
    return arrays[0]
  return sum(weight * np.asarray(array) for weight, array in zip(weights, arrays)).astype(arrays[0].dtype)


def _open(place: str, stages: Mapping[str, Callable[[], Any]], where: str) -> Mapping[str, Any]:
  """The variables of an earlier stage, or of a run by its folder."""
  if place in stages:
    return stages[place]()
  if not (at(place, where) if of_store(place) else pathlib.Path(place)).is_dir():
    known = nearest(place, stages) if stages else "there is no earlier stage"
    raise UserError(
      f"{where}: {place!r} is neither an earlier stage nor the folder of a run, nor a file of a known "
      f"kind ({', '.join(FORMATS)}); {known}"
    )
  return load_run(place)[1]


def _flat(variables: Mapping[str, Any]) -> Arrays:
  kept = {name: variables[name] for name in COLLECTIONS}
  return {path_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(kept)[0]}


def _part(arrays: Arrays, part: str, where: str, owner: str) -> Arrays:
  """The arrays under the path `part`, by collection and the rest of their path."""
  prefix = "" if part == "*" else part
  inside = {}
  for name, leaf in arrays.items():
    collection, _, path = name.partition("/")
    if not prefix or path == prefix or path.startswith(f"{prefix}/"):
      inside[f"{collection}/{path[len(prefix) :].lstrip('/')}"] = leaf
  if not any(name.startswith("params/") for name in inside):
    paths = [name.partition("/")[2].split("/") for name in arrays if name.startswith("params/")]
    parts = {"/".join(path[:length]) for path in paths for length in (2, part.count("/") + 1)}
    raise UserError(f"{where}: {owner} has no parameters under {part!r}; {nearest(part, parts)}")
  return inside


def _join(part: str, name: str) -> str:
  collection, _, rest = name.partition("/")
  return "/".join(word for word in (collection, "" if part == "*" else part, rest) if word)


def _check_same(wanted: Arrays, found: Arrays, where: str) -> None:
  for collection in COLLECTIONS:
    here, there = (
      {name.partition("/")[2]: leaf.shape for name, leaf in arrays.items() if name.startswith(f"{collection}/")}
      for arrays in (wanted, found)
    )
    if missing := sorted(here.keys() - there.keys()):
      raise UserError(f"{where}: the source has no {missing[0]!r}; {nearest(missing[0], there)}")
    if unused := sorted(there.keys() - here.keys()):
      raise UserError(f"{where}: this run has no place for the source's {unused[0]!r}; {nearest(unused[0], here)}")
    for name, shape in here.items():
      if tuple(shape) != tuple(there[name]):
        raise UserError(
          f"{where}: {name!r} has the shape {list(there[name])} in the source and {list(shape)} here; "
          "make the two alike"
        )
