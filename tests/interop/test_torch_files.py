"""Checkpoints as training scripts leave them, read without torch and without running anything of theirs."""

import os
import pickle
import zipfile

import ml_dtypes
import numpy as np
import pytest
from torch_files import Call, module, parameter, save, save_index, save_stream

from mmcontrast.errors import UserError
from mmcontrast.interop.naming import LINEAR, Rule, to_ours
from mmcontrast.interop.weights import read_weights, write_weights

TABLE = {
  "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3).T,
  "a.bias": np.array([1.5, -2], ml_dtypes.bfloat16),
  "b.n": np.arange(3),
  "b.scale": np.array(2.5, np.float16),
}


def read(path, weights=""):
  return read_weights(path, torch=True, weights=weights)


def assert_table(found, times=1):
  assert found.keys() == TABLE.keys()
  for name, array in TABLE.items():
    assert found[name].tolist() == (times * array.astype(np.float64)).tolist()
    assert found[name].dtype == (np.int64 if name == "b.n" else np.float32)


def named(prefix, times=1):
  return {f"{prefix}{name}": np.asarray(times * array, array.dtype) for name, array in TABLE.items()}


@pytest.mark.parametrize("write", [save, save_stream])
@pytest.mark.parametrize("name", ["m.pth.tar", "m.bin", "m.ckpt", "m.pth", "epoch_3", "m.safetensors"])
def test_content_decides_not_the_suffix(write, name, tmp_path):
  write(tmp_path / name, TABLE)
  assert_table(read(tmp_path / name))
  write_weights(tmp_path / "right.pt", TABLE)
  assert_table(read_weights(tmp_path / "right.pt"))


def training(**holders):
  """What a training script saves beside the weights, of which nothing is wanted."""
  scalar = Call("numpy._core.multiarray", "scalar", (Call("numpy", "dtype", ("f8", False, True)), "x"))
  return {
    "epoch": 3,
    "args": Call("argparse", "Namespace", state={"lr": 0.1, "model": "resnet50"}, new=True),
    "best_acc1": np.array(76.5, np.float32),
    "best": scalar,
    "config": Call("omegaconf.dictconfig", "DictConfig"),
    "callbacks": {"Checkpoint": Call("mine", "State", (1,), {"x": np.zeros(2, np.float32)})},
    **holders,
    "optimizer": {"state": {0: {"exp_avg": np.zeros(6, np.float32)}}, "param_groups": [{"lr": 0.1}]},
  }


@pytest.mark.parametrize("write", [save, save_stream])
def test_what_is_beside_the_weights_is_left(write, tmp_path):
  write(tmp_path / "m.pt", training(state_dict={name: parameter(array) for name, array in TABLE.items()}))
  assert_table(read(tmp_path / "m.pt"))


@pytest.mark.parametrize(
  "prefix",
  [
    "_orig_mod.",
    "module.",
    "module._orig_mod.",
    "_orig_mod.module.",
    "_orig_mod.module._orig_mod.",
    "_fsdp_wrapped_module.module.",
  ],
)
def test_wrappers_of_training_are_taken_off(prefix, tmp_path, capsys):
  save(tmp_path / "m.pt", {"state_dict": named(prefix)})
  assert_table(read(tmp_path / "m.pt"))
  write_weights(tmp_path / "m.safetensors", named(prefix))
  assert_table(read_weights(tmp_path / "m.safetensors"))
  assert not capsys.readouterr().err


@pytest.mark.parametrize(
  "prefix, said", [("model.", "model."), ("module.student._orig_mod.", "module.student."), ("model.net.", "model.net.")]
)
def test_a_name_of_a_script_is_taken_off_and_said(prefix, said, tmp_path, capsys):
  write_weights(tmp_path / "m.safetensors", named(prefix))
  assert_table(read_weights(tmp_path / "m.safetensors"))
  assert capsys.readouterr().err == f"{tmp_path}/m.safetensors: names read without '{said}'\n"


def test_wrappers_within_names_and_the_counter_of_an_average(tmp_path):
  names = {f"module.{name.replace('a.', 'a._orig_mod.')}": array for name, array in TABLE.items()}
  write_weights(tmp_path / "m.safetensors", {**names, "n_averaged": np.array(3)})
  assert_table(read_weights(tmp_path / "m.safetensors"))


