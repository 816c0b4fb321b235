"""A JobSet for GKE: prints the manifest of one training on TPU slices; `kubectl apply -f` takes it.

    python launch/gke/jobset.py --name mct --type v5litepod-16 --image IMAGE --spot -- \\
        --config mct_coco --workdir /mnt/runs/mct | kubectl apply -f -

One pod a host, one job a slice. A pod that is asked to end saves and leaves with 143, which restarts the
JobSet; so do a lost process (1) and the watchdog (75). Any other code, a mistake of the config above all,
ends it. The fields are those that xpk writes for such a job (tests/launch compares them).
"""

from __future__ import annotations

import argparse
import pathlib
import re
import sys
from typing import Any

import yaml

TYPES = pathlib.Path(__file__).parent.parent / "tpu_types.tsv"
CONTAINER = "train"
# Of our exit codes, and of a process that a signal ended.
RESTART_ON = (1, 42, 75, *range(127, 256))


def slices() -> dict[str, dict[str, Any]]:
  """Accelerator type -> accelerator, topology (GKE's labels) and hosts of a slice."""
  known = {}
  for line in TYPES.read_text().splitlines():
    if not line.startswith("#"):
      _, _, accelerator, _, types = line.split("\t")
      for entry in types.split():
        name, topology, hosts = re.split("[=:]", entry)
        known[name] = {"accelerator": accelerator, "topology": topology, "hosts": int(hosts)}
  return known


def jobset(
  name: str,
  accelerator_type: str,
  image: str,
  arguments: list[str],
  *,
  slices_of: int = 1,
  spot: bool = False,
  restarts: int = 50,
  grace_seconds: int = 600,
  service_account: str = "",
  claim: str = "",
) -> dict[str, Any]:
  """The manifest as a dictionary.

  Args:
    name: of the JobSet; lower-case letters, digits and hyphens, at most 40.
    accelerator_type: a key of `slices()`.
    image: a container image with mmcontrast and jax[tpu] installed.
    arguments: of `mmcontrast train`.
    slices_of: how many slices train as one run.
    spot: on preemptible nodes.
    restarts: of the JobSet, at most.
    grace_seconds: between SIGTERM and SIGKILL: a step, an evaluation under way and a checkpoint must fit.
    service_account: of Kubernetes, for what the pods may read and write.
    claim: a persistent volume claim that all hosts mount at /mnt, for data and working directories.
  Raises ValueError for a type that is not known or a name that Kubernetes refuses.
  """
  if accelerator_type not in slices():
    raise ValueError(f"--type {accelerator_type}: not one of {', '.join(slices())}")
  if not re.fullmatch("[a-z]([a-z0-9-]{0,38}[a-z0-9])?", name):
    raise ValueError(f"--name {name}: use at most 40 lower-case letters, digits and hyphens")
  kind = slices()[accelerator_type]
  volumes = [{"name": "shared-memory", "emptyDir": {"medium": "Memory"}}]
  mounts = [{"name": "shared-memory", "mountPath": "/dev/shm"}]
  if claim:
    volumes.append({"name": "shared", "persistentVolumeClaim": {"claimName": claim}})
    mounts.append({"name": "shared", "mountPath": "/mnt"})
  tolerations = [{"key": "google.com/tpu", "operator": "Exists"}]
  nodes = {
    "cloud.google.com/gke-tpu-accelerator": kind["accelerator"],
    "cloud.google.com/gke-tpu-topology": kind["topology"],
  }
  if spot:
    nodes["cloud.google.com/gke-spot"] = "true"
    tolerations.append(
      {"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"}
    )
  container = {
    "name": CONTAINER,
    "image": image,
    # Without a shell between them, SIGTERM reaches the run.
    "command": [
      "python",
      "-u",
      "-m",
      "mmcontrast",
      "train",
      "--config.distributed.mode=on",
      "--config.distributed.start_timeout_seconds=1800",
      *arguments,
    ],
    "env": [{"name": "MMCONTRAST_PREEMPTED_EXIT_CODE", "value": "143"}],
    "securityContext": {"privileged": True},  # access to the chips
    "resources": {"limits": {"google.com/tpu": 4}},
    "volumeMounts": mounts,
  }
  pod = {
    "restartPolicy": "Never",
    "nodeSelector": nodes,
    "hostNetwork": True,
    "dnsPolicy": "ClusterFirstWithHostNet",
    "terminationGracePeriodSeconds": grace_seconds,
    "containers": [container],
    "tolerations": tolerations,
    "volumes": volumes,
    **({"serviceAccountName": service_account} if service_account else {}),
  }
  failure = {
    "rules": [
      {
        "action": "FailJob",
        "onExitCodes": {"containerName": CONTAINER, "operator": "NotIn", "values": list(RESTART_ON)},
      }
    ]
  }
  job = {
    "parallelism": kind["hosts"],
    "completions": kind["hosts"],
    "backoffLimit": 0,
    "podFailurePolicy": failure,
    "template": {"spec": pod},
  }
  return {
    "apiVersion": "jobset.x-k8s.io/v1alpha2",
    "kind": "JobSet",
    "metadata": {
      "name": name,
      "annotations": {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"},
    },
    "spec": {
      "failurePolicy": {
        "maxRestarts": restarts,
        "rules": [{"name": "mistakes", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}],
      },
      "replicatedJobs": [{"name": "slice", "replicas": slices_of, "template": {"spec": job}}],
    },
  }


def main(words: list[str] | None = None) -> int:
  """Prints the manifest that the command line describes; a mistake is one line and exit code 2."""
  words = sys.argv[1:] if words is None else words
  cut = words.index("--") if "--" in words else len(words)
  parser = argparse.ArgumentParser(
    "jobset.py",
    description=__doc__.split("\n")[0],
    allow_abbrev=False,
    epilog="Arguments of mmcontrast train come after --.",
  )
  parser.add_argument("--name", required=True)
  parser.add_argument("--type", required=True, help="accelerator type, such as v5litepod-16")
  parser.add_argument("--image", required=True, help="with mmcontrast and jax[tpu] installed")
  parser.add_argument("--slices", type=int, default=1)
  parser.add_argument("--spot", action="store_true")
  parser.add_argument("--restarts", type=int, default=50)
  parser.add_argument("--grace_seconds", type=int, default=600, help="between SIGTERM and SIGKILL")
  parser.add_argument("--service_account", default="")
  parser.add_argument("--claim", default="", help="a persistent volume claim to mount at /mnt on all hosts")
  options = parser.parse_args(words[:cut])
  arguments = words[cut + 1 :]
  try:
    if not any(word.split("=")[0] == "--workdir" for word in arguments):
      raise ValueError("--workdir is missing after --: a folder that all hosts see")
    if options.slices < 1:
      raise ValueError(f"--slices {options.slices}: give at least 1")
    manifest = jobset(
      options.name,
      options.type,
      options.image,
      arguments,
      slices_of=options.slices,
      spot=options.spot,
      restarts=options.restarts,
      grace_seconds=options.grace_seconds,
      service_account=options.service_account,
      claim=options.claim,
    )
  except ValueError as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  print(yaml.safe_dump(manifest, sort_keys=False), end="")
  return 0


if __name__ == "__main__":
  sys.exit(main())
