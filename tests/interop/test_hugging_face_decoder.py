"""Text models of transformers that attend to an image (golden/make_interop_decoders.py): outputs, both ways bit by bit,
and what is refused."""

import json
import shutil

import jax
import numpy as np
import pytest
from models import GOLDEN, assert_same_arrays, assert_same_file

from mmcontrast.encoders import Encoded
from mmcontrast.errors import UserError
from mmcontrast.interop.formats import FORMATS, read
from mmcontrast.interop.initial import open_part
from mmcontrast.interop.pretrained import model_config, variables
from mmcontrast.interop.run import import_run
from mmcontrast.modalities.views import Inputs
from mmcontrast.models.model import build_model

CASES = {"hf_bert_decoder": ("decoder", 12), "hf_blip_decoder": ("decoder", 8), "hf_blip_fusion": ("fusion", 8)}


def change(folder, tmp_path, **fields):
  """A copy of `folder` in which fields of its config are others; None takes a field away."""
  copy = shutil.copytree(folder, tmp_path / "copy")
  content = json.loads((copy / "config.json").read_text()) | fields
  (copy / "config.json").write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
  return copy


@pytest.mark.parametrize("case", CASES)
def test_outputs_are_transformers(case):
  given, pretrained = np.load(GOLDEN / case / "outputs.npz"), read(f"hf:{GOLDEN / case}")
  tower, width = CASES[case]
  assert set(pretrained.towers) == {"text", tower} and bool(pretrained.heads) == ("logits" in given)
  image = {"name": "vit", "width": width, "depth": 0, "heads": 1, "patch": 1}
  model = build_model(model_config({**pretrained.towers, "image": image}, pretrained.heads, pretrained.text))
  mask = given["ids"] != pretrained.text.token_ids["pad"]

  @jax.jit
  def run(weights, ids, mask, seen):
    text = model.encode(weights, "text", Inputs(ids, mask))[0]
    fused = model.fuse(weights, tower, [text, Encoded(tokens=seen)])[0]
    return model.project(weights, "words", fused)[0].logits if pretrained.heads else fused.tokens

  found = np.asarray(run(variables(pretrained.arrays), given["ids"], mask, given["read"]))
  expected = given["logits" if pretrained.heads else "tokens"]
  np.testing.assert_allclose(found[mask], expected[mask], atol=1e-4)
  assert expected[mask].std() > 0.3


@pytest.mark.parametrize("case", CASES)
def test_in_out_in_is_bit_equal(case, tmp_path):
  first = read(f"hf:{GOLDEN / case}")
  FORMATS["hf"].plan(first, "out")
  FORMATS["hf"].write(first, tmp_path / "out")
  assert_same_file(GOLDEN / case / "model.safetensors", tmp_path / "out" / "model.safetensors")
  again = read(f"hf:{tmp_path / 'out'}")
  assert (again.towers, again.heads) == (first.towers, first.heads)
  assert again.text.token_ids == first.text.token_ids
  assert_same_arrays(again, first)
  theirs, ours = (json.loads((folder / "config.json").read_text()) for folder in (GOLDEN / case, tmp_path / "out"))
  assert theirs["architectures"] == ours["architectures"] and {key: theirs[key] for key in ours} == ours


def test_a_run_starts_from_its_parts(tmp_path):
  """A run's own tower, of another name for the image's, takes the blocks, and its head the words."""
  place = f"hf:{GOLDEN / 'hf_blip_decoder'}"
  pretrained = read(place)
  towers = {"writer": dict(pretrained.towers["decoder"], reads=("text", "photo"))}
  heads = {"words": {key: value for key, value in pretrained.heads["words"].items() if key != "tower"}}
  config = {"towers": towers, "heads": heads, "data": {"text_length": 16}}
  path, arrays = open_part(f"{place}:towers/decoder", "towers/writer", {}, config, "config.init")
  assert path == "towers/decoder" and "params/towers/decoder/blocks_0/cross_attn/kv/kernel" in arrays
  open_part(place, "heads/words", {}, config, "config.init")
  towers["writer"]["causal"] = False
  with pytest.raises(UserError, match=r"config\.towers\.writer\.causal is False, and True is needed"):
    open_part(f"{place}:towers/decoder", "towers/writer", {}, config, "config.init")
  with pytest.raises(
    UserError, match=r"holds a decoder of texts, and no image tower that it reads; start a run .*config"
  ):
    import_run(place, tmp_path / "run")
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("case, fields, message", [
  ("hf_bert_decoder", {"is_decoder": False}, r"is_decoder is False, .* has to be True"),
  ("hf_bert_decoder", {"tie_word_embeddings": False}, r"tie_word_embeddings is False"),
  ("hf_blip_decoder", {"encoder_hidden_size": None}, r"config.json: has no 'encoder_hidden_size'"),
  ("hf_blip_fusion", {"hidden_act": "gelu_fast"}, r"hidden_act: no such choice 'gelu_fast'; did you mean"),
  ("hf_blip_fusion", {"encoder_hidden_size": 9}, r"makes .* where .* is needed; the file is of another architecture"),
  ("hf_blip_decoder", {"num_hidden_layers": 1}, r"arrays are not used, the first is 'encoder.layer.1"),
], ids=str)  # fmt: skip
def test_what_we_do_not_compute_is_refused(case, fields, message, tmp_path):
  with pytest.raises(UserError, match=message) as error:
    read(f"hf:{change(GOLDEN / case, tmp_path, **fields)}")
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("changes, message", [
  (dict(norm="pre"), r"config\.towers\.decoder\.norm is 'pre', and 'post' is needed"),
  (dict(causal=False, pool="first"), r"bert has no model of a bidirectional tower with a head of words"),
])  # fmt: skip
def test_what_they_do_not_have_is_not_written(changes, message, tmp_path):
  given = read(f"hf:{GOLDEN / 'hf_bert_decoder'}")
  given.towers["decoder"].update(changes)
  with pytest.raises(UserError, match=message):
    FORMATS["hf"].write(given, tmp_path / "out")
  assert not (tmp_path / "out").exists()
