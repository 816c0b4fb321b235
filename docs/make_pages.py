"""Writes docs/config.md and the tables of docs/optimizers.md from the code: python docs/make_pages.py

Keys and defaults are those of `base_config` and of the rooms (mmcontrast/options.py); what an option of a room means is
its docstring's words, what a key of the program means stands in MEANINGS. tests/test_pages.py holds the pages to the
code.
"""

from __future__ import annotations

import functools
import inspect
import pathlib
import re
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

from mmcontrast import augment, optim, schedules
from mmcontrast.config import base_config
from mmcontrast.encoders import ENCODERS, HEADS
from mmcontrast.evaluation.suite import EVALUATORS
from mmcontrast.objectives.criteria import CRITERIA
from mmcontrast.objectives.module_term import MODULES
from mmcontrast.objectives.parse import KINDS
from mmcontrast.objectives.regularizers import REGULARIZERS
from mmcontrast.objectives.scores import SCORES
from mmcontrast.objectives.targets import TARGETS
from mmcontrast.objectives.temperature import Temperature
from mmcontrast.options import REQUIRED, section
from mmcontrast.update_rules import RULES

DOCS = pathlib.Path(__file__).parent

MEANINGS = {
    "seed": "of weights, order, crops and augmentation",
    "steps": "optimizer steps of the run, or of each stage that gives none",
    "epochs": "instead of steps: passes over the data (set `steps` to 0); 0: steps are given",
    "stages": "parts of the run, trained in turn: [stages](methods/stages.md)",
    "init": "where parts of the run start from: {\"towers/image\": \"timm:resnet50@FILE\"}, "
            "[weights](weights.md), [stages](methods/stages.md)",
    "batch.size": "examples a step, over all devices and processes",
    "batch.microbatches": "chunks that the batch is encoded in, to save memory; the gradient stays that of the whole",
    "data.dataset": "NAME or KIND:PATH, such as \"jsonl:/data/mine.jsonl\": [data](data.md)",
    "data.source": "options of the dataset: [data](data.md)",
    "data.split": "\"train\", \"validation\", \"test\" or \"all\"",
    "data.mixture": "several datasets by weight, instead of the three above: [mixtures](mixtures_and_faults.md)",
    "data.image_size": "pixels of a side of what the model sees",
    "data.views": "views of an example: how many images, how many texts; one that is left out is not read",
    "data.drawings": "which of several images of one thing its views show: \"distinct\", \"same\" or \"any\"",
    "data.crop": "of random crops: share of the area, ratio of the sides, `zoom_out`, degrees of `rotate`: "
                 "[augmentation](augmentation.md)",
    "data.multi_crop.views": "further small crops of an image, the views `image_small`",
    "data.multi_crop.size": "their pixels",
    "data.multi_crop.scale": "their share of the area, (least, most)",
    "data.trim": "makes a drawing on white fill its square; for drawings, not for photographs",
    "data.centre_crop": "share of the side that evaluation sees",
    "data.resize.mode": "how evaluation makes an image square: \"crop\", \"shortest\" or \"squash\"",
    "data.resize.interpolation": "\"bilinear\" or \"bicubic\"",
    "data.languages": "text views are names in these languages, instead of captions",
    "data.captions": "which caption fields text views show: None (any), weights, or a field a view",
    "data.missing": "an example without an image or caption: \"skip\" it, count it as \"bad\", or \"mask\" it for what "
                    "reads that",
    "data.identity": "what target same_id compares: the \"record\", or its first \"caption\"",
    "data.filter.min_side": "pixels of the shorter side that an image must have",
    "data.filter.max_aspect": "the longer side over the shorter, at most; 0: any",
    "data.filter.min_caption": "characters that a caption must have",
    "data.filter.max_caption": "and may have; 0: any number",
    "data.limits.pixels": "an image of more is bad",
    "data.limits.bytes": "a file of more is bad",
    "data.limits.caption_characters": "a caption of more is cut",
    "data.text_length": "tokens of a text, the first and the last mark included",
    "data.tokenizer": "\"sentencepiece\" (the dataset's own), a file of it, or KIND:PATH: [tokenizers](tokenizers.md)",
    "data.lower": "whether texts are made lower case; \"canonicalize\": without punctuation too (SigLIP)",
    "data.special_tokens": "of a huggingface: tokenizer, written in a caption, such as `</s>`: \"text\" as any other, "
                           "or \"read\" as what they are",
    "data.token_ids.pad": "of the tokenizer; checked",
    "data.token_ids.bos": "of the tokenizer; checked",
    "data.token_ids.eos": "of the tokenizer; checked",
    "data.on_error.max_share": "share of records that may be bad before the run stops",
    "data.on_error.retries": "how often a failed read is tried again",
    "data.on_error.backoff_seconds": "before the first of them; twice as long before each next one",
    "data.on_error.timeout_seconds": "a read that takes longer has failed",
    "data.cache": "decoded images kept in memory: \"decoded\", \"none\", or \"auto\" (up to 512 MiB)",
    "data.read.threads": "that read and decode",
    "data.read.prefetch": "batches prepared ahead",
    "augment.image": "a recipe, by name or options, for all image views, or a list of one a view",
    "normalize.mean": "of the channels, subtracted from images in [0, 1]",
    "normalize.std": "of the channels, divided by",
    "towers": "name -> encoder and its options, below",
    "heads": "name -> head, its tower and its options, below",
    "momentum.decay": "of the momentum branch: a number or a schedule",
    "momentum.update": "\"before_keys\" (MoCo) or \"after_step\" (BYOL)",
    "objective": "name -> term, regularizer or module, below",
    "update_rule": "how the gradients of terms become one, below",
    "matrix.impl": "of the similarity matrix: \"dense\", \"rows\", \"ring\", or \"auto\": "
                   "[global matrix](methods/global_matrix.md)",
    "matrix.tile": "rows and columns that are in memory at a time",
    "optimizer": "name and options: [optimizers](optimizers.md)",
    "lora.targets": "a regex of the paths of matrices that are adapted; \"\": none: [fine-tuning](fine_tuning.md)",
    "lora.rank": "of the matrices beside them",
    "lora.alpha": "over `rank`: the factor of what they add",
    "ema.decay": "of an average of the weights, which evaluation uses: a number or a schedule; 0: none",
    "mesh.data": "devices of the axis over which the batch is cut; -1: all that are left",
    "mesh.fsdp": "devices over which parameters are cut, and the batch too",
    "mesh.tensor": "devices over which the width of layers is cut",
    "sharding": "\"dp\", \"fsdp\", \"fsdp_tp\", or a list of (regex, cut): [scaling](scaling.md)",
    "distributed.mode": "several processes as one run: \"auto\" (where the environment says so), \"on\" or \"off\"",
    "distributed.coordinator": "HOST:PORT of the first process; \"\": from the environment",
    "distributed.processes": "how many; 0: from the environment",
    "distributed.process_id": "of this one; -1: from the environment",
    "distributed.timeout_seconds": "of silence, after which a process is lost",
    "distributed.start_timeout_seconds": "until all processes must have started",
    "checkpoint.every_steps": "steps from one checkpoint to the next",
    "checkpoint.keep_last": "how many of the newest are kept",
    "checkpoint.keep_best": "how many of the best are kept",
    "checkpoint.best_metric": "by what: a metric of the training step, or of an evaluation, such as "
                              "\"mine/image_to_text/recall@1\"",
    "checkpoint.best_mode": "\"min\" or \"max\" of it is best; \"auto\": the largest of recall, accuracy, mean average "
                            "precision and top-k, the smallest of anything else",
    "checkpoint.changed_data": "a run that goes on with other data than it began with: \"refuse\" or \"accept\"",
    "evaluation.sets": "what is evaluated on, by name: [evaluation](evaluation.md)",
    "evaluation.train_sets": "what probes train on; (): those of `sets` that were trained on",
    "evaluation.optional_sets": "those that may be missing",
    "evaluation.data": "your own sets, by name, below",
    "evaluation.evaluators": "what is run on them, by name, below",
    "evaluation.image": "the head of images whose space is searched",
    "evaluation.text": "the head of texts whose space is searched",
    "evaluation.features": "the tower whose features probes look at",
    "evaluation.batch_size": "examples that are encoded at a time",
    "evaluation.every_steps": "steps from one evaluation during training to the next; 0: none",
    "log.every_steps": "steps from one line of metrics to the next",
    "log.watchdog_seconds": "a read or a step that takes longer ends the process; 0: never",
}
"""What each key of the program means; a section that is no table of keys has one line."""

