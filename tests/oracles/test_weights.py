"""Torch's own files: tensors only, from the wrappings of training scripts; a pickle that would run code does not."""

import os
import pickle

import pytest
import torch

from mmcontrast.errors import UserError
from mmcontrast.interop.weights import read_weights


@pytest.mark.parametrize("wrap", [
    lambda table: table, lambda table: {"epoch": 3, "state_dict": table},
    lambda table: {"state_dict": {f"module.{name}": tensor for name, tensor in table.items()}, "optimizer": {}},
    lambda table: {"model": table}])
def test_a_state_dict(wrap, tmp_path):
  table = {"a.weight": torch.tensor([1.5, -2.0], dtype=torch.bfloat16), "n": torch.arange(3)}
  torch.save(wrap(table), tmp_path / "m.bin")
  found = read_weights(tmp_path / "m.bin", torch=True)
  assert found["a.weight"].tolist() == [1.5, -2.0] and found["a.weight"].dtype == "float32" and len(found) == 2


def test_a_pickle_that_would_run_code(tmp_path):
  class Bad:
    def __reduce__(self):
      return os.mkdir, (str(tmp_path / "made"),)

  (tmp_path / "m.pth").write_bytes(pickle.dumps({"a": Bad()}))
  with pytest.raises(UserError, match=r"m\.pth: damaged, or not what its name says"):
    read_weights(tmp_path / "m.pth", torch=True)
  assert not (tmp_path / "made").exists()


def test_what_is_no_table_of_tensors(tmp_path):
  torch.save({"a": 3}, tmp_path / "m.pt")
  with pytest.raises(UserError, match="not a table of tensors by name"):
    read_weights(tmp_path / "m.pt", torch=True)
  torch.save({"a": torch.zeros(100)}, tmp_path / "m.pt")
  (tmp_path / "m.pt").write_bytes((tmp_path / "m.pt").read_bytes()[:300])
  with pytest.raises(UserError, match="damaged"):
    read_weights(tmp_path / "m.pt", torch=True)
