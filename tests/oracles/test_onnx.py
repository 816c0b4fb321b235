"""ONNX programs by onnxruntime, beside the model they were made of: within 1e-4."""

import numpy as np
import onnxruntime
import pytest
from tiny import tiny_inference

from mmcontrast.errors import UserError
from mmcontrast.interop import onnx

IDS = np.array([[1, 5, 9, 2, 0], [1, 2, 0, 0, 0], [1, 4, 4, 4, 2], [4, 4, 0, 0, 0]], np.int32)
CLIP = dict(
  image=dict(pool="cls", pre_norm=True, activation="quick_gelu"),
  text=dict(causal=True, pool="eos", activation="quick_gelu"),
)
SIGLIP = dict(image=dict(pool="map"), text=dict(pool="last", attend_padding=True))


@pytest.mark.parametrize("towers", [{}, CLIP, SIGLIP], ids=["plain", "clip", "siglip"])
def test_both_towers(tmp_path, towers):
  model = tiny_inference(towers=towers)
  onnx.write(model, tmp_path / "out")
  images = np.random.default_rng(0).integers(0, 255, (5, 16, 16, 3), np.uint8)
  model.tokenizer.encode = lambda texts, length: IDS
  for kind, values, ours in (
    ("image", images, model.embed("image", images)),
    ("text", IDS, model.encode_text(["a"] * len(IDS))),
  ):
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / f"{kind}.onnx"))
    assert [one.name for one in session.get_inputs()] == [kind] and session.get_inputs()[0].shape[0] == "batch"
    np.testing.assert_allclose(session.run(["rows"], {kind: values})[0], ours, atol=1e-4)


def test_a_program_that_comes_out_different_is_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(onnx, "MOST", -1.0)
  with pytest.raises(UserError, match=r"image tower comes out different.*torch\.onnx"):
    onnx.write(tiny_inference(), tmp_path / "out")
  assert not list(tmp_path.iterdir())
