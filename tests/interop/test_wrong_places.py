"""Folders of another kind, and files beside weights that were damaged or edited: one line, and nothing is written."""

import json
import pathlib
import shutil

import pytest
from models import GOLDEN

from mmcontrast.errors import UserError
from mmcontrast.interop.run import import_run

SOURCES = {
  "open_clip": ("open_clip_siglip", "open_clip_config.json"),
  "hf": ("hf_bert", "config.json"),
  "timm": ("timm_resnet", "config.json"),
}


def refused(place: str, folder: pathlib.Path, message: str) -> None:
  with pytest.raises(UserError, match=message) as error:
    import_run(place, folder / "run")
  assert "\n" not in str(error.value) and not (folder / "run").exists()


@pytest.mark.parametrize(
  "kind, source, said",
  [
    ("open_clip", "hf_siglip", r"of another kind: hf:.*hf_siglip"),
    ("hf", "open_clip_siglip", r"kind: open_clip:"),
    ("timm", "hf_vit", "another kind: hf:"),
    ("hf", "timm_vit", "another kind: timm:"),
  ],
)
def test_a_folder_of_another_kind_is_named(kind, source, said, tmp_path):
  refused(f"{kind}:{GOLDEN / source}", tmp_path, said)


def test_a_run_is_no_import(tmp_path):
  import_run(f"timm:{GOLDEN / 'timm_resnet'}", tmp_path / "first")
  refused(f"hf:{tmp_path / 'first'}", tmp_path, r"is a run of mmcontrast already: --workdir .*first")


@pytest.mark.parametrize("text", ["", "{", '{"a"', "[]", "null", "3"])
@pytest.mark.parametrize(
  "kind, source, name",
  [
    *((kind, source, name) for kind, (source, name) in SOURCES.items()),
    ("hf", "hf_siglip", "tokenizer_config.json"),
    ("hf", "hf_bert", "sentence_bert_config.json"),
    ("hf", "hf_bert", "modules.json"),
    ("hf", "hf_vit", "preprocessor_config.json"),
    ("hf", "hf_bert", "1_Pooling/config.json"),
  ],
)
def test_a_damaged_file_beside_the_weights(kind, source, name, text, tmp_path):
  shutil.copytree(GOLDEN / source, tmp_path / "in")
  (tmp_path / "in" / name).write_text(text)
  if (name, text) == ("modules.json", "[]"):  # no module: a plain BERT
    import_run(f"{kind}:{tmp_path / 'in'}", tmp_path / "run")
  else:
    refused(f"{kind}:{tmp_path / 'in'}", tmp_path, rf"{name}: (damaged|holds a)")


@pytest.mark.parametrize("value", [None, "x", -1, 0, []])
@pytest.mark.parametrize(
  "source, name, key",
  [
    ("hf_vit", "config.json", "hidden_size"),
    ("hf_vit", "config.json", "layer_norm_eps"),
    ("hf_vit", "preprocessor_config.json", "image_std"),
    ("timm_resnet", "config.json", "pretrained_cfg/crop_pct"),
    ("timm_resnet", "config.json", "pretrained_cfg/input_size"),
    ("open_clip_siglip", "open_clip_config.json", "model_cfg"),
    ("open_clip_siglip", "open_clip_config.json", "model_cfg/text_cfg/width"),
  ],
)
def test_a_value_that_makes_no_sense(source, name, key, value, tmp_path):
  shutil.copytree(GOLDEN / source, tmp_path / "in")
  config = json.loads((GOLDEN / source / name).read_text())
  *holders, last = key.split("/")
  place = config
  for holder in holders:
    place = place[holder]
  place[last] = value
  (tmp_path / "in" / name).write_text(json.dumps(config))
  refused(f"{source.rpartition('_')[0]}:{tmp_path / 'in'}", tmp_path, str(tmp_path))


@pytest.mark.parametrize(
  "kind, source, name",
  [("open_clip", "open_clip_clip", "open_clip_model.safetensors"), ("hf", "hf_bert", "model.safetensors")],
)
def test_weights_that_are_empty_or_a_folder(kind, source, name, tmp_path):
  shutil.copytree(GOLDEN / source, tmp_path / "in")
  (tmp_path / "in" / name).write_bytes(b"")
  refused(f"{kind}:{tmp_path / 'in'}", tmp_path, rf"{name}: damaged")
  (tmp_path / "in" / name).unlink()
  (tmp_path / "in" / name).mkdir()
  refused(f"{kind}:{tmp_path / 'in'}", tmp_path, "no weights there")
