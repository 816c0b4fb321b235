"""`mmcontrast embed` and `data dedup` with --ray, on a Ray cluster of two nodes of this machine; workers are killed.

    make ray

The folders have to be those of the same commands without Ray, byte for byte.
"""

import functools
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
RECORDS, SHARDS = 160, 8


def main() -> None:
  """Raises AssertionError where the promise is not kept."""
  os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])  # of the workers
  os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
  from ray.cluster_utils import Cluster

  cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
  try:
    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    with tempfile.TemporaryDirectory() as folder:
      check(pathlib.Path(folder), cluster.address)
  finally:
    cluster.shutdown()


def check(folder: pathlib.Path, address: str) -> None:
  """A run, its embeddings and an index of kept records, without Ray, with it, and with workers that are killed."""
  command = functools.partial(run, folder)
  write_pictures(folder)
  source = [f"jsonl:{folder}/rows.jsonl", "--part", "0/1"]
  command("train", "--config", "own_data:smoke", "--workdir", folder / "run", f"--config.data.dataset={source[0]}",
          "--config.data.tokenizer=bytes")  # fmt: skip
  embed = ["embed", *source, "--workdir", folder / "run"]
  dedup = ["data", "dedup", *source, "--exact", "image", "--perceptual", "2"]
  for name, words in (("embed", embed), ("dedup", dedup)):
    command(*words, "--out", folder / f"{name}_here")
    command(*words, "--out", folder / f"{name}_ray", "--ray", address)
    same(folder / f"{name}_here", folder / f"{name}_ray", name)
  killed: list[int] = []
  done = threading.Event()
  killer = threading.Thread(target=kill_workers, args=(killed, done))
  killer.start()
  try:
    command(*embed, "--out", folder / "embed_killed", "--ray", address)
  finally:
    done.set()
    killer.join()
  assert killed, "no worker was killed"
  same(folder / "embed_here", folder / "embed_killed", f"embed, {len(killed)} workers killed")
  found = command("embed", *source, "--workdir", folder / "none", "--out", folder / "x", "--ray", address, fails=True)
  assert found.count("\n") == 1 and "Traceback" not in found, found
  found = command(*embed, "--out", folder / "x", "--ray", "127.0.0.1:1", fails=True)
  assert "--ray 127.0.0.1:1: no such cluster" in found and "Traceback" not in found, found
  print("ray: all as without it")


def run(folder: pathlib.Path, *words: object, fails: bool = False) -> str:
  """What a command prints; its shards are small."""
  code = (
    f"import sys; from mmcontrast import cli, curate, embed; embed_room = sys.modules['mmcontrast.embed']; "
    f"embed_room.RECORDS_A_SHARD = curate.RECORDS_A_SHARD = {RECORDS // SHARDS}; sys.exit(cli.main(sys.argv[1:]))"
  )
  done = subprocess.run(
    [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, cwd=folder, timeout=900
  )
  print(" ".join(map(str, words[:2])), done.returncode, done.stdout[-200:], flush=True)
  assert done.returncode == (2 if fails else 0), done.stderr[-3000:]
  return done.stderr if fails else done.stdout


def write_pictures(folder: pathlib.Path) -> None:
  import numpy as np
  from PIL import Image

  draw, rows = np.random.default_rng(0), []
  for number in range(RECORDS):
    file = folder / f"{number}.png"
    if number % 10 == 9:
      file.write_bytes((folder / f"{number - 5}.png").read_bytes())
    else:
      Image.fromarray(draw.integers(0, 256, (4, 4, 3), np.uint8)).resize((48, 48)).save(file)
    rows.append(json.dumps({"image": str(file), "caption": f"picture number {number}"}))
  (folder / "rows.jsonl").write_text("\n".join(rows) + "\n")


def kill_workers(killed: list[int], done: threading.Event) -> None:
  """Kills an actor of a command every ten seconds, three times."""
  while not done.is_set() and len(killed) < 3:
    found = subprocess.run(["pgrep", "-f", "^ray::.*OnRay"], capture_output=True, text=True).stdout.split()
    fresh = [int(one) for one in found if int(one) not in killed]
    if fresh:
      time.sleep(3)
      try:
        os.kill(fresh[0], signal.SIGKILL)
        killed.append(fresh[0])
        print(f"killed worker {fresh[0]}", flush=True)
      except ProcessLookupError:
        continue
    done.wait(1)


def same(one: pathlib.Path, other: pathlib.Path, what: str) -> None:
  first, second = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in (one, other))
  assert first.keys() == second.keys(), (what, first.keys() ^ second.keys())
  differ = [name for name in first if first[name] != second[name]]
  assert not differ, (what, differ)
  print(f"{what}: {len(first)} files the same", flush=True)


if __name__ == "__main__":
  main()
