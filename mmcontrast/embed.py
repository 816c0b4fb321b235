"""`mmcontrast embed SOURCE --workdir RUN --out DIR`: the embeddings of any source of data.

Shard by shard; the same command goes on where a killed one stopped, and makes again the shards whose records have
changed. What the folder holds is in embeddings.py.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from mmcontrast.called import call_as
from mmcontrast.data.sources import Source, open_source
from mmcontrast.errors import UserError, choose, one_line
from mmcontrast.inference import Inference, load, space_map
from mmcontrast.inference.embed_records import Embedder, progress, some, wanted_of
from mmcontrast.inference.embeddings import Embeddings, begin, remove_scratch
from mmcontrast.modalities import MODALITIES

RECORDS_A_SHARD = 10_000
_SEVERAL = {"both": ("image", "text")}
_ENOUGH_SEEN = 10_000  # records, before which a share of bad ones says little


def embed(
  workdir: str | os.PathLike,
  dataset: str,
  out: str | os.PathLike,
  *,
  options: Mapping | None = None,
  split: str = "train",
  kind: str | None = None,
  format: str = "npy",
  step: int | None = None,
  width: int | None = None,
  to_space: str | os.PathLike | None = None,
  data_dir: str | None = None,
) -> str:
  """Embeds all images, captions and what else the run knows of a source; returns what was done, in a line or more.

  A bad record is left out and counted, by `data.on_error` of the run. A shard that is done is made again when its
  records are not those it was made of (data/sources/keys.py).

  Args:
    workdir: the run.
    dataset, options, split: as `data.dataset`, `data.source` and `data.split` of a config.
    out: the folder of the embeddings.
    kind: a modality, such as "image", or several as "image,audio", or "both" (images and captions); None: what both the
      source and the run have.
    format: "npy" or "parquet".
    step: the checkpoint of this step instead of the newest.
    width: how many of the first numbers of the joint space's vectors are kept, as of `load`.
    to_space: a file of `mmcontrast align`, by which the vectors are mapped into the space of another run.
  Raises UserError: no such run or source; either lacks the kind; `out` holds something else, or the embeddings of
  another model; an embedding that is not finite; too many bad records.
  """
  source = open_source({"dataset": dataset, "source": options or {}}, split, data_dir)
  model = load(workdir, step, data_dir).at_width(width)
  kinds = _kinds(kind, source, model)
  mapped = None if to_space is None else space_map.read(to_space)
  for one in kinds if mapped else ():
    mapped.check_model(model, one, f"--map {to_space}")
  there = begin(
    out,
    {
      "format": format,
      "kinds": kinds,
      "records": len(source),
      "records_a_shard": RECORDS_A_SHARD,
      "model": {
        "workdir": os.fspath(workdir),
        "step": model.step,
        "digest": model.digest,
        **({"width": model.width} if model.width else {}),
        **({"map": mapped.digest} if mapped else {}),
      },
      "compared": {one: list((model.space.joint or {}).get(one, ())) for one in kinds},
      **({"space": mapped.notes["target"]} if mapped else {}),
      "source": {"dataset": dataset, "options": dict(options or {}), "split": split, "data_dir": data_dir},
    },
  )
  done, size, changed = set(there.done), there.manifest["records_a_shard"], []
  with Embedder(model, source, wanted_of(kinds, model)) as embedder, progress(len(source)) as advance:
    for shard in range(there.manifest["shards"]):
      indices = range(shard * size, min((shard + 1) * size, len(source)))
      if shard in done and embedder.digest(indices) == there.digest(shard):
        advance(len(indices))
        continue
      changed += [shard] if shard in done else []
      part = embedder.embed(indices, advance)
      try:
        rows = (
          {name: one._replace(rows=mapped.rows(one.rows)) for name, one in part.rows.items()} if mapped else part.rows
        )
        there.write(shard, rows, part.bad, part.digest)
      except OSError as error:
        raise UserError(
          f"{out}: cannot be written ({one_line(error)}); run the same command again when there is "
          "space: what is done is kept"
        ) from error
      _check_share(there, indices.stop, model.data["on_error"]["max_share"])
  remove_scratch(there.folder)
  if changed:
    print(
      f"{out}: the records of {len(changed)} shards have changed since they were embedded "
      f"({', '.join(map(str, changed[:5]))}{', ...' if len(changed) > 5 else ''}); they are embedded again",
      file=sys.stderr,
    )
  bad = there.bad()
  counts = " and ".join(f"{sum(there.counts(kind))} {MODALITIES[kind].nouns}" for kind in kinds)
  lines = [
    f"{counts} of {len(source) - len(bad)} records in {there.manifest['shards']} shards of {out}; search them "
    f"with --embeddings {out}"
  ]
  return "\n".join([*lines, *([f"{len(bad)} bad records left out: {some(bad)}"] if bad else [])])


def _kinds(kind: str | None, source: Source, model: Inference) -> list[str]:
  if model.compares_tokens:
    raise UserError("--workdir: this model compares tokens and has no single vector; embed with another run")
  wanted = list(MODALITIES) if kind is None else list(_SEVERAL.get(kind, kind.split(",")))
  able = {one: model.kind_of(one) in model.kinds for one in MODALITIES}
  has = {one: bool(modality.columns(source.info)) for one, modality in MODALITIES.items()}
  for one in wanted:
    choose(one, [*MODALITIES, *_SEVERAL], "--kind")
  found = [one for one in wanted if able[one] and has[one]]
  if not found or (kind is not None and found != wanted):
    lacks = next(one for one in wanted if one not in found)
    who = (
      f"{source.info.name} has no {MODALITIES[lacks].nouns}"
      if not has[lacks]
      else f"this run has no head for it: config.evaluation.{lacks} names none"
    )
    fits = [one for one in MODALITIES if able[one] and has[one]]
    raise UserError(f"--kind {kind or lacks}: {who}" + (f"; --kind {','.join(fits)} can be embedded" if fits else ""))
  return found


def _check_share(there: Embeddings, seen: int, share: float) -> None:
  """UserError when too many of the records seen are bad; their shards are to be made again."""
  bad, records = there.bad(), there.manifest["records"]
  if len(bad) <= share * max(seen, min(records, _ENOUGH_SEEN)):
    return
  for index in bad:
    there.forget(index // there.manifest["records_a_shard"])
  raise UserError(
    f"{len(bad)} of {seen} records are bad, more than the run's data.on_error.max_share={share:g}: "
    f"{some(bad)}; fix the data and run the same command again"
  )


call_as(__name__, embed)
