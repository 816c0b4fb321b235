"""Simulated electrocardiograms: what the simulator is told, and what is built of what it gives."""

import json
import sys
import types
from importlib import metadata

import numpy as np
import pytest

from mmcontrast.config import load_config
from mmcontrast.data import build
from mmcontrast.data.datasets import simulated_ecg
from mmcontrast.data.sources import open_source
from mmcontrast.errors import UserError
from mmcontrast.modalities import MODALITIES


def stand_in(**settings):
  """In the place of NeuroKit2, which takes half a second an example: a wave of the rate, of twelve heights."""
  time = np.arange(settings["duration"] * settings["sampling_rate"]) / settings["sampling_rate"]
  wave = np.sin(2 * np.pi * settings["heart_rate"] / 60 * time)
  return wave[:, None] * np.arange(1, 13) / 12


def use(monkeypatch, simulate):
  monkeypatch.setitem(sys.modules, "neurokit2", types.SimpleNamespace(ecg_simulate=simulate))


def test_what_the_simulator_is_told():
  told = [simulated_ecg.settings_of(number) for number in range(70)]
  assert told[3] == simulated_ecg.settings_of(3) and len({one["random_state"] for one in told}) == 70
  for number, one in enumerate(told):
    condition = simulated_ecg.CONDITIONS[simulated_ecg.condition_of(number)]
    assert condition.rate[0] <= one["heart_rate"] <= condition.rate[1] and one["ai"] == condition.waves
    assert condition.spread[0] <= one["heart_rate_std"] <= condition.spread[1] and one["method"] == "multileads"
  of = simulated_ecg.CONDITIONS
  assert of["sinus bradycardia"].rate[1] < of["normal sinus rhythm"].rate[0]
  assert of["sinus tachycardia"].rate[0] > of["normal sinus rhythm"].rate[1]
  assert of["irregular rhythm without P waves"].waves[0] == 0 > of["inverted T waves"].waves[4]


def test_what_is_built(monkeypatch, tmp_path):
  use(monkeypatch, stand_in)
  monkeypatch.setattr(simulated_ecg, "COUNTS", {"train": 8, "validation": 2, "test": 4})
  monkeypatch.setattr(simulated_ecg, "of_all", lambda numbers: map(simulated_ecg.simulated, numbers))
  monkeypatch.setattr(metadata, "version", lambda name: f"{name} of a test")
  folder = build.build_dataset("simulated_ecg", tmp_path)
  about = json.loads((folder / "metadata.json").read_text())
  assert about["simulated"] and about["packages"] == {"neurokit2": "neurokit2 of a test"}
  assert "no recordings" in (folder / "ATTRIBUTION.md").read_text()
  c = load_config("methods/more:simulated")
  train, test = (open_source(c["data"], split, tmp_path) for split in ("train", "test"))
  assert (len(train), len(test)) == (8, 4) and "no recording of a person" in train.info.notes[0]
  record = test[1]  # number 11, the fifth condition
  condition = simulated_ecg.condition_of(11)
  assert train.info.label_names["condition"][record["labels"]["condition"]] == condition
  assert record["captions"]["caption"] == [condition, f"a simulated electrocardiogram of {condition}"]
  (found,) = (MODALITIES["series"].rows(raw) for raw in record["series"].values())
  slow = stand_in(**simulated_ecg.settings_of(11) | {"sampling_rate": 100})
  np.testing.assert_allclose(found[20:-20], slow[20:-20], atol=5e-3)  # but for the filter's ends
  assert record["id"] == 4 and not record["mirror_safe"] and c["data"]["series"]["channels"] == found.shape[1] == 12


def test_what_is_refused(monkeypatch, tmp_path):
  monkeypatch.setitem(sys.modules, "neurokit2", None)
  with pytest.raises(UserError, match=r"simulated_ecg: NeuroKit2 is missing .*; pip install 'mmcontrast\[ecg\]'"):
    build.build_dataset("simulated_ecg", tmp_path)
  assert not (tmp_path / "simulated_ecg").exists()
  use(monkeypatch, lambda **settings: stand_in(**settings)[:-1])
  with pytest.raises(UserError, match=r"NeuroKit2 gave \(4999, 12\) numbers of example 5, not all usable"):
    simulated_ecg.simulated(5)
  with pytest.raises(UserError, match="simulated_ecg takes no path and no data"):
    open_source({"dataset": "simulated_ecg", "source": {"of": 1}}, "train", tmp_path)
  with pytest.raises(UserError, match=r"dataset simulated_ecg is not in .*; run: mmcontrast data build simulated_ecg"):
    open_source({"dataset": "simulated_ecg"}, "train", tmp_path)
