"""launch/gke/jobset.py: a manifest that Kubernetes' schema takes, with the fields that xpk writes for such a job."""

import importlib.util
import json
import pathlib

import kubernetes_validate
import pytest
import yaml

ROOT = pathlib.Path(__file__).parent.parent.parent
XPK = json.loads((ROOT / "tests/golden/xpk_jobsets.json").read_text())

_spec = importlib.util.spec_from_file_location("jobset", ROOT / "launch/gke/jobset.py")
jobset = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(jobset)

TRAIN = ["--", "--config", "clip", "--workdir", "/mnt/runs/x"]


def render(capsys, *words):
  assert jobset.main([*words, *TRAIN]) == 0
  return yaml.safe_load(capsys.readouterr().out)


@pytest.mark.parametrize("name", [name for name in XPK if name != "source"])
def test_fields_equal_those_of_xpk(capsys, name):
  made = render(capsys, "--name", "mct", "--type", name, "--image", "img:1", "--slices", "2")
  spec = made["spec"]
  assert spec["failurePolicy"]["rules"][0].pop("name")  # JobSet's schema asks for it; xpk leaves it to the cluster
  (job,) = spec["replicatedJobs"]
  pods = job["template"]["spec"]
  pod = pods["template"]["spec"]
  (container,) = pod["containers"]
  (rule,) = pods["podFailurePolicy"]["rules"]
  values = rule["onExitCodes"]["values"]
  assert {
    "apiVersion": made["apiVersion"],
    "kind": made["kind"],
    "annotations": made["metadata"]["annotations"],
    "failurePolicy": spec["failurePolicy"],
    "replicas": job["replicas"],
    "parallelism": pods["parallelism"],
    "completions": pods["completions"],
    "backoffLimit": pods["backoffLimit"],
    "action": rule["action"],
    "operator": rule["onExitCodes"]["operator"],
    "restart_on": [*values[:3], [values[3], values[-1]]],
    **{
      key: pod[key]
      for key in (
        "nodeSelector",
        "hostNetwork",
        "dnsPolicy",
        "restartPolicy",
        "terminationGracePeriodSeconds",
        "tolerations",
      )
    },
    "resources": container["resources"],
    "securityContext": container["securityContext"],
    "shared_memory": {
      "mountPath": container["volumeMounts"][0]["mountPath"],
      "emptyDir": pod["volumes"][0]["emptyDir"],
    },
  } == XPK[name]
  assert values[3:] == list(range(127, 256))
  assert rule["onExitCodes"]["containerName"] == container["name"]


def test_the_pods_fit_the_schema_of_kubernetes(capsys):
  made = render(
    capsys,
    "--name",
    "mct",
    "--type",
    "v5litepod-16",
    "--image",
    "img:1",
    "--spot",
    "--claim",
    "disk",
    "--service_account",
    "trainer",
  )
  pods = made["spec"]["replicatedJobs"][0]["template"]["spec"]
  job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": made["metadata"], "spec": pods}
  kubernetes_validate.validate(job, "1.31", strict=True)
  pods["template"]["spec"]["containers"][0]["resourcez"] = {}  # so it can fail
  with pytest.raises(kubernetes_validate.ValidationError):
    kubernetes_validate.validate(job, "1.31", strict=True)


def test_spot_and_a_shared_disk(capsys):
  made = render(capsys, "--name", "mct", "--type", "v6e-256", "--image", "img:1", "--spot", "--claim", "disk")
  pods = made["spec"]["replicatedJobs"][0]["template"]["spec"]
  pod = pods["template"]["spec"]
  assert pods["parallelism"] == 64
  assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
  assert any(toleration["key"] == "cloud.google.com/gke-spot" for toleration in pod["tolerations"])
  assert {"name": "shared", "persistentVolumeClaim": {"claimName": "disk"}} in pod["volumes"]
  assert {"name": "shared", "mountPath": "/mnt"} in pod["containers"][0]["volumeMounts"]


def test_a_stopped_run_is_told_from_one_that_is_done(capsys):
  pod = render(capsys, "--name", "a", "--type", "v4-8", "--image", "i")["spec"]["replicatedJobs"][0]["template"]["spec"]
  (container,) = pod["template"]["spec"]["containers"]
  assert container["command"][-4:] == TRAIN[1:]
  (variable,) = container["env"]
  assert variable == {"name": "MMCONTRAST_PREEMPTED_EXIT_CODE", "value": "143"}
  assert 143 in jobset.RESTART_ON and {0, 2}.isdisjoint(jobset.RESTART_ON)


@pytest.mark.parametrize(
  "words, message",
  [
    (["--name", "mct", "--type", "v5e-16", "--image", "i", *TRAIN], "v5litepod-16"),
    (["--name", "MCT", "--type", "v4-8", "--image", "i", *TRAIN], "lower-case"),
    (["--name", "mct", "--type", "v4-8", "--image", "i", "--", "--config", "c"], "--workdir is missing"),
    (["--name", "mct", "--type", "v4-8", "--image", "i", "--slices", "0", *TRAIN], "at least 1"),
  ],
)
def test_mistakes_are_one_line(capsys, words, message):
  assert jobset.main(words) == 2
  shown = capsys.readouterr()
  assert message in shown.err and not shown.out and shown.err.count("\n") == 1