SHARED = {
    "width": "of the tokens, or of the first stage", "depth": "how many blocks or layers",
    "heads": "of attention, which divide the width", "mlp_ratio": "hidden width of an MLP over the width",
    "dropout": "probability", "drop_path": "probability of leaving out the last block, rising linearly from zero",
    "norm_epsilon": "of the norms", "dtype": "of the computation; parameters are float32",
    "activation": "of the MLPs", "vocab_size": "tokens there are; that of the tokenizer where it is left out",
    "pool": "how tokens, or cells of the last map, become one vector", "bn_momentum": "of the running statistics",
    "bn_epsilon": "of batch normalisation", "mlp": "\"plain\" or \"swiglu\"",
    "patch_bias": "whether the patches' projection has a bias",
    "pool_queries": "of pool=\"queries\"", "pool_heads": "of pool=\"queries\" and \"map\"",
    "pool_dim": "width of pool=\"queries\"; None: the tower's",
    "attention": "how attention is computed; changes no output", "dim": "length of the embedding",
    "bias": "whether there is one", "margin": "by how much a positive must beat a negative",
    "eps": "least value of a remembered denominator", "multiply_tau": "whether the loss is times the temperature",
    "label": "name of the label", "threshold": "overlap from which on examples are positives",
    "t": "how fast the potential falls with the squared distance",
    "name": "which", "modality": "of its inputs, \"image\" or \"text\"; None: its name",
    "tower": "the tower that it projects", "of": "the head that it reads instead of a tower",
    "module": "which, and its options", "stop_gradient": "those of them that get no gradient",
    "shared": "submodule -> the head whose parameters it uses",
    "query": "the embedding that chooses, \"VIEW/HEAD\", or a list", "key": "what it chooses among",
    "score": "how two embeddings are compared", "target": "which pairs are positive, and how much",
    "criterion": "what the scores are asked to do",
    "negatives": "\"batch\", \"queue:K\", \"batch+queue:K\", \"permuted\" or \"combined\"",
    "negative_keys": "more keys for every query, positives of none", "negative_queries": "more queries for every key",
    "negative_weights": "(w, v): a hard negative counts w times for its own example, v times for others",
    "token_keys": "each token of a key is a key", "prototypes": "learned vectors that every anchor sees",
    "direction": "\"rows\" (a query chooses a key), \"columns\", or \"both\"",
    "temperature": "a number, options (below), or another term's name; None: the criterion's",
    "weight": "of the loss: a number or a schedule", "regularizer": "which, and its options",
    "embeddings": "the embeddings that it takes", "dataset": "NAME or KIND:PATH; left out: that of config.data",
    "source": "its options", "split": "of the dataset", "style": "which of several images of a thing; None: the first",
    "sets": "those it looks at; (): all of evaluation.sets",
    "baselines": "\"untrained\", \"pixels\": the same without training, [evaluation](evaluation.md)",
    "templates": "sentences around a class name", "names": "the names of the classes, other than the data's",
    "k": "how many neighbours vote", "test_splits": "whose examples are tested",
    "l2_grid": "of the probe's decay, tried",
    "steps": "of the probe's training", "base": "the recipe that the options change",
    "init": "the number it starts at", "learned": "whether it is trained",
    "flip": "probability of mirroring", "brightness": "strength", "contrast": "strength", "saturation": "strength",
    "hue": "shift, in turns", "jitter_probability": "of the four above", "grey": "probability",
    "blur": "probability", "blur_sigma": "(least, most), pixels", "blur_kernel": "taps; None: a tenth of the height",
    "solarize": "probability",
}
"""What options mean whose room does not say so itself, or says it for several at once."""


