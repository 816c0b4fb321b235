"""`mmcontrast index EMBEDDINGS --out DIR`: an index of many shards of embeddings, searched without loading them.

What it holds is in inference/embedding_index.py, how machines share the work in bulk.py.
"""

from __future__ import annotations

import functools
import os

from mmcontrast.bulk import make_shards, of_part
from mmcontrast.called import call_as
from mmcontrast.data.made_shards import read_part
from mmcontrast.inference.embed_records import progress
from mmcontrast.inference.embedding_index import Indexer
from mmcontrast.modalities import MODALITIES


def index(
  embeddings: str | os.PathLike,
  out: str | os.PathLike,
  *,
  kind: str | None = None,
  width: int = 0,
  part: str | None = None,
  ray: str | None = None,
) -> str:
  """Indexes the embeddings of one modality; returns what was done, in a line. Again, it does what is
  missing or has changed.

  Args:
    embeddings: a folder of `mmcontrast embed`, all of whose shards are made.
    out: the folder of the index, on a disk.
    kind: the modality; None: images, if there are any, else the first.
    width: so many of the first numbers are compared; 0: all.
    part: "2/8", the third of eight: only its files are made; None: all.
    ray: the address of a Ray cluster whose machines make the files, or "auto"; None: this process does.
  Raises UserError: as `Indexer`; no such part or cluster.
  """
  its = read_part(part)
  start = functools.partial(Indexer, os.fspath(embeddings), os.fspath(out), kind, width)
  with start() as here:  # which says what is wrong before a cluster is asked
    there = here.shards
    shards = sum(len(there.records(group)) for group in its.of_all(there.manifest["shards"]))
    with progress(shards, "indexing shards") as advance:
      make_shards(start if ray else lambda: here, there, its, ray, advance)
    if missing := of_part(there, its):
      return missing
    rows, lists = here.counts()
  files = there.manifest["shards"]
  return (
    f"{rows} {MODALITIES[here.kind].nouns} of {embeddings} in {lists} lists, {files} files of {out}; search them with "
    f"--index {out}"
  )


call_as(__name__, index)