@pytest.mark.parametrize("ordinary, average", [("state_dict", "state_dict_ema"), ("model", "model_ema")])
def test_the_average_beside_the_weights_is_chosen_by_name(ordinary, average, tmp_path, capsys):
  save(tmp_path / "m.pt", training(**{average: named("module.", 2), ordinary: named("")}))
  assert_table(read(tmp_path / "m.pt"))
  assert f"read '{ordinary}', not '{average}'; to choose: --weights {average}" in capsys.readouterr().err
  assert_table(read(tmp_path / "m.pt", average), times=2)
  assert not capsys.readouterr().err


def test_students_and_teachers_are_not_guessed(tmp_path):
  save(tmp_path / "two.pt", {"student": named("module.backbone."), "teacher": named("backbone.", 2)})
  with pytest.raises(
    UserError,
    match=r"several sets of weights: student \(4 arrays\), teacher \(4 arrays\); choose "
    "one: --weights teacher",
  ):
    read(tmp_path / "two.pt")
  assert_table(read(tmp_path / "two.pt", "teacher"), times=2)
  assert_table(read(tmp_path / "two.pt", "teacher/backbone"), times=2)
  with pytest.raises(UserError, match=r"several sets of weights: student/backbone .*, teacher/backbone"):
    read(tmp_path / "two.pt", "backbone")
  one = {**named("module.student."), **named("module.teacher.", 2)}
  for path, write in ((tmp_path / "one.pt", save), (tmp_path / "one.safetensors", write_weights)):
    write(path, one)
    assert_table(read(path, "teacher"), times=2)
    with pytest.raises(UserError, match=r"--weights techer: no such part; did you mean 'teacher'"):
      read(path, "techer")


def test_an_array_under_another_name_is_shown_the_way(tmp_path):
  rules = [Rule("a.weight", "k", LINEAR), Rule("a.bias", "b")]
  wanted = {"params/k": (2, 3), "params/b": (2,)}
  arrays = {**named("encoder_q."), **named("encoder_k.")}
  with pytest.raises(
    UserError,
    match=r"no array 'a.weight', but one under 'encoder_k' and 'encoder_q', as all that "
    r"are missing; to choose: mmcontrast import \.\.\. --weights encoder_k",
  ):
    to_ours(rules, arrays, wanted, "m.pt")


def test_integers_in_the_place_of_weights_are_refused():
  rules, wanted = [Rule("w", "k", LINEAR)], {"params/k": (2, 3)}
  for dtype in (np.int8, np.uint8, np.int64):
    with pytest.raises(UserError, match=rf"'w' is of {np.dtype(dtype)}, and weights are floats"):
      to_ours(rules, {"w": np.zeros((3, 2), dtype)}, wanted, "m.pt")


def network():
  """A network of two linear layers, pickled whole and as TorchScript."""
  leaves = {"weight": np.ones((2, 3), np.float16), "bias": np.zeros(2, np.float16)}
  script = module(
    "__torch__.M",
    training=False,
    scale=np.array(4.5, np.float32),
    mode="x",
    fc=module("__torch__.torch.nn.modules.linear.Linear", **leaves),
  )
  linear = module(
    "torch.nn.modules.linear.Linear",
    _buffers={"mask": np.zeros(1, np.float32)},
    _modules={},
    _parameters={name: parameter(leaf) for name, leaf in leaves.items()},
    _non_persistent_buffers_set={"mask"},
  )
  whole = module(
    "__main__.M", _parameters={"scale": parameter(np.array(4.5, np.float32))}, _buffers={}, _modules={"fc": linear}
  )
  return script, whole


def test_a_whole_model_pickled_or_as_torchscript(tmp_path):
  script, whole = network()
  save(tmp_path / "script.pt", script, script="class M(Module):\n  pass\n")
  save(tmp_path / "whole.pt", whole)
  save(tmp_path / "in.pt", {"model": whole, "epoch": 3})
  for name in ("script", "whole", "in"):
    found = read(tmp_path / f"{name}.pt")
    assert {key: array.tolist() for key, array in found.items()} == {
      "scale": 4.5,
      "fc.weight": [[1, 1, 1], [1, 1, 1]],
      "fc.bias": [0, 0],
    }


