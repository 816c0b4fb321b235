"""`mmcontrast embed SOURCE --workdir RUN --out DIR`: the embeddings of any source of data.

Shard by shard; the same command goes on where a killed one stopped, and makes again the shards whose records have
changed. What the folder holds is in embeddings.py, how machines share the work in bulk.py.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Mapping

from mmcontrast.bulk import make_shards, of_part
from mmcontrast.called import call_as
from mmcontrast.data.made_shards import Made, Part, read_part
from mmcontrast.data.sources import Source, open_source
from mmcontrast.errors import UserError, choose, one_line
from mmcontrast.inference import Inference, load, space_map
from mmcontrast.inference.embed_records import Embedder, progress, some, wanted_of
from mmcontrast.inference.embeddings import begin
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
  kept: str = "",
  kind: str | None = None,
  format: str = "npy",
  step: int | None = None,
  width: int | None = None,
  to_space: str | os.PathLike | None = None,
  part: str | None = None,
  ray: str | None = None,
  data_dir: str | None = None,
) -> str:
  """Embeds all images, captions and what else the run knows of a source; returns what was done, in a line or more.

  A bad record is left out and counted, by `data.on_error` of the run. A shard that is done is made again when its
  records are not those it was made of (data/sources/keys.py).

  Args:
    workdir: the run.
    dataset, options, split, kept: as `data.dataset`, `data.source`, `data.split` and `data.kept` of a config.
    out: the folder of the embeddings.
    kind: a modality, such as "image", or several as "image,audio", or "both" (images and captions); None: what both the
      source and the run have.
    format: "npy" or "parquet".
    step: the checkpoint of this step instead of the newest.
    width: how many of the first numbers of the joint space's vectors are kept, as of `load`.
    to_space: a file of `mmcontrast align`, by which the vectors are mapped into the space of another run.
    part: "2/8", the third of eight: only its shards are made; None: all.
    ray: the address of a Ray cluster whose machines make the shards, or "auto"; None: this process does.
  Raises UserError: no such run or source; either lacks the kind; `out` holds something else, or the embeddings of
  another model; an embedding that is not finite; too many bad records; no such part or cluster.
  """
  its = read_part(part)
  source = {"dataset": dataset, "options": dict(options or {}), "split": split, "data_dir": data_dir, "kept": kept}
  start = functools.partial(
    _Shards, os.fspath(workdir), source, os.fspath(out), kind, format, step, width, to_space, its
  )
  with start() as here:  # which says what is wrong before a cluster is asked
    there, kinds = here.shards, here.kinds
    records = sum(len(there.records(shard)) for shard in its.of_all(there.manifest["shards"]))
    with progress(records) as advance:
      made = make_shards(start if ray else lambda: here, there, its, ray, advance)
  if changed := [one.shard for one in made if one.changed]:
    print(
      f"{out}: the records of {len(changed)} shards have changed since they were embedded "
      f"({', '.join(map(str, changed[:5]))}{', ...' if len(changed) > 5 else ''}); they are embedded again",
      file=sys.stderr,
    )
  bad = there.bad()
  more = [f"{len(bad)} bad records left out: {some(bad)}"] if bad else []
  if missing := of_part(there, its):
    return "\n".join([missing, *more])
  counts = " and ".join(f"{sum(there.counts(kind))} {MODALITIES[kind].nouns}" for kind in kinds)
  lines = [
    f"{counts} of {there.manifest['records'] - len(bad)} records in {there.manifest['shards']} shards of {out}; search "
    f"them with --embeddings {out}"
  ]
  return "\n".join([*lines, *more])


class _Shards:
  """Embeds shards; a context."""

  def __init__(
    self,
    workdir: str,
    source: Mapping,
    out: str,
    kind: str | None,
    format: str,
    step: int | None,
    width: int | None,
    to_space: str | os.PathLike | None,
    part: Part,
  ):
    opened = open_source(
      {"dataset": source["dataset"], "source": source["options"], "kept": source["kept"]},
      source["split"],
      source["data_dir"],
    )
    model = load(workdir, step, source["data_dir"]).at_width(width)
    self.kinds = _kinds(kind, opened, model)
    self._mapped = None if to_space is None else space_map.read(to_space)
    for one in self.kinds if self._mapped else ():
      self._mapped.check_model(model, one, f"--map {to_space}")
    self.shards = begin(
      out,
      {
        "format": format,
        "kinds": self.kinds,
        "records": len(opened),
        "records_a_shard": RECORDS_A_SHARD,
        "model": {
          "workdir": workdir,
          "step": model.step,
          "digest": model.digest,
          **({"width": model.width} if model.width else {}),
          **({"map": self._mapped.digest} if self._mapped else {}),
        },
        "compared": {one: list((model.space.joint or {}).get(one, ())) for one in self.kinds},
        **({"space": self._mapped.notes["target"]} if self._mapped else {}),
        "source": {name: value for name, value in source.items() if name != "kept" or value},
      },
    )
    self._max_share = model.data["on_error"]["max_share"]
    self._records = sum(len(self.shards.records(shard)) for shard in part.of_all(self.shards.manifest["shards"]))
    self._seen, self._bad = 0, dict[int, str]()
    self._embedder = Embedder(model, opened, wanted_of(self.kinds, model))

  def __enter__(self) -> _Shards:
    self._embedder.__enter__()
    return self

  def __exit__(self, *error: object) -> None:
    self._embedder.__exit__(*error)

  def __call__(self, shard: int, advance: Callable[[int], None]) -> Made:
    indices, there = self.shards.records(shard), self.shards
    was_there = there.is_done(shard)
    if not was_there or self._embedder.digest(indices) != there.digest(shard):
      part = self._embedder.embed(indices, advance)
      try:
        rows = part.rows
        if self._mapped:
          rows = {name: one._replace(rows=self._mapped.rows(one.rows)) for name, one in rows.items()}
        there.write(shard, rows, part.bad, part.digest)
      except OSError as error:
        raise UserError(
          f"{there.folder}: cannot be written ({one_line(error)}); run the same command again when there is "
          "space: what is done is kept"
        ) from error
      self._check_share(shard, indices)
      return Made(shard, was_there)
    advance(len(indices))
    self._check_share(shard, indices)
    return Made(shard)

  def _check_share(self, shard: int, indices: range) -> None:
    """UserError when too many of the records seen are bad; their shards are to be made again."""
    self._seen, self._bad = self._seen + len(indices), self._bad | self.shards.bad_of(shard)
    if len(self._bad) <= self._max_share * max(self._seen, min(self._records, _ENOUGH_SEEN)):
      return
    for index in self._bad:
      self.shards.forget(index // self.shards.manifest["records_a_shard"])
    raise UserError(
      f"{len(self._bad)} of {self._seen} records are bad, more than the run's data.on_error.max_share="
      f"{self._max_share:g}: {some(self._bad)}; fix the data and run the same command again"
    )


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


call_as(__name__, embed)
