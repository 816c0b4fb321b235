"""Weights and embeddings that are NaN or infinite are refused with their place, wherever they come in or go out."""

import json
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
from interop.models import GOLDEN
from tiny import tiny_inference

from mmcontrast.errors import UserError
from mmcontrast.interop import formats, open_clip
from mmcontrast.interop.program import programs
from mmcontrast.interop.run import export_run, import_run
from mmcontrast.interop.weights import read_weights, write_weights
from mmcontrast.models.finite import check_rows, not_finite
from mmcontrast.runs.checkpoint import load_run, save_untrained
from mmcontrast.training import initialization


@pytest.mark.parametrize("value, said", [(np.nan, "NaN in 2 of 6"), (-np.inf, "infinity in 2 of 6"), (1e38, "")])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, ml_dtypes.bfloat16])
def test_the_array_is_named(value, said, dtype):
  array = np.zeros((2, 3), dtype)
  array[:, 1] = value
  found = not_finite({"a": np.arange(3), "b": array, "c": array, "d": np.array([True])})
  assert found == (f"'b' holds {said} numbers, and 1 more arrays are such" if said else "")


def test_the_row_is_named_and_whose_fault_it_is():
  rows = np.zeros((3, 4), np.float32)
  check_rows(rows, "embed", str, {})
  rows[1:, 2] = np.nan
  with pytest.raises(
    UserError,
    match=r"^embed: the embedding of record 1 is not finite, nor are 1 more of 3: of the "
    r"weights 'w' holds NaN in 1 of 1 numbers; take a checkpoint",
  ):
    check_rows(rows, "embed", "record {}".format, {"v": np.ones(2), "w": np.float32("nan")})
  with pytest.raises(UserError, match="no weight is NaN, but they are too large"):
    check_rows(rows, "embed", str, {"v": np.ones(2)})


@pytest.fixture(scope="module")
def broken():
  """A model of which one bias of the image tower is NaN; its text tower is whole."""
  model = tiny_inference()
  model.variables["params"]["towers"]["image"]["norm"]["bias"] = np.full(8, np.nan, np.float32)
  return model


def test_what_encodes_ends_with_a_line(broken, tmp_path):
  weights = r"of the weights 'params/towers/image/norm/bias' holds NaN in 8 of 8 numbers"
  for encode, name in (
    (broken.encode_image, "encode_image: the embedding of image 0"),
    (lambda pixels: broken.embed("image", pixels), "embed: the embedding of image 0"),
    (lambda pixels: broken.embed("image", pixels, "photo {}".format), "embed: .* of photo 0"),
  ):
    with pytest.raises(UserError, match=f"^{name} is not finite, nor are 1 more of 2: {weights}"):
      encode(np.zeros((2, 16, 16, 3), np.uint8))
  assert np.isfinite(broken.encode_text(["a", "b"])).all()


def test_a_program_is_not_written(broken):
  with pytest.raises(UserError, match=r"^the image tower: 'params/towers/image/norm/bias' holds NaN"):
    programs(broken)


def clip(folder, **changed):
  """The tiny CLIP of open_clip with a tokenizer, and other values at the beginning of the arrays named."""
  shutil.copytree(GOLDEN / "open_clip_clip", folder)
  shutil.copy(GOLDEN / "open_clip_siglip" / "tokenizer.json", folder)
  config = json.loads((folder / open_clip.CONFIG).read_text())
  config["model_cfg"]["text_cfg"] |= {"pool_type": "eos", "eos_id": 1, "hf_tokenizer_name": "somewhere"}
  (folder / open_clip.CONFIG).write_text(json.dumps(config))
  arrays = {name: np.array(array) for name, array in read_weights(folder / open_clip.WEIGHTS).items()}
  for name, value in changed.items():
    arrays[name.replace("__", ".")].reshape(-1)[:1] = value
  write_weights(folder / open_clip.WEIGHTS, arrays)
  return f"open_clip:{folder}"


@pytest.mark.parametrize(
  "changed, said",
  [
    (dict(visual__ln_post__bias=np.nan), r"'visual\.ln_post\.bias' holds NaN in 1 of 16 numbers"),
    (dict(text_projection=np.inf), r"'text_projection' holds infinity in 1 of "),
    (dict(logit_scale=np.nan), r"'logit_scale' is nan, and one finite number is needed"),
    (dict(logit_scale=100.0), r"'logit_scale' is 100, the logarithm of a number beyond float32"),
  ],
)
def test_an_import_is_refused(changed, said, tmp_path):
  place = clip(tmp_path / "clip", **changed)
  with pytest.raises(UserError, match=said):
    import_run(place, tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_an_export_is_refused(tmp_path):
  import_run("timm:" + str(GOLDEN / "timm_vit_clip"), tmp_path / "run")
  config, variables, _ = load_run(tmp_path / "run")
  variables["params"]["towers"]["image"]["norm"]["scale"][0] = np.nan
  save_untrained(tmp_path / "broken", config, {**variables, "params": {**variables["params"], "terms": {}}})
  for to in ("timm", "stablehlo"):
    with pytest.raises(UserError, match=r"norm/scale' holds NaN in 1 of"):
      export_run(tmp_path / "broken", to, tmp_path / to)
    assert not (tmp_path / to).exists()


def test_no_run_starts_from_them(tmp_path, monkeypatch):
  """Neither from a file of another package nor from a run."""
  shapes = {"params": {"towers": {"image": {"kernel": jax.ShapeDtypeStruct((2,), np.float32)}}}, "batch_stats": {}}
  found = {"params": {"towers": {"image": {"kernel": np.float32([1, np.inf])}}}, "batch_stats": {}}
  monkeypatch.setattr(initialization, "load_run", lambda place: (None, found, 0))
  with pytest.raises(UserError, match=r"^config\.init\['towers/image'\]: 'params/towers/image/kernel' holds infinity"):
    initialization.initial_arrays({"init": {"towers/image": f"{tmp_path}:towers/image"}}, shapes, {})
  with pytest.raises(UserError, match=r"'visual\.conv1\.weight' holds NaN"):
    formats.read(clip(tmp_path / "clip", visual__conv1__weight=np.nan))
