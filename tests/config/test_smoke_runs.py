"""Every shipped config, made small, trains: one run for those that differ by their terms and heads alone."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from coco_fixture import make_coco
from common_runs import families, merged
from PIL import Image

from mmcontrast.config import load_config, to_json
from mmcontrast.data.pipeline import spec
from mmcontrast.modalities.audio_reading import to_wav
from mmcontrast.modalities.rows import to_npy
from mmcontrast.modalities.video_reading import packed
from mmcontrast.train import train
from mmcontrast.training.epoch_hooks import check_hooks
from mmcontrast.training.program import make_plans


def is_of_data_here(config):
  """Whether no file that a run has made is needed, nor pairs of what takes minutes to be spoken."""
  data = config["data"]
  return not data.get("added_captions") and data["source"].get("of") != "emoji_spoken"


RESOLVED = pathlib.Path(__file__).parents[1] / "golden" / "configs"  # test_configs.py renews them
FAMILIES = families(
  {str(file.relative_to(RESOLVED)).removesuffix(".py.json"): config for file in RESOLVED.rglob("*.json")
   if is_of_data_here(config := json.loads(file.read_text()))}
)  # fmt: skip


# What they are made of, albef's family trains, and of stages with hooks their own tests; of each the step is traced.
TRACED = {
  "methods/alpro",
  "methods/biovil",
  "methods/ccrk",
  "methods/gram_match",
  "methods/irra",
  "methods/lxmert",
  "methods/mcl",
  "methods/multimae",
  "methods/simmim",
  "methods/sycoca",
  "methods/vlap",
  # A recipe is a method at other sizes; clip_vit_b16 trains.
  "recipes/clip_vit_l14",
  "recipes/lit_vit_l16",
  "recipes/mct_coco",
  "recipes/moco_v3_resnet50_imagenet",
  "recipes/siglip_so400m",
  "recipes/siglip_vit_b16",
  # lit trains a stage of images, distill_clip teachers.
  "methods/cwcl",
  "methods/mobileclip",
  # Other families train tokens, texts and stages.
  "methods/cico",
  "methods/graphclip",
  "methods/meow_graphs",
  "methods/clip2scene",
  "methods/clip4clip",
  "methods/clip_moe",
  "methods/clsr",
  "methods/coavt",
  "methods/clippo",
  "methods/ila",
  "methods/more",
  "methods/pixel_linguist",
  "methods/scene_graph",
  "methods/siglip2_naflex",
  "methods/space2",
  "methods/uni3d",
  "methods/valor",
  "methods/tact",
  "methods/tvts",
  "methods/videoclip_mil",
  "methods/xbt",
  "methods/xclip",
}


@pytest.mark.parametrize(
  "names", [names for names in FAMILIES if not TRACED.issuperset(names)], ids=lambda names: names[0]
)
def test_smoke_run(names, elsewhere, tmp_path, data_dir):
  """Three steps with the heads and terms of a whole family."""
  configs = {name: smoke(name, elsewhere) for name in names}
  assert len(families(configs)) == 1
  config = merged(configs)
  state = train(config, tmp_path / "run", data_dir)
  assert int(state.step) == config["steps"] <= 5
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


@pytest.mark.parametrize("name", [name for names in FAMILIES for name in names if len(names) > 1 or name in TRACED])
def test_a_step_can_be_made(name, elsewhere, data_dir):
  """What is trained with others is a whole run by itself: its step is traced, and the state stays what it was."""
  plans = make_plans(smoke(name, elsewhere), lambda run: spec(run["data"], run["batch"]["size"], data_dir))
  for plan in plans.values():
    check_hooks(plan, data_dir)
    state, metrics = jax.eval_shape(plan.program.step, plan.program.state, plan.program.batch)
    assert shapes(state) == shapes(plan.program.state)
    assert set(plan.config["objective"]) <= {metric.partition("/")[0] for metric in metrics}


def test_a_family_differs_by_terms_and_heads_alone():
  clip, siglip, fdt = map(smoke, ("methods/clip", "methods/siglip", "methods/fdt"))
  assert families({"a": clip, "b": siglip, "c": fdt}) == [("a", "b", "c")]
  tower = {**siglip["towers"], "image": {**siglip["towers"]["image"], "name": "resnet50"}}
  for other in (
    dict(towers=tower),
    dict(data={**siglip["data"], "dataset": "other"}),
    dict(optimizer={**siglip["optimizer"], "name": "lion"}),
    dict(batch={**siglip["batch"], "size": 0}),
    dict(stages=[{"name": "one", "objective": {}}]),
  ):
    assert families({"a": clip, "b": {**siglip, **other}}) == [("a",), ("b",)]
  momentum = {**siglip, "momentum": {"decay": 0.0, "update": "after_step"}}
  assert families({"a": clip, "b": momentum}) == [("a", "b")]  # of which nothing is read
  term = dict(query="image[0]/image_joint", key="text[0]/text_joint@momentum")
  assert families({"a": clip, "b": {**momentum, "objective": {"term": term}}}) == [("a",), ("b",)]


def test_a_common_run_has_the_heads_and_terms_of_all():
  clip, fdt, words = map(smoke, ("methods/clip", "methods/fdt", "methods/token_softmax"))
  both = merged({"clip": clip, "methods/fdt": fdt, "words": words, "again": words})
  assert both["objective"]["image_text"] == clip["objective"]["image_text"]
  # fdt calls heads of its own as clip calls others
  image, text = "methods_fdt_image_joint", "methods_fdt_text_joint"
  assert both["objective"]["methods_fdt_image_text"] == {
    **fdt["objective"]["image_text"],
    "query": f"image[0]/{image}",
    "key": f"text[0]/{text}",
  }
  assert both["heads"][text] == {**fdt["heads"]["text_joint"], "shared": {"codes": image}}
  assert both["heads"]["image_joint"] == clip["heads"]["image_joint"]
  # a term that names another follows it, and a head that all have is one
  assert both["objective"]["words_among_image"]["temperature"] == "image_among_words"
  assert both["objective"]["again_words_among_image"]["temperature"] == "again_image_among_words"
  assert set(both["heads"]) == {*clip["heads"], image, text, *words["heads"]}


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory, data_dir):
  """A folder of small data in the form of those that are not here."""
  folder = tmp_path_factory.mktemp("elsewhere")
  make_coco(folder, data_dir, "train")
  shutil.copy(data_dir / "emoji_views" / "tokenizer.model", folder)
  rng, rows = np.random.default_rng(0), []
  for number in range(24):
    Image.fromarray(rng.integers(0, 255, (20, 20, 3), np.uint8)).save(folder / f"{number}.png")
    (folder / f"{number}.wav").write_bytes(to_wav(rng.normal(0, 0.1, 4_000 + 100 * number), 8_000))
    (folder / f"{number}.zip").write_bytes(packed(rng.integers(0, 255, (8, 20, 20, 3), np.uint8)))
    rows.append(dict(image=f"{number}.png", audio=f"{number}.wav", caption=f"thing {number}"))
    (folder / f"{number}.npy").write_bytes(to_npy(rng.uniform(0, 1, (40, 12))))
    rows[-1] |= dict(points=f"{number}.npy", video=f"{number}.zip", group=f"room {number % 12}")
    rows[-1]["graph"] = dict(nodes=[f"thing {number}", "a thing"], edges=[[0, 1, "hypernym"]])
    rows[-1] |= dict(boxes=[[0.0, 0.0, 0.6, 0.6], [0.3, 0.3, 1.0, 1.0]], names=[f"thing {number}", "a corner"])
  (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
  return folder


def smoke(name, elsewhere="elsewhere"):
  """A config's :smoke, resolved, of data that are here or `elsewhere`."""
  overrides = []
  if "coco" in name:
    overrides = [f"--config.data.dataset=coco:{elsewhere}"]
    overrides.append(f"--config.data.tokenizer={elsewhere}/tokenizer.model")
  elif name.startswith("recipes/"):  # their data are some terabytes
    overrides = ["--config.data.dataset=emoji_views", "--config.data.tokenizer=sentencepiece"]
    overrides += ["--config.data.token_ids.bos=1", "--config.data.token_ids.eos=2"]
  elif name == "own_data":
    overrides = ["--config.data.dataset=emoji_views", "--config.data.source={}"]
  elif load_config(name)["data"]["dataset"] == "emoji_tones":  # which takes half a minute to be drawn
    labels = [f"--config.objective.{term}.module.label=group" for term in load_config(name)["objective"]]
    overrides = ["--config.data.dataset=emoji_views", *labels]
  elif load_config(name)["data"]["dataset"] == "emoji_spoken":  # which takes minutes to be spoken
    overrides = [f"--config.data.dataset=jsonl:{elsewhere}/rows.jsonl", "--config.data.languages=()"]
    overrides.append("--config.data.source.audio=audio")
    overrides.append(f"--config.data.tokenizer={elsewhere}/tokenizer.model")
  elif load_config(name)["data"]["views"].get("video"):  # of a package of 120 MB
    overrides = [f"--config.data.dataset=jsonl:{elsewhere}/rows.jsonl", "--config.data.languages=()"]
    image = "image" if load_config(name)["data"]["views"].get("image") else None
    overrides += [f"--config.data.source={{'video': 'video', 'image': {image!r}}}", "--config.data.captions=None"]
    overrides.append(f"--config.data.tokenizer={elsewhere}/tokenizer.model")
  elif load_config(name)["data"]["dataset"] in ("furniture", "furniture_pixels"):  # which take minutes to be drawn
    overrides = [f"--config.data.dataset=jsonl:{elsewhere}/rows.jsonl", "--config.data.source.points=points"]
    overrides += ["--config.data.source.labels=('group',)"] * (name == "methods/clip2scene")
    overrides.append(f"--config.data.tokenizer={elsewhere}/tokenizer.model")
  elif load_config(name)["data"]["dataset"] == "wordnet":  # of a package of 6 MB
    overrides = [f"--config.data.dataset=jsonl:{elsewhere}/rows.jsonl", "--config.data.source={'graph': 'graph'}"]
    overrides += ["--config.objective.views.module.clusters=(4, 6)"] * ("meow" in name)
    overrides.append(f"--config.data.tokenizer={elsewhere}/tokenizer.model")
  elif load_config(name)["data"]["dataset"] == "emoji_scenes":
    overrides = [f"--config.data.dataset=jsonl:{elsewhere}/rows.jsonl"]
    overrides.append("--config.data.source.regions={'box': 'boxes', 'text': 'names'}")
    overrides.append(f"--config.data.tokenizer={elsewhere}/tokenizer.model")
  return json.loads(to_json(load_config(f"{name}:smoke", overrides)))


def shapes(tree):
  return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)
