"""Stands in for gcloud: records its arguments, keeps a slice of two hosts as folders, and does there what ssh is asked.

$GCLOUD_CLOUD is its folder. In it: calls.jsonl; `script`, a JSON object that says how it behaves:
  waits: how many looks see WAITING_FOR_RESOURCES before ACTIVE
  preempt_after: how many calls of ssh, and a step of the run, until the slice is taken away (once), null for never
  failing_ssh: how many of the next calls of ssh fail by themselves
"""

import json
import os
import pathlib
import subprocess
import sys

cloud = pathlib.Path(os.environ["GCLOUD_CLOUD"])
words = sys.argv[1:]
with (cloud / "calls.jsonl").open("a") as file:
  file.write(json.dumps(words) + "\n")
script = json.loads((cloud / "script").read_text())


def keep():
  (cloud / "script").write_text(json.dumps(script))


def option(name, default=None):
  for index, word in enumerate(words):
    if word.startswith(f"{name}="):
      return word.partition("=")[2]
    if word == name:
      return words[index + 1]
  return default


def hosts(node):
  return [cloud / node / str(worker) for worker in range(2)]


if words[:3] == ["compute", "tpus", "queued-resources"]:
  verb, name = words[3], words[4]
  state = cloud / "state"
  if verb == "create":
    if state.exists():
      sys.exit("ALREADY_EXISTS")
    count = int(option("--node-count", 1))
    nodes = [f"{option('--node-prefix')}-{i}" for i in range(count)] if count > 1 else [option("--node-id")]
    for node in nodes:
      for host in hosts(node):
        host.mkdir(parents=True)
    state.write_text("WAITING_FOR_RESOURCES")
    script["looks"] = 0
    keep()
  elif verb == "describe":
    if not state.exists():
      sys.exit("NOT_FOUND")
    if state.read_text() == "WAITING_FOR_RESOURCES":
      script["looks"] += 1
      keep()
      if script["looks"] > script["waits"]:
        state.write_text("ACTIVE")
    print(state.read_text())
  elif verb == "delete":
    if not state.exists():
      sys.exit("NOT_FOUND")
    state.unlink()
    for folder in cloud.iterdir():
      if folder.is_dir() and folder.name != "bin":
        for host in sorted(folder.iterdir()):
          pid = host / "mmcontrast" / "run.pid"
          if pid.exists():
            subprocess.run(["pkill", "-KILL", "-s", pid.read_text().strip()], check=False)
        subprocess.run(["rm", "-rf", folder], check=True)
elif words[:3] == ["compute", "tpus", "tpu-vm"]:
  verb = words[3]
  target = words[5] if verb == "scp" else words[4]
  node, _, name = target.partition(":")
  worker = option("--worker", "0")
  chosen = hosts(node) if worker == "all" else [hosts(node)[int(worker)]]
  if (cloud / "state").read_text() != "ACTIVE":
    sys.exit("the slice is not there")
  if verb == "scp":
    for host in chosen:
      subprocess.run(["cp", words[4], host / name], check=True)
  else:
    if script["failing_ssh"]:
      script["failing_ssh"] -= 1
      keep()
      sys.exit(255)
    if script["preempt_after"] is not None:
      script["preempt_after"] -= 1
      if script["preempt_after"] < 0 and any(cloud.glob("bin/run/step-*")):
        script["preempt_after"] = None
        (cloud / "state").write_text("SUSPENDED")
      keep()
      if script["preempt_after"] is None:
        sys.exit(255)
    code = 0
    for host in chosen:
      environment = os.environ | {"HOME": str(host), "HOST_OF_SLICE": f"{node}/{host.name}"}
      code = max(code, subprocess.run(["bash", "-c", option("--command")], cwd=host, env=environment).returncode)
    sys.exit(code)
else:
  sys.exit(f"no such command: {words}")
