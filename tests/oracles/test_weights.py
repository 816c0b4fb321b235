"""Torch's own files, written by torch, read by us: tensors, Parameters, scripted and whole models; no code runs."""

import argparse
import os
import pickle

import numpy as np
import pytest
import torch

from mmcontrast.errors import UserError
from mmcontrast.interop.weights import read_weights

BOTH = pytest.mark.parametrize("zipped", [True, False])


def save(value, path, zipped=True):
  torch.save(value, path, _use_new_zipfile_serialization=zipped)


@BOTH
@pytest.mark.parametrize(
  "wrap",
  [
    lambda table: table,
    lambda table: {"epoch": 3, "state_dict": table},
    lambda table: {"state_dict": {f"module.{name}": tensor for name, tensor in table.items()}, "optimizer": {}},
    lambda table: {"model": table},
    lambda table: {
      "state_dict": {
        name: torch.nn.Parameter(tensor) if tensor.is_floating_point() else tensor for name, tensor in table.items()
      },
      "args": argparse.Namespace(lr=0.1),
      "best": np.float64(3.5),
      "numpy": np.random.get_state(),
      "random": torch.get_rng_state(),
      "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}},
    },
  ],
)
def test_a_state_dict(wrap, zipped, tmp_path):
  table = {"a.weight": torch.tensor([1.5, -2.0], dtype=torch.bfloat16), "n": torch.arange(3)}
  save(wrap(table), tmp_path / "m.bin", zipped)
  found = read_weights(tmp_path / "m.bin", torch=True)
  assert found["a.weight"].tolist() == [1.5, -2.0] and found["a.weight"].dtype == "float32" and len(found) == 2


class Network(torch.nn.Module):
  """Of each: a linear layer, a batch norm, a scalar, buffers that are kept and not."""

  def __init__(self):
    super().__init__()
    self.layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 2), torch.nn.BatchNorm2d(4))
    self.scale = torch.nn.Parameter(torch.ones([]) * 4.5)
    self.register_buffer("table", torch.arange(4.0).reshape(2, 2).t())

  def forward(self, x):
    """Something of all."""
    return self.layers(x) * self.scale + self.table.sum()


@pytest.mark.parametrize("half", [False, True])
def test_a_whole_model_is_read_as_its_state_dict(half, tmp_path):
  """As OpenAI's CLIP is: a TorchScript archive in half precision."""
  network = Network().half() if half else Network()
  expected = {name: leaf.float().numpy() for name, leaf in network.state_dict().items()}
  torch.save(network, tmp_path / "whole.pt")
  torch.jit.save(torch.jit.script(network), tmp_path / "script.pt")
  torch.jit.save(torch.jit.trace(Network().eval(), torch.ones(1, 3, 4, 4)), tmp_path / "traced.pt")
  for name in ("whole", "script"):
    found = read_weights(tmp_path / f"{name}.pt", torch=True)
    assert found.keys() == expected.keys()
    for key, array in expected.items():
      np.testing.assert_array_equal(found[key], array)
  assert read_weights(tmp_path / "traced.pt", torch=True).keys() == expected.keys()


@BOTH
def test_views_and_kinds_of_numbers(zipped, tmp_path):
  base = torch.arange(24.0).reshape(2, 3, 4)
  table = {
    "view.a": base[:, 1:, ::2],
    "view.b": base.transpose(0, 2),
    "view.c": base[0, 0, 1],
    "empty": torch.zeros(0, 3),
    **{
      f"of.{kind}": torch.tensor([0, 1, 3]).to(getattr(torch, kind))
      for kind in (
        "float64",
        "float16",
        "bfloat16",
        "int32",
        "int16",
        "int8",
        "uint8",
        "bool",
        "float8_e4m3fn",
        "uint16",
      )
      if zipped or kind not in ("float8_e4m3fn", "uint16")
    },
  }
  save(table, tmp_path / "m.pt", zipped)
  found = read_weights(tmp_path / "m.pt", torch=True)
  assert found.keys() == table.keys()
  for name, tensor in table.items():
    assert found[name].tolist() == tensor.tolist()


@BOTH
def test_a_pickle_that_would_run_code(zipped, tmp_path):
  class Bad:
    def __reduce__(self):
      return os.mkdir, (str(tmp_path / "made"),)

  save({"state_dict": {"a.b": torch.ones(2)}, "bad": Bad()}, tmp_path / "m.pth", zipped)
  assert read_weights(tmp_path / "m.pth", torch=True)["a.b"].tolist() == [1, 1]
  (tmp_path / "m.pth").write_bytes(pickle.dumps({"a": Bad()}))
  with pytest.raises(UserError, match=r"m\.pth: damaged, or not what its name says"):
    read_weights(tmp_path / "m.pth", torch=True)
  assert not (tmp_path / "made").exists()


def test_what_is_no_table_of_tensors(tmp_path):
  torch.save({"a": 3}, tmp_path / "m.pt")
  with pytest.raises(UserError, match="not a table of tensors by name"):
    read_weights(tmp_path / "m.pt", torch=True)
  torch.save({"a": torch.zeros(2, 2).to_sparse()}, tmp_path / "m.pt")
  with pytest.raises(UserError, match="sparse or quantised"):
    read_weights(tmp_path / "m.pt", torch=True)
  torch.save({"a": torch.zeros(100)}, tmp_path / "m.pt")
  (tmp_path / "m.pt").write_bytes((tmp_path / "m.pt").read_bytes()[:300])
  with pytest.raises(UserError, match="damaged"):
    read_weights(tmp_path / "m.pt", torch=True)