def words_of(builder: Any) -> dict[str, str]:
  """The options that the docstring of a builder, or of the classes it is made of, explains."""
  builder = builder.func if isinstance(builder, functools.partial) else builder
  found: dict[str, str] = {}
  for one in reversed(builder.__mro__) if inspect.isclass(builder) else (builder,):
    names: list[str] = []
    for line in inspect.cleandoc(one.__doc__ or "").splitlines():
      entry = re.match(r"(\s*)([a-z_]\w*(?:, [a-z_]\w*)*): (.*)$", line)
      if entry:
        names, indent = entry[2].split(", "), len(entry[1])
        found |= dict.fromkeys(names, entry[3])
      elif names and line.strip() and len(line) - len(line.lstrip()) > indent:
        found |= {name: f"{found[name]} {line.strip()}" for name in names}
      else:
        names = []
  return found


def wrapped(text: str) -> list[str]:
  """A paragraph, in lines of at most 120 letters."""
  return [*textwrap.wrap(text, 120, break_long_words=False, break_on_hyphens=False), ""]


def cell(value: Any) -> str:
  """A default as it is written in a config."""
  return "required" if value is REQUIRED else f"`{value!r}`"


def table(options: Mapping[str, Any], words: Mapping[str, str], first: str = "option") -> list[str]:
  """A table of options, their defaults and what they mean; KeyError for one that nobody explains."""
  rows = [f"| `{name}` | {cell(default)} | {(words.get(name) or SHARED[name]).replace('|', chr(92) + '|')} |"
          for name, default in options.items()]
  return [f"| {first} | default | meaning |", "|---|---|---|", *rows, ""]


