"""`mmcontrast data convert SOURCE --to array_record --out DIR`: any source as ArrayRecord files.

A file appears only when it is complete, and metadata.json when all are, so the same command takes
up a conversion that was interrupted. Records stay as they are stored: nothing is decoded.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pathlib
from collections.abc import Mapping

from mmcontrast.data import made_shards, parallel
from mmcontrast.data.made_shards import MadeShards, read_part
from mmcontrast.data.sources import BadRecord, Source, array_record, open_source
from mmcontrast.errors import UserError, one_line

RECORDS_A_FILE = 10_000  # where the number of files is not given
MOST_BAD = 0.01  # share of the records; a conversion with more is refused
_PLAN = ".conversion.json"  # what is being converted, until it is done
_SHOWN = 5  # bad records that are named


def convert(
  dataset: str,
  options: Mapping,
  split: str,
  out: str | os.PathLike,
  shards: int | None = None,
  workers: int | None = None,
  data_dir: str | os.PathLike | None = None,
  part: str | None = None,
) -> str:
  """Converts a source and returns what was done, in a line or more. Records keep their order.

  Args:
    dataset, options, split: as `data.dataset`, `data.source` and `data.split` of a config.
    out: the folder of the files, made when it is not there.
    shards: how many files, or None for one each RECORDS_A_FILE records.
    workers: processes, or None for one a core.
    part: "2/8", the third of eight: only its files are written; whichever part is last writes metadata.json.

  Raises:
    UserError: no such part; the source cannot be opened; `out` holds something else; more than MOST_BAD of the records
      are bad.
  """
  if "://" in os.fspath(out):
    raise UserError(f"--out {out}: array_record files are written to a disk; convert to one, then copy the folder")
  if shards is not None and shards < 1:
    raise UserError(f"--shards {shards}: give a number of files, 1 or more")
  its = read_part(part)
  source = open_source({"dataset": dataset, "source": options}, split, data_dir)
  count = len(source)
  shards = min(count, shards or -(-count // RECORDS_A_FILE))
  folder = pathlib.Path(out).expanduser().absolute()
  plan = {"dataset": dataset, "options": dict(options), "split": split, "data_dir": data_dir and os.fspath(data_dir),
          "records": count, "shards": shards}  # fmt: skip
  if _begin(folder, plan):
    return f"{folder} holds these {count} records already"
  bad = {}
  jobs = [(str(folder), shard, json.dumps(plan)) for shard in its.of_all(shards)]
  with contextlib.closing(parallel.each(_convert_shard, jobs, workers, "converting")) as done:
    for _, (_, its_bad) in done:
      bad |= {int(index): reason for index, reason in its_bad.items()}
      if len(bad) > MOST_BAD * count:
        break
  if len(bad) > MOST_BAD * count:
    _refuse(folder, plan, bad)
  missing = [shard for shard in range(shards) if not (folder / _name(split, shard, shards)).is_file()]
  if missing:
    return (
      f"part {its} is done: {len(jobs)} of {shards} files of {folder}; {len(missing)} of the other parts are not "
      "written yet"
    )
  with MadeShards(folder, {}).held("metadata", wait=True):
    if not (folder / array_record.METADATA).is_file():
      _finish(folder, source, plan)
  bad = json.loads((folder / array_record.METADATA).read_text())["bad"]
  lines = [f"{count - len(bad)} records in {shards} files of {folder}; train on them with data.dataset="
           f"array_record:{folder}"]  # fmt: skip
  if bad:
    lines += [f"{len(bad)} bad records left out: {_some({int(index): why for index, why in bad.items()})}"]
  return "\n".join(lines)


def _finish(folder: pathlib.Path, source: Source, plan: dict) -> None:
  """Writes metadata.json, of files that are all there. Raises UserError where too many records are bad."""
  counts, bad, shards = {}, {}, plan["shards"]
  for shard in range(shards):
    name = _name(plan["split"], shard, shards)
    counts[name], its_bad = json.loads((folder / f".{name}.counts").read_text())
    bad |= {int(index): reason for index, reason in its_bad.items()}
  if len(bad) > MOST_BAD * plan["records"]:
    _refuse(folder, plan, bad)
  array_record.write_metadata(
    folder, source.info, plan["split"], counts, converted_from=plan["dataset"], options=plan["options"], bad=bad
  )
  for scratch in (*folder.glob(".*.counts"), *folder.glob(".*.partial"), folder / _PLAN):
    scratch.unlink(missing_ok=True)


def _begin(folder: pathlib.Path, plan: dict) -> bool:
  """Notes `plan` in `folder`; True when it is carried out already. UserError when something else is there."""
  done, going_on = folder / array_record.METADATA, folder / _PLAN
  another = f"--out {folder}: holds another conversion; give an empty folder, or remove this one"
  if done.is_file():
    table = json.loads(done.read_text())
    known = {"dataset": table.get("converted_from"), "options": table.get("options"), "split": table["split"]}
    if known != json.loads(json.dumps({key: plan[key] for key in known})):
      raise UserError(another)
    return True
  begun = made_shards.begin(folder, plan, "--out", _PLAN)
  if begun != json.loads(json.dumps(plan)):
    raise UserError(f"{another} (or finish it with the command that started it: {going_on.read_text()})")
  return False


def _convert_shard(job: tuple[str, int, str]) -> tuple[int, dict[str, str]]:
  """Writes one file, unless it is there: (records in it, index -> reason of the bad ones)."""
  folder, shard, text = pathlib.Path(job[0]), job[1], job[2]
  plan = json.loads(text)
  name = _name(plan["split"], shard, plan["shards"])
  # Of this process: one that outlived a killed command may be writing the same file.
  scratch, noted = folder / f".{name}.{os.getpid()}.partial", folder / f".{name}.counts"
  with MadeShards(folder, {}).held(name, wait=True):
    if (folder / array_record.METADATA).is_file():  # another process has finished all of it
      return 0, {}
    if (folder / name).is_file():
      return tuple(json.loads(noted.read_text()))
    return _write_shard(folder, shard, text, scratch, noted)


def _write_shard(
  folder: pathlib.Path, shard: int, text: str, scratch: pathlib.Path, noted: pathlib.Path
) -> tuple[int, dict[str, str]]:
  from array_record.python.array_record_module import ArrayRecordWriter

  plan, source = json.loads(text), _open(text)
  name = _name(plan["split"], shard, plan["shards"])
  first, end = (plan["records"] * bound // plan["shards"] for bound in (shard, shard + 1))
  written, bad = 0, {}
  try:
    # One record a group, so that one can be read alone. Images do not compress further.
    writer = ArrayRecordWriter(str(scratch), "group_size:1,uncompressed")
    for index in range(first, end):
      try:
        record = source[index]
      except (BadRecord, OSError) as error:
        bad[str(index)] = str(error)
      else:
        writer.write(array_record.pack(record))
        written += 1
    writer.close()
    _write(noted, [written, bad])
    scratch.replace(folder / name)
  except (RuntimeError, OSError) as error:
    raise UserError(f"{folder / name}: cannot be written ({one_line(error)}); run the same command "
                    "again when there is space: what is done is kept") from error  # fmt: skip
  return written, bad


@functools.lru_cache(maxsize=1)
def _open(plan: str) -> Source:
  """The source of a plan, opened once a process."""
  plan = json.loads(plan)
  return open_source({"dataset": plan["dataset"], "source": plan["options"]}, plan["split"], plan["data_dir"])


def _write(path: pathlib.Path, value: object) -> None:
  """Writes JSON, whole or not at all."""
  scratch = path.with_name(f"{path.name}.{os.getpid()}.partial")
  scratch.write_text(json.dumps(value))
  scratch.replace(path)


def _name(split: str, shard: int, shards: int) -> str:
  return f"{split}-{shard:05d}-of-{shards:05d}.array_record"


def _refuse(folder: pathlib.Path, plan: dict, bad: Mapping[int, str]) -> None:
  """Raises UserError; the files that lack records are removed, so that they are made anew when the data is mended."""
  for shard in range(plan["shards"]):
    name = _name(plan["split"], shard, plan["shards"])
    noted = folder / f".{name}.counts"
    if noted.is_file() and json.loads(noted.read_text())[1]:
      (folder / name).unlink(missing_ok=True)
  raise UserError(f"{len(bad)} of {plan['records']} records are bad, more than {MOST_BAD:.0%}: {_some(bad)}; fix the "
                  "data and run the same command again")  # fmt: skip


def _some(bad: Mapping[int, str]) -> str:
  named = "; ".join(f"record {index}: {reason}" for index, reason in sorted(bad.items())[:_SHOWN])
  return named + (f"; and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else "")
