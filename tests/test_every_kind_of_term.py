"""A run with every kind of term in it is trained, evaluated, searched, described and exported.

Whoever does that asks a term what it compares, never of what kind it is: a kind that is added belongs in TERMS.
"""

import jax
import numpy as np
import pytest
from own_data import COUNT, OPTIONS, write_own_data
from PIL import Image
from tiny import five_terms, tiny_config, tiny_spec

from mmcontrast.cli import main
from mmcontrast.cost.dry_run import loss_lines
from mmcontrast.evaluate import evaluate_model
from mmcontrast.inference import Inference, load
from mmcontrast.interop.run import export_run
from mmcontrast.objectives import terms as objective
from mmcontrast.parallel.sharding import make_mesh
from mmcontrast.train import train
from mmcontrast.training.program import build_program

HEADS = {f"{tower}_{kind}": dict(tower=tower, name=f"token_{kind}", dim=8)
         for tower in ("image", "text") for kind in ("linear", "weighted")}  # fmt: skip
QUEUED = {name: five_terms()[name] for name in ("image_tags", "image_to_text", "text_to_image")}
for term in QUEUED.values():  # an epoch of the data has fewer than 32
  term["negatives"] = term["negatives"].replace(":32", ":16")
TERMS = QUEUED | dict(
  classes=dict(query="image[0]/image_joint", key="image[1]/image_joint", prototypes=4,
               target=dict(name="same_label", label="kind")),
  remembered=dict(query="image[0]/image_joint", key="text[0]/text_joint", criterion="compositional",
                  direction="both", temperature=dict(init=0.1, learned=True)),
  volume=dict(query="text[0]/text_joint", key=("image[0]/image_joint", "image[1]/image_joint"), score="gram_volume"),
  tokens=dict(query="text[0]/text_linear", key="image[0]/image_linear", score="token_max"),
  weighted=dict(query="text[0]/text_weighted", key="image[0]/image_weighted", score="token_weighted"),
  uniform=dict(regularizer="uniformity", embeddings=("image[0]/image_ssl", "image[1]/image_joint"), weight=0.1),
  align=dict(regularizer="alignment", embeddings=("image[0]/image_joint", "text[0]/text_joint"), weight=0.1),
  clusters=dict(module=dict(name="prototype_contrast", clusters=(3,)), embeddings="image[0]/image_ssl"),
  fused=dict(module=dict(name="classification", label="kind"), embeddings="fusion(text[0], image[1])/kind"),
  caption=dict(module="caption", embeddings="decoder(text[0], image[1])/words"),
)  # fmt: skip


def config(**changes):
  c = tiny_config(steps=2, objective=TERMS, **changes)
  c["heads"] |= HEADS | {"kind": dict(tower="fusion", name="match", dim=4)}
  c["heads"]["words"] = dict(tower="decoder", name="words")
  c["towers"]["writer"] = dict(
    name="text_transformer", modality="text", width=16, depth=0, heads=2, causal=True, pool="last"
  )
  c["towers"]["decoder"] = dict(
    name="fusion_transformer", reads=("writer", "image"), width=16, depth=1, heads=2, causal=True, pool="last"
  )
  c["data"]["facts"] = ("ids",)
  c["towers"]["fusion"] = dict(name="fusion_transformer", reads=("text", "image"), width=16, depth=1, heads=2)
  return c


@pytest.fixture(scope="module")
def run(tmp_path_factory, data_dir):
  """The folder of a run of two steps."""
  folder = tmp_path_factory.mktemp("every_kind")
  c = config(epoch_hooks=dict(clusters=dict(name="kmeans", term="clusters", embedding="image[0]/image_ssl")))
  c["data"] |= {"dataset": write_own_data(str(folder / "data"), "jsonl"), "source": OPTIONS, "split": "train",
                "tokenizer": str(data_dir / "emoji_views" / "tokenizer.model")}  # fmt: skip
  c["evaluation"] |= {"sets": ("mine",), "image": "image_joint", "text": "text_joint", "data": {"mine": {}},
                      "evaluators": {"retrieval": {}}, "features": "image"}  # fmt: skip
  train(c, folder / "run", data_dir)
  return folder / "run"


def test_it_is_evaluated_and_searched(run, tmp_path, capsys):
  assert main(["evaluate", "--workdir", str(run)]) == 0
  assert main(["search", "thing 3", "--workdir", str(run), "--out", str(tmp_path / "x.png"), "--count", "2"]) == 0
  assert (tmp_path / "x.png").is_file()


def test_it_writes_captions(run, tmp_path, capsys):
  places = [str(tmp_path / f"{number}.png") for number in range(2)]
  for number, place in enumerate(places):
    Image.fromarray(np.full((20, 20, 3), 100 * number, np.uint8)).save(place)
  assert main(["caption", *places, "--workdir", str(run), "--length", "4"]) == 0
  lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
  assert [path for path, _ in lines] == places and all(text for _, text in lines)
  assert main(["caption", places[0], "--workdir", str(run), "--length", "99"]) == 2
  assert capsys.readouterr().err.startswith("error: caption: length=99 tokens")


@pytest.mark.parametrize("kind", ["linear", "weighted"])
def test_it_is_evaluated_by_its_tokens(run, kind):
  """Those terms among others are compared by."""
  model = load(run)
  options = {**model.config["evaluation"], "image": f"image_{kind}", "text": f"text_{kind}"}
  by_tokens = Inference({**model.config, "evaluation": options}, model.model, model.variables, model.tokenizer)
  assert by_tokens.compares_tokens
  results = evaluate_model(by_tokens, by_tokens.config)
  assert results["mine/text_to_image/queries"] == 2 * COUNT and 0 <= results["mine/text_to_image/recall@1"] <= 1


def test_it_is_exported(run, tmp_path):
  assert (export_run(run, "stablehlo", tmp_path / "out") / "image.stablehlo").is_file()


def test_every_kind_describes_itself():
  """What it compares, its logits and its matrices, for whoever asks."""
  c = config()
  c["objective"] = {name: term for name, term in TERMS.items() if name not in ("classes", "fused", "caption")}
  mesh = make_mesh({"data": 1}, jax.devices()[:1])
  program = build_program(c, tiny_spec(), mesh)
  lines = loss_lines(c, program, mesh)
  described = {line.split(":")[0].strip() for line in lines}
  assert described == set(c["objective"]) - {"align", "clusters"}  # which have no matrix
  terms = program.method.terms
  compared = [one.name for one in objective.comparisons(terms)]
  assert compared == [name for name in c["objective"] if name not in ("uniform", "align", "clusters")]
  learned = {"image_to_text": {"log_scale": np.float32(2.0)}, "remembered": {"log_scale": np.float32(1.0)}}
  scales = {name: term.logit_scale(learned) for name, term in terms.items()}
  assert scales["text_to_image"] == (pytest.approx(np.exp(2.0)), None) and scales["uniform"] is None