def test_nothing_of_a_pickle_runs(tmp_path):
  made = tmp_path / "made"
  calls = [
    Call("os", "mkdir", (str(made),)),
    Call("posix", "mkdir", (str(made),)),
    Call("builtins", "exec", (f"import os; os.mkdir({str(made)!r})",)),
    Call("torch._tensor", "_rebuild_from_type_v2", (Call("torch", "mkdir"), None, (str(made),), None)),
    Call("mmcontrast.interop.torch_file", "_load_zip", (str(made),)),
  ]
  for call in calls:
    save(tmp_path / "m.pt", {"state_dict": TABLE, "evil": call})
    assert_table(read(tmp_path / "m.pt"))
    save_stream(tmp_path / "m.pt", {"state_dict": TABLE, "evil": call})
    assert_table(read(tmp_path / "m.pt"))

  class Bad:
    def __reduce__(self):
      return os.mkdir, (str(made),)

  (tmp_path / "plain.pt").write_bytes(pickle.dumps({"a": Bad()}))
  with pytest.raises(UserError, match=r"plain\.pt: damaged, .*a pickle that torch\.save did not write"):
    read(tmp_path / "plain.pt")
  assert not made.exists()


@pytest.mark.parametrize(
  "shape, strides, offset", [((4,), (1,), 3), ((2, 2), (4, 1), 0), ((2,), (-1,), 1), ((-2,), (1,), 0)]
)
def test_a_tensor_beyond_its_numbers_is_not_read(shape, strides, offset, tmp_path):
  save(tmp_path / "m.pt", {"a": np.zeros(5, np.float32)})
  with zipfile.ZipFile(tmp_path / "m.pt") as file:
    body = file.read("archive/data.pkl")
  good = b"".join(pickle.dumps(value, 2)[2:-1] for value in (0,)) + b"(" + pickle.dumps(5, 2)[2:-1] + b"t("
  good += pickle.dumps(1, 2)[2:-1] + b"t"
  evil = pickle.dumps(offset, 2)[2:-1] + b"".join(
    b"(" + b"".join(pickle.dumps(one, 2)[2:-1] for one in values) + b"t" for values in (shape, strides)
  )
  assert body.count(good) == 1
  with zipfile.ZipFile(tmp_path / "m.pt", "w") as file:
    file.writestr("archive/data.pkl", body.replace(good, evil))
    file.writestr("archive/data/0", np.zeros(5, np.float32).tobytes())
  with pytest.raises(UserError, match=r"m\.pt: damaged"):
    read(tmp_path / "m.pt")


def test_what_is_no_plain_tensor_and_no_table_is_refused(tmp_path):
  quantised = Call("torch._utils", "_rebuild_qtensor", (1, 2))
  save(tmp_path / "m.pt", {**TABLE, "c": quantised})
  with pytest.raises(UserError, match=r"'c' is made by torch\._utils\._rebuild_qtensor, .*quantised"):
    read(tmp_path / "m.pt")
  for tree in ({"a": 3}, [1, 2], Call("mine", "Model")):
    save(tmp_path / "m.pt", tree)
    with pytest.raises(UserError, match="not a table of tensors by name"):
      read(tmp_path / "m.pt")


@pytest.mark.parametrize("write", [save, save_stream])
@pytest.mark.parametrize("keep", [0, 20, 200, -1])
def test_a_file_that_was_cut_short(write, keep, tmp_path):
  write(tmp_path / "m.pt", TABLE)
  (tmp_path / "m.pt").write_bytes((tmp_path / "m.pt").read_bytes()[:keep])
  with pytest.raises(UserError, match=r"m\.pt: damaged") as error:
    read(tmp_path / "m.pt")
  assert "\n" not in str(error.value)


def test_several_torch_files_by_their_index(tmp_path):
  save(tmp_path / "1.bin", {"a": np.zeros(2, np.float32)})
  save(tmp_path / "2.bin", {"b": np.ones(2, np.float32)})
  save_index(tmp_path / "pytorch_model.bin.index.json", {"1.bin": ["a"], "2.bin": ["b"]})
  assert read(tmp_path / "pytorch_model.bin.index.json")["b"].tolist() == [1, 1]
  with pytest.raises(UserError, match="read by the import command only"):
    read_weights(tmp_path / "pytorch_model.bin.index.json")


@pytest.mark.parametrize(
  "content, said",
  [
    (
      b"version https://git-lfs.github.com/spec/v1\noid sha256:00",
      "a pointer of Git LFS, not the weights: git lfs pull",
    ),
    (b"<!DOCTYPE html><html>", "a web page, not the weights"),
    (b"\x1f\x8b\x08", "compressed by gzip"),
    (b"\x89HDF\r\n", "of HDF5"),
    (b"a" * 257 + b"ustar", "a tar archive; unpack it"),
  ],
)
def test_what_a_download_left_instead_of_weights(content, said, tmp_path):
  for name in ("m.bin", "m.safetensors"):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=said):
      read(tmp_path / name)
