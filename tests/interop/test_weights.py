"""Files of arrays: kinds, precisions, shards, and what is damaged or refused."""

import json

import ml_dtypes
import numpy as np
import pytest

from mmcontrast.errors import UserError
from mmcontrast.interop.weights import find_weights, read_weights, write_weights

ARRAYS = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.float32(2.5), "n": np.arange(3)}


def test_safetensors_in_and_out(tmp_path):
  path = tmp_path / "model.safetensors"
  write_weights(path, {**ARRAYS, "t": ARRAYS["a.weight"].T})  # of any memory order
  found = read_weights(path)
  assert found.keys() == {*ARRAYS, "t"} and found["b"].shape == ()
  assert np.array_equal(found["t"], ARRAYS["a.weight"].T) and found["n"].dtype == np.int64


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
@pytest.mark.parametrize("suffix", ["safetensors", "npz"])
def test_floats_become_float32(tmp_path, dtype, suffix):
  path, array = tmp_path / f"model.{suffix}", np.array([1.5, -2.0], dtype)
  write_weights(path, {"a": array}) if suffix == "safetensors" else np.savez(path, a=array)
  found = read_weights(path)["a"]
  assert found.dtype == np.float32 and found.tolist() == [1.5, -2.0]


def test_shards_by_their_index(tmp_path):
  write_weights(tmp_path / "m-1.safetensors", {"a": np.zeros(2, np.float32)})
  write_weights(tmp_path / "m-2.safetensors", {"b": np.ones(2, np.float32)})
  index = tmp_path / "model.safetensors.index.json"
  index.write_text(json.dumps({"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}))
  assert read_weights(index)["b"].tolist() == [1, 1]
  index.write_text(json.dumps({"weight_map": {"c": "m-1.safetensors"}}))
  with pytest.raises(UserError, match=r"m-1\.safetensors lacks 'c'"):
    read_weights(index)
  index.write_text(json.dumps({"weight_map": {"a": "../m-3.safetensors"}}))
  with pytest.raises(UserError, match=r"m-3\.safetensors: no such file"):
    read_weights(index)


@pytest.mark.parametrize("suffix", ["safetensors", "npz"])
@pytest.mark.parametrize("keep", [0, 5, 60, -1])
def test_a_truncated_file_is_an_error(tmp_path, suffix, keep):
  path = tmp_path / f"model.{suffix}"
  write_weights(path, ARRAYS) if suffix == "safetensors" else np.savez(path, **ARRAYS)
  path.write_bytes(path.read_bytes()[:keep])
  with pytest.raises(UserError, match=rf"model\.{suffix}: damaged") as error:
    read_weights(path)
  assert "\n" not in str(error.value)


def test_a_file_without_arrays_is_an_error(tmp_path):
  np.savez(tmp_path / "empty.npz")
  with pytest.raises(UserError, match="holds no arrays"):
    read_weights(tmp_path / "empty.npz")


def test_objects_in_an_npz_are_refused(tmp_path):
  np.savez(tmp_path / "o.npz", a=np.array([{}], object))
  with pytest.raises(UserError, match="damaged"):
    read_weights(tmp_path / "o.npz")


@pytest.mark.parametrize("suffix", ["bin", "pt", "pth"])
def test_a_pickle_is_not_opened_unless_asked(tmp_path, suffix):
  path = tmp_path / f"model.{suffix}"
  path.write_bytes(b"cos\nabort\n(tR.")  # a pickle that would end the process
  with pytest.raises(UserError, match="read by the import command only"):
    read_weights(path)


def test_other_kinds_and_missing_files_are_errors(tmp_path):
  with pytest.raises(UserError, match="no such file"):
    read_weights(tmp_path / "model.safetensors")
  (tmp_path / "model.safetensor").write_bytes(b"x")
  with pytest.raises(UserError, match=r"did you mean '\.safetensors'"):
    read_weights(tmp_path / "model.safetensor")


def test_the_only_file_of_weights_is_taken_whatever_it_is_called(tmp_path):
  (tmp_path / "tokenizer.json").write_text("{}")
  (tmp_path / "epoch_3.pt").write_bytes(b"x")
  assert find_weights(tmp_path) == tmp_path / "epoch_3.pt"
  (tmp_path / "best.pth.tar").write_bytes(b"x")
  with pytest.raises(UserError, match=r"which of best\.pth\.tar, epoch_3\.pt is meant; leave one"):
    find_weights(tmp_path)
  (tmp_path / "model.safetensors").write_bytes(b"x")
  assert find_weights(tmp_path).name == "model.safetensors"
