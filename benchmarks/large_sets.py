"""k-NN, probe, search and deduplication of large sets of features, compared with faiss and scikit-learn in turns.

    python benchmarks/large_sets.py --out docs/results/large_sets.json
    python benchmarks/large_sets.py --scale 0.05 --rounds 1

Needs faiss (pip install 'mmcontrast[search]'). Features are made up: 1,000 classes of 512 numbers, rows scattered about
their middles. Each case runs in a process of its own; "peak" is the process's. "dedup": a tenth of the rows are copies
with noise, of cosines from 0.94 to 1; recall is of all pairs from 0.95 on of 2,000 of the copies, by comparing all.
"search": a query of all rows by `mmcontrast index`, one at a time, and the share of the ten nearest that it finds.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import numpy as np
from record import record

DIM, CLASSES = 512, 1_000
CASES = {"knn": 100_000, "probe": 100_000, "search": 1_000_000, "dedup": 1_000_000}
"""Rows of each case."""
_CHUNK = 10_000


def features(
  count: int, seed: int, classes: int = CLASSES, noise: float = 1.5
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """(unit rows float32 [n, 512], class of each), a chunk after another."""
  middles = np.random.default_rng(0).standard_normal((classes, DIM), np.float32)
  for number, start in enumerate(range(0, count, _CHUNK)):
    draw = np.random.default_rng((seed, number))
    of = draw.integers(0, classes, min(_CHUNK, count - start))
    rows = middles[of] + np.float32(noise) * draw.standard_normal((len(of), DIM), np.float32)
    yield rows / np.linalg.norm(rows, axis=1, keepdims=True), of


def whole(count: int, seed: int, classes: int = CLASSES, noise: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
  rows, of = zip(*features(count, seed, classes, noise))
  return np.concatenate(rows), np.concatenate(of)


def in_turns(rounds: int, **contenders: Callable[[], object]) -> dict[str, float]:
  """The median seconds of each."""
  times: dict[str, list[float]] = {name: [] for name in contenders}
  for _ in range(rounds):
    for name, call in contenders.items():
      began = time.perf_counter()
      call()
      times[name].append(time.perf_counter() - began)
  return {name: round(float(np.median(taken)), 3) for name, taken in times.items()}


def knn(count: int, rounds: int) -> dict[str, object]:
  """Weighted k-NN of a tenth as many queries as rows."""
  import faiss

  from mmcontrast.evaluation.knn import classify

  bank, labels = whole(count, 0)
  queries, _ = whole(max(count // 10, 1), 1)
  guessed = {}

  def ours() -> None:
    guessed["ours"] = classify(queries, bank, labels)

  def peer() -> None:
    index = faiss.IndexFlatIP(DIM)
    index.add(bank)
    cosine, near = index.search(queries, 20)
    votes = np.zeros((len(queries), CLASSES))
    np.add.at(votes, (np.arange(len(queries))[:, None], labels[near]), np.exp(cosine / 0.07))
    guessed["faiss"] = votes.argmax(axis=1)

  taken = in_turns(rounds, ours=ours, faiss=peer)
  return {**taken, "ratio": round(taken["ours"] / taken["faiss"], 2), "queries": len(queries),
          "same answers": float((guessed["ours"] == guessed["faiss"]).mean())}  # fmt: skip


def probe(count: int, rounds: int) -> dict[str, object]:
  """A logistic regression of ten classes that overlap, of one strength, with as many threads for the peer."""
  from sklearn.linear_model import LogisticRegression
  from sklearn.pipeline import make_pipeline
  from sklearn.preprocessing import StandardScaler
  from threadpoolctl import threadpool_limits

  from mmcontrast.evaluation import linear_probe

  rows, labels = whole(count, 0, 10, 12)
  test, answers = whole(max(count // 10, 1), 1, 10, 12)
  found = {}

  def ours() -> None:
    found["ours"] = linear_probe.fit(rows, labels, l2_grid=(0.01,)).accuracy(test, answers)

  def peer() -> None:
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1 / (0.01 * count), max_iter=200))
    with threadpool_limits(1 if rows.size < linear_probe.LARGE else None):
      found["scikit-learn"] = model.fit(rows, labels).score(test, answers)
    found["iterations"] = int(model[-1].n_iter_[0])

  taken = in_turns(rounds, ours=ours, **{"scikit-learn": peer})
  return {**taken, "ratio": round(taken["ours"] / taken["scikit-learn"], 2), "iterations": found["iterations"],
          "accuracy": [round(found["ours"], 4), round(found["scikit-learn"], 4)]}  # fmt: skip


def search(count: int, rounds: int) -> dict[str, object]:
  """One query at a time, of an index in files that are looked into, not loaded; candidates are read and compared."""
  from mmcontrast.inference.embedding_index import EmbeddingIndex, Indexer
  from mmcontrast.inference.embeddings import Rows, begin

  queries, _ = whole(100, 1)
  with tempfile.TemporaryDirectory() as scratch:
    folder = pathlib.Path(scratch)
    manifest = {"records": count, "records_a_shard": _CHUNK, "kinds": ["image"], "format": "npy"}
    there = begin(folder / "rows", {**manifest, "source": {}, "model": {"digest": "made up"}})
    for number, (rows, _) in enumerate(features(count, 0)):
      there.write(number, {"image": Rows(rows, {})}, {}, "")
    began = time.perf_counter()
    with Indexer(folder / "rows", folder / "index") as indexer:
      for group in range(indexer.shards.manifest["shards"]):
        indexer(group, lambda done: None)
    built, before = time.perf_counter() - began, _peak()
    index, taken, found = EmbeddingIndex(folder / "index"), [], []
    index.nearest(there, queries[0], 10)
    for query in queries:
      began = time.perf_counter()
      found.append(there.places("image", index.nearest(there, query, 10).index))
      taken.append(time.perf_counter() - began)
    searched = _peak() - before
    best = [np.zeros((0, 2))] * len(queries)
    for number, rows in enumerate(there.rows("image")):
      for query, cosines in enumerate(queries @ rows.T):
        top = np.argpartition(-cosines, 10)[:10]
        both = np.concatenate([best[query], np.stack([cosines[top], number * _CHUNK + top], 1)])
        best[query] = both[np.argsort(-both[:, 0], kind="stable")[:10]]
  recall = np.mean([np.isin(one[:, 1], got).mean() for one, got in zip(best, found)])
  return {"milliseconds a query, median": round(1e3 * float(np.median(taken)), 1),
          "milliseconds, 95 of 100": round(1e3 * float(np.quantile(taken, 0.95)), 1),
          "recall at 10": round(float(recall), 4), "index, seconds": round(built),
          "peak by searching, MiB": searched}  # fmt: skip


def dedup(count: int, rounds: int) -> dict[str, object]:
  """Pairs of a cosine of at least 0.95, of rows in files of 10,000."""
  from mmcontrast.data.curation.near import near_pairs

  draw = np.random.default_rng(2)
  copies = draw.permutation(count - _CHUNK)[: count // 10] + min(_CHUNK, count // 2) if count > 2 * _CHUNK else None
  copies = np.sort(draw.permutation(np.arange(count // 2, count))[: count // 10]) if copies is None else np.sort(copies)
  with tempfile.TemporaryDirectory() as folder:
    files = []
    for number, (rows, _) in enumerate(features(count, 0)):
      start = number * _CHUNK
      its = copies[(copies >= start) & (copies < start + len(rows))] - start
      if len(its):
        from_file = np.load(files[int(draw.integers(0, len(files)))]) if files else rows
        base = from_file[draw.integers(0, len(from_file), len(its))]
        cosine = draw.uniform(0.94, 1, (len(its), 1)).astype(np.float32)
        other = draw.standard_normal(base.shape, np.float32)
        other -= (other * base).sum(1, keepdims=True) * base
        other /= np.linalg.norm(other, axis=1, keepdims=True)
        rows[its] = cosine * base + np.sqrt(1 - cosine**2) * other
      files.append(pathlib.Path(folder) / f"{number:05d}.npy")
      np.save(files[-1], rows)

    def chunks() -> Iterator[np.ndarray]:
      return (np.load(file, mmap_mode="r") for file in files)

    def at(places: np.ndarray) -> np.ndarray:
      found = np.empty((len(places), DIM), np.float32)
      for number in np.unique(places // _CHUNK):
        its = np.flatnonzero(places // _CHUNK == number)
        found[its] = np.load(files[number], mmap_mode="r")[places[its] - number * _CHUNK]
      return found

    began = time.perf_counter()
    pairs = near_pairs(chunks, at, count, 0.95, exact=0)
    taken, peak = time.perf_counter() - began, _peak()
    some = np.sort(np.random.default_rng(3).choice(copies, min(2000, len(copies)), replace=False))
    queries, known = at(some), {(one, other) for one, other in pairs.tolist()}
    every = set()
    for number, rows in enumerate(chunks()):
      first, second = np.nonzero(queries @ rows.T >= 0.95)
      for one, other in zip(some[first].tolist(), (number * _CHUNK + second).tolist()):
        every |= {(min(one, other), max(one, other))} if one != other else set()
  return {"seconds": round(taken, 1), "peak, MiB": peak, "pairs": len(pairs), "pairs compared": len(every),
          "recall": round(len(every & known) / max(1, len(every)), 4)}  # fmt: skip


def _peak() -> int:
  return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
  parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of rows")
  parser.add_argument("--rounds", type=int, default=3)
  parser.add_argument("--out")
  parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
  options = parser.parse_args()
  if options.one:
    name, count = options.one[0], int(options.one[1])
    measured = {"knn": knn, "probe": probe, "search": search, "dedup": dedup}[name](count, options.rounds)
    print(json.dumps({"case": name, "rows": count, "dim": DIM, **measured, "process peak, MiB": _peak()}))
    return
  rows = []
  for case in options.cases:
    count = max(2_000, round(options.scale * CASES[case]))
    command = [sys.executable, __file__, "--one", case, str(count), "--rounds", str(options.rounds)]
    rows.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1]))
    print(rows[-1], flush=True)
  record(rows, options.out)


if __name__ == "__main__":
  main()