def program_keys(section_: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """The keys of the program and their defaults; a section that has one meaning is one entry."""
  found = {}
  for key, value in section_.items():
    path = f"{prefix}{key}"
    if isinstance(value, Mapping) and path not in MEANINGS:
      found |= program_keys(value, f"{path}.")
    else:
      found[path] = value
  return found


def of_room(title: str, registry: Mapping[str, Any], path: tuple[str, ...], intro: str) -> list[str]:
  """A table for each builder of a room; builders of equal options and defaults share one."""
  base, lines = base_config().to_dict(), [f"### {title}", "", *wrapped(intro)]
  groups: dict[str, list[str]] = {}
  for name, builder in registry.items():
    options = {key: default for key, default in section(path, {"name": name}, base).options.items()
               if key not in ("name", "modality", "tower", "of", "shared")}
    text = "\n".join(table(options, words_of(builder))) if options else "No options.\n"
    groups.setdefault(text, []).append(name)
  for text, names in groups.items():
    lines += ["**" + ", ".join(f"`{name}`" for name in names) + "**", "", text]
  return lines


def family(registry: Mapping[str, Any]) -> dict[str, list[str]]:
  """The names of a registry by the class that they build: sizes of one architecture together."""
  found: dict[str, list[str]] = {}
  for name, builder in registry.items():
    found.setdefault((builder.func if isinstance(builder, functools.partial) else builder).__name__, []).append(name)
  return found


def towers() -> list[str]:
  """A table for each architecture; what a size of it sets by itself is a column's text."""
  base, lines = base_config().to_dict(), []
  for names in family(ENCODERS).values():
    options = {name: section(("towers", "x"), {"name": name}, base).options for name in names}
    keys = [key for key in options[names[0]] if key not in ("name", "modality")]
    lines += ["**" + ", ".join(f"`{name}`" for name in names) + "**", ""]
    lines += ["| option | default | meaning |", "|---|---|---|"]
    words = words_of(ENCODERS[names[0]])
    for key in keys:
      values = {name: cell(options[name][key]) for name in names}
      shown = values[names[0]] if len(set(values.values())) == 1 else "by the size"
      lines.append(f"| `{key}` | {shown} | {words.get(key) or SHARED[key]} |")
    lines.append("")
  return lines


def config_page() -> str:
  """The text of docs/config.md."""
  base = base_config().to_dict()

  def options(path: tuple[str, ...], value: Any) -> Mapping[str, Any]:
    return section(path, value, base).options

  lines = [
      "# All keys of a config", "",
      *wrapped("Made by `python docs/make_pages.py`. Each can be given on the command line, as `--config.KEY=VALUE`, "
               "whether or not a config mentions it. A value is read as Python; text needs no quotation marks. A term, "
               "tower, head or set is named by the config; a new one is given whole: "
               "`--config.evaluation.data.mine=\"{'split': 'validation'}\"`. In one stage only: "
               "`--config.stages.NAME.KEY=VALUE`."),
      "## Config files", "",
      *wrapped("`--config NAME` is a config of the package, `quickstart` or `methods/clip` (or `clip`), of those that "
               "`mmcontrast configs` lists; `--config FILE.py` is one of your own, in any folder. What follows a colon "
               "is its argument: `clip:smoke` is small enough for seconds, `own_data:size=tiny,image_size=64` sets two "
               "numbers. A file has a function `get_config(arg=None)` that returns the config. It may import files "
               "beside it, which are its own (another folder's file of the same name is another), and the configs of "
               "the package: `from mmcontrast.configs.methods import clip`. `mmcontrast.config.arguments` reads "
               "arguments, and `sized` takes `smoke` only."),
      "## Keys of the program", "", *table(program_keys(base), MEANINGS, "key"),
      "## Sections whose options go by a name", "",
      *wrapped("Where an option is itself such a mapping, the name is short for it: `criterion=\"softmax\"` is "
               "`criterion=dict(name=\"softmax\")`, and `temperature=0.1` is "
               "`temperature=dict(init=0.1, learned=False)`."),
      "### `towers.NAME`", "",
      *wrapped("`name`: the encoder. `modality`: \"image\" or \"text\"; left out, the tower's name says it. A default "
               "\"by the size\" is that of the published model of that name: [encoders](encoders.md)."),
      *towers(),
      *of_room("`heads.NAME`", HEADS, ("heads", "x"),
               "`name`: the head. `tower`: what it projects; or `of`: the head that it reads (a predictor). `shared`: "
               "submodule -> head that it is of."),
      "### `objective.NAME`, a term", "", *table(options(("objective", "x"), {}), {}),
      "### `objective.NAME`, a regularizer", "", *table(options(("objective", "x"), {"regularizer": ""}), {}),
      "### `objective.NAME`, a module", "", *table(options(("objective", "x"), {"module": ""}), {}),
      "### `temperature` of a term", "", *table(options(("objective", "x", "temperature"), {}), words_of(Temperature)),
      "### `bias` of a term", "", *table(options(("objective", "x", "bias"), {}), {}),
  ]
  for key, registry, intro in (
      ("score", SCORES, "How a query and a key are compared."), ("target", TARGETS, "Which pairs are positive."),
      ("criterion", CRITERIA, "What the scores are asked to do."),
      ("regularizer", REGULARIZERS, "What is asked of embeddings themselves."),
      ("module", MODULES, "What learns parameters or remembers arrays of its own.")):
    title = f"`{key}`" if key in KINDS else f"`{key}` of a term"
    lines += of_room(title, registry, ("objective", "x", key), intro)
  lines += of_room("`update_rule`", RULES, ("update_rule",), "How the gradients of several terms become one.")
  names = ", ".join(f"`{name}`" for name in (*augment.RECIPES, *augment.PAIRS))
  lines += ["### A recipe, `augment.image` and `augment.image_small`", "",
            *wrapped(f"By name, one of {names}, or by options; [augmentation](augmentation.md)."),
            *table(options(("augment", "image"), {"base": "none"}), {})]
  lines += ["### `evaluation.data.NAME`", "", *table(options(("evaluation", "data", "x"), {}), {}),
            "### `evaluation.evaluators.NAME`", ""]
  for name, function in EVALUATORS.items():
    lines += [f"**`{name}`**", "", *table(options(("evaluation", "evaluators", name), {}), words_of(function))]
  return "\n".join(lines).rstrip() + "\n"


SCHEDULE_WORDS = {
    "value": "the number", "init": "the first number; of a warm-up, where it starts", "end": "the last number",
    "peak": "the number after the warm-up",
    "begin_steps": "steps before anything moves", "begin_epochs": "the same in passes over the data",
    "steps": "from begin to end, warm-up included; None: the rest of the run", "epochs": "the same in epochs",
    "warmup_steps": "from `init` to `peak`", "warmup_epochs": "the same in epochs",
}
OPTIMIZER_WORDS = {
    "name": "which",
    "learning_rate": "a number or a schedule", "weight_decay": "a number, which spares biases, norms, layer scales and "
    "the numbers of terms; or rules (regex, number) that cover every parameter",
    "learning_rate_multipliers": "rules (regex, number); 1 where none matches",
    "layer_decay": "factor of the rate from one layer to that before it; or a number a tower: "
    "[fine-tuning](fine_tuning.md)",
    "frozen": "regexes of parameters that stay as they are", "clip_norm": "most that the norm of all gradients may be; "
    "None: any",
    "b1": "decay of the mean of gradients", "b2": "decay of the mean of their squares", "eps": "added to the root",
    "mu_dtype": "type in which the mean of gradients is kept; None: that of the parameters",
    "momentum": "share of the last direction that is kept; 0: none", "nesterov": "whether it looks ahead",
    "trust_coefficient": "of the trust ratio",
}


def optimizer_tables() -> dict[str, str]:
  """The generated parts of docs/optimizers.md, by name."""
  shared = optim.options_of("")
  own = {name: {key: value for key, value in optim.options_of(name).items() if shared.get(key, ...) != value}
         for name in optim.OPTIMIZERS}
  parts = {"shared": "\n".join(table(shared, OPTIMIZER_WORDS))}
  parts |= {name: "\n".join(table(options, OPTIMIZER_WORDS)) for name, options in own.items()}
  rows = ["| schedule | options and defaults |", "|---|---|"]
  for name in schedules.SCHEDULES:
    options = [f"`{key}`" if value is REQUIRED else f"`{key}={value!r}`"
               for key, value in schedules.options_of(name).items()]
    rows.append(f"| `{name}` | {', '.join(options)} |")
  every = dict.fromkeys(key for name in schedules.SCHEDULES for key in schedules.options_of(name))
  words = ["| option | meaning |", "|---|---|", *(f"| `{key}` | {SCHEDULE_WORDS[key]} |" for key in every)]
  return parts | {"schedules": "\n".join([*rows, "", *words, ""])}


def optimizers_page(text: str) -> str:
  """The text of docs/optimizers.md, with its generated parts as the code has them."""
  for name, part in optimizer_tables().items():
    text = re.sub(rf"(<!-- {name} -->\n).*?(?=<!-- end -->)", lambda match, part=part: match[1] + part, text,
                  flags=re.DOTALL)
  return text


PAGES: dict[str, Callable[[str], str]] = {"config.md": lambda _: config_page(), "optimizers.md": optimizers_page}
"""Page -> from its text now to what it should be."""

if __name__ == "__main__":
  for page, make in PAGES.items():
    path = DOCS / page
    path.write_text(make(path.read_text() if path.exists() else ""))
