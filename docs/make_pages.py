"""Writes docs/config.md and the tables of docs/optimizers.md from the code: python docs/make_pages.py

Keys and defaults are those of `base_config` and of the rooms (mmcontrast/config/options.py); what an option of a room
means is its docstring's words, what a key of the program means stands in MEANINGS. tests/test_pages.py holds the pages
to the code.
"""

from __future__ import annotations

import functools
import inspect
import pathlib
import re
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

from mmcontrast.config import base_config
from mmcontrast.config.options import section
from mmcontrast.encoders import ENCODERS, HEADS
from mmcontrast.evaluation.suite import EVALUATORS
from mmcontrast.modalities import image_augmentation
from mmcontrast.objectives.criteria import CRITERIA
from mmcontrast.objectives.module_term import MODULES
from mmcontrast.objectives.parse import KINDS
from mmcontrast.objectives.regularizers import REGULARIZERS
from mmcontrast.objectives.scores import SCORES
from mmcontrast.objectives.targets import TARGETS
from mmcontrast.objectives.temperature import Temperature
from mmcontrast.optimization import optim, schedules
from mmcontrast.optimization.update_rules import RULES
from mmcontrast.registry import REQUIRED
from mmcontrast.stores.epoch_hooks import HOOKS

DOCS = pathlib.Path(__file__).parent

MEANINGS = {
  "seed": "seed of the initial weights, the order of examples, crops and augmentation",
  "steps": "optimizer steps of the run, or of each stage that does not set its own",
  "epochs": "passes over the data, instead of steps (set `steps` to 0); 0: `steps` counts",
  "stages": "parts of the run, trained one after another: [stages](methods/stages.md)",
  "init": 'where parts of the run start from: {"towers/image": "timm:resnet50@FILE"}, '
  "[weights](weights.md), [stages](methods/stages.md)",
  "batch.size": "examples per step, over all devices and processes",
  "batch.microbatches": "chunks in which the batch is encoded, to save memory; the gradient is that of the whole batch",
  "data.dataset": 'NAME or KIND:PATH, such as "jsonl:/data/mine.jsonl": [data](data.md)',
  "data.source": "options of the dataset: [data](data.md)",
  "data.split": '"train", "validation", "test" or "all"',
  "data.mixture": "several datasets by weight, instead of the three above: [mixtures](mixtures_and_faults.md)",
  "data.image_size": "side of the square image that the model sees, in pixels",
  "data.views": "number of views of an example, by modality; a modality that is left out is not read",
  "data.drawings": 'which of several images of an example its views show: "distinct", "same" or "any"; '
  '"in_order": view k shows style k',
  "data.crop": "random crops: share of the area, ratio of the sides, `zoom_out`, degrees of `rotate`: "
  "[augmentation](augmentation.md)",
  "data.multi_crop.views": "number of additional small crops of an image, the views `image_small`",
  "data.multi_crop.size": "side of small crops in pixels",
  "data.multi_crop.scale": "share of the area of small crops, (smallest, largest)",
  "data.masked.views": "of how many image views there is a version with hidden patches, the views `image_masked`",
  "data.masked.patch": "side of such a patch in pixels: that of the image tower",
  "data.masked.block": "how many patches on a side are hidden at once; 1: each by itself",
  "data.masked.shape": 'where hidden patches are: "patches" anywhere, or one "square", which views `image_region` '
  "show enlarged",
  "data.masked.share": "share of the patches, or blocks of them, that is hidden, (smallest, largest)",
  "data.masked.probability": "probability that an image has hidden patches",
  "data.maps.views": "of how many image views there is a version with maps computed of it, the views `image_maps`: "
  "[masked images](methods/masked_images.md)",
  "data.maps.patch": "side of a patch of such views in pixels: that of the image tower",
  "data.maps.kinds": 'which maps beside the colours: "silhouette" of what is drawn on white, "edges"',
  "data.maps.seen": "share of the patches of all maps together that the tower sees",
  "data.maps.alpha": "of the symmetric Dirichlet distribution by which these are spread over the maps; large: evenly",
  "data.trim": "makes a drawing on white fill its square; for drawings, not for photographs",
  "data.centre_crop": "share of the side that evaluation uses",
  "data.native.patches": "images keep their ratio, and are resized to at most so many patches (NaFlex); several: each "
  "batch is of one, evaluation of the largest; (): images are squares: [native](native.md)",
  "data.native.patch": "side of such a patch in pixels, that of the image tower",
  "data.native.tokens": "patches of images that the batch of a view holds at most, so that batches of larger images "
  "hold fewer; 0: all hold `batch.size`",
  "data.native.multiple": "such batches hold multiples of so many examples",
  "data.resize.mode": 'how evaluation makes an image square: "crop", "shortest" or "squash"',
  "data.resize.interpolation": '"bilinear" or "bicubic"',
  "data.languages": "text views are names in these languages, instead of captions",
  "data.added_captions": "a file of further captions of the records, by field: [captions](methods/captions.md)",
  "data.balance.label": 'a label of whose classes an epoch holds a limited number; "": none',
  "data.balance.most": "how many examples of a class, drawn anew each epoch; those without a class all",
  "data.captions": "which caption fields text views show: None (any), weights, or one field for each view",
  "data.regions.views": "of how many regions of the image there is a text, the views `text_region`",
  "data.facts": "what batches say of views beside the views, for terms that ask for it: [modalities](modalities.md)",
  "data.missing": 'examples without an image or caption: "skip" them, count them as "bad", or "mask" the '
  "missing modality",
  "data.kept": "a folder of `data filter`, `dedup` or `balance`: only what it keeps: [large sets](large_sets.md)",
  "data.identity": 'what target same_id compares: the "record", or its first "caption"',
  "data.shuffled_captions.share": "share of the training examples with one another's captions: known noise",
  "data.shuffled_captions.seed": "which of them",
  "data.filter.min_side": "fewest pixels of the shorter side of an image",
  "data.filter.max_aspect": "largest ratio of the longer side to the shorter; 0: any",
  "data.filter.min_caption": "fewest characters of a caption",
  "data.filter.max_caption": "most characters of a caption; 0: any number",
  "data.limits.pixels": "an image with more pixels is a bad record",
  "data.limits.bytes": "a larger image file is a bad record",
  "data.limits.caption_characters": "a longer caption is cut",
  "data.texts": 'whether the text views of an example show "distinct" captions, as far as they go, or the "same" one',
  "data.word_swaps": "how many times two words of each text view change places, such as (0, 1); (): never",
  "data.text_length": "tokens of a text, including bos and eos",
  "data.tokenizer": '"sentencepiece" (the dataset\'s own), a file of it, or KIND:PATH: [tokenizers](tokenizers.md)',
  "data.lower": 'whether texts are converted to lower case; "canonicalize": without punctuation too (SigLIP)',
  "data.special_tokens": "special tokens that are written in a caption, such as `</s>`, with a huggingface: "
  "tokenizer: "
  '"text" (ordinary text) or "read" (the token)',
  "data.token_ids.pad": "id of padding; must be the tokenizer's",
  "data.token_ids.bos": "id of the beginning of a text; must be the tokenizer's",
  "data.token_ids.eos": "id of the end of a text; must be the tokenizer's",
  "data.masked_words.views": "number of text views of which there is one with words to guess, the views `text_masked`",
  "data.masked_words.share": "probability of a word to be chosen",
  "data.masked_words.mask": "share of the chosen words in whose place the mask token stands",
  "data.masked_words.random": "share of them in whose place any other word stands; the rest stays as it is",
  "data.masked_words.at_least_one": "whether a text of which no word is chosen by chance loses one",
  "data.graph.drop_edges": "probability that training hides an edge of a [graph](methods/graphs.md)",
  "data.graph.drop_features": "probability that training hides a number of all nodes of a graph",
  "data.graph.edges": "edges of a view at most; of more, those between its first nodes",
  "data.graph.features": "numbers of a node: hashes of its words, or as many as its nodes have",
  "data.graph.kinds": "names of the kinds of edges; none: all are of one kind",
  "data.graph.nodes": "nodes of a view, the centre among them",
  "data.graph.paths": "meta-paths that views follow, view k the k-th: lists of kinds; none: any edge",
  "data.graph.restart": "probability that a step of the walk that draws nodes begins at the centre again",
  "data.points.colours": "whether the tower sees the colours of [points](methods/points.md)",
  "data.points.count": "points of a view, drawn of those that there are; evaluation has every n-th",
  "data.points.jitter": "deviation of the normal noise by which training moves each point; the cloud's radius is 1",
  "data.points.rotate": "degrees by which training turns a cloud about the vertical axis, at most",
  "data.points.scale": "how many times larger training makes a cloud, a range",
  "data.series.channels": "of a [series](methods/series.md); one that has others is a bad record",
  "data.series.crop": 'where training cuts a longer series: "random", "first" or "middle"',
  "data.series.evaluation_crop": 'where evaluation does: "first" or "middle"',
  "data.series.length": "samples of a view of a series; a shorter one is padded, and padding is masked",
  "data.series.longest": "samples; a longer series is a bad record",
  "data.series.noise": "deviation of the normal noise that training adds to a view, after `norm`",
  "data.series.norm": '"standardize": each channel of a view gets mean 0 and deviation 1; or "none"',
  "data.written.fonts": "of DejaVu's, or paths of files; a view is written in one, evaluation in the first",
  "data.written.points": "height of the letters, in pixels",
  "data.written.shuffles": "of view k such a share of the words changes places; (): none",
  "data.written.size": "rows and columns of pixels of a [text as a picture](methods/written.md)",
  "data.written.typos": "of view k such a share of the words is mistyped; (): none",
  "data.audio.rate": "samples a second, to which sounds are resampled: [sound](audio.md)",
  "data.audio.seconds": "length of a view of a sound; a shorter sound is padded, and padding is masked",
  "data.audio.columns": 'which of several sounds of an example views are: "distinct" ones; "in_order": view k column k',
  "data.audio.crop": 'where training cuts a longer sound: "random", "first" or "middle"',
  "data.audio.evaluation_crop": 'where evaluation does: "first" or "middle"',
  "data.audio.longest": "seconds; a longer sound is a bad record",
  "data.video.frames": "frames of a view of a video: [videos](modalities.md#videos)",
  "data.video.size": "pixels a side of its frames",
  "data.video.sampling": 'which frames: "uniform", "tsn" or "dense"',
  "data.video.stride": 'frames from one to the next of sampling="dense"',
  "data.video.columns": 'which of several videos of an example views are: "distinct" ones; "in_order": view k column k',
  "data.video.variable_rate": 'a video whose frames are unevenly timed: "bad" record, or sampled by "time"',
  "data.video.rotated": 'a video that asks to be turned: "bad" record, or "turn" it',
  "data.video.masked.views": "of how many video views there is one with hidden tubelets, the views `video_masked`",
  "data.video.masked.tubelet": "frames, pixels and pixels of a tubelet: those of the video tower",
  "data.video.masked.share": "share of the patches that is hidden, the same in all frames",
  "data.audio.log_mel.window": "samples of a frame",
  "data.audio.log_mel.hop": "samples from one frame to the next",
  "data.audio.log_mel.fft": "length of the Fourier transform, the window or more",
  "data.audio.log_mel.mels": "number of filters",
  "data.audio.log_mel.low": "Hz at which the lowest filter begins",
  "data.audio.log_mel.high": "Hz at which the highest filter ends; None: half the rate",
  "data.audio.log_mel.taper": 'window function: "hann", "hamming", "hann_symmetric" (Kaldi) or "none"',
  "data.audio.log_mel.scale": 'how filters are spaced: "slaney", "htk", or "kaldi" (sides straight in mels)',
  "data.audio.log_mel.norm": '"slaney": filters are divided by half their width in Hz; "none": their peak is 1',
  "data.audio.log_mel.power": "of magnitudes: 2 is power, 1 is magnitude",
  "data.audio.log_mel.log": '"db", "ln" or "none"',
  "data.audio.log_mel.floor": "smaller values count as this one",
  "data.audio.log_mel.top_db": "decibels below the loudest cell at which a sound is cut; None: nowhere",
  "data.audio.log_mel.edges": 'beyond the ends of a sound: "zeros", "reflect", "none", "snip", "reflect_within"',
  "data.audio.log_mel.centred": "each frame has its mean taken away first",
  "data.audio.log_mel.preemphasis": "share of the sample before that each has taken away then; 0: none",
  "data.audio.log_mel.frames": "of every spectrogram: more are cut off, fewer padded; None: as many as a view has",
  "data.audio.log_mel.padding": 'after a sound: "masked" (nothing reads it), "silence", "zeros" (of the spectrogram)',
  "data.audio.log_mel.mean": "subtracted from a spectrogram",
  "data.audio.log_mel.std": "divides it",
  "data.on_error.max_share": "share of records that may be bad before the run stops",
  "data.on_error.retries": "how often a failed read is tried again",
  "data.on_error.backoff_seconds": "wait before the first retry; doubled before each further one",
  "data.on_error.timeout_seconds": "a read that takes longer counts as failed",
  "data.cache": 'decoded images kept in memory: "decoded", "none", or "auto" (up to 512 MiB)',
  "data.read.threads": "threads that read and decode",
  "data.read.prefetch": "batches prepared ahead",
  "augment.image": "a recipe, by name or options, for all image views, or a list with one for each view",
  "normalize.mean": "mean of each channel, subtracted from images in [0, 1]",
  "normalize.std": "standard deviation of each channel, by which it is divided",
  "towers": "name -> encoder and its options, below",
  "heads": "name -> head, its tower and its options, below",
  "momentum.decay": "decay of the momentum encoder: a number or a schedule",
  "momentum.update": '"before_keys" (MoCo) or "after_step" (BYOL)',
  "objective": "name -> term, regularizer or module, below",
  "epoch_hooks": "what is computed between epochs, name -> hook and its options, below: [nodes](nodes.md)",
  "update_rule": "how the gradients of several terms are combined, below",
  "matrix.impl": 'how the similarity matrix is computed: "dense", "rows", "ring", or "auto": '
  "[global matrix](methods/global_matrix.md)",
  "matrix.tile": "rows of the matrix that are in memory at a time; 0: as many as the platform likes",
  "matrix.precision": 'of float32 products on a TPU: "highest", "high", "default": '
  "[what each costs in accuracy](methods/global_matrix.md)",
  "optimizer": "name and options: [optimizers](optimizers.md)",
  "lora.targets": 'a regex of the paths of matrices that are adapted; "": none: [fine-tuning](fine_tuning.md)',
  "lora.rank": "rank of the added matrices",
  "lora.alpha": "`alpha / rank` is the factor of what they add",
  "ema.decay": "decay of an average of the weights, which evaluation uses: a number or a schedule; 0: none",
  "mesh.data": "devices over which the batch is sharded; -1: all that are left",
  "mesh.fsdp": "devices over which parameters and the batch are sharded",
  "mesh.tensor": "devices over which the width of layers is sharded",
  "sharding": '"dp", "fsdp", "fsdp_tp", or a list of (regex, axes): [scaling](scaling.md)',
  "distributed.mode": 'several processes as one run: "auto" (where the environment says so), "on" or "off"',
  "distributed.coordinator": 'HOST:PORT of the first process; "": from the environment',
  "distributed.processes": "number of processes; 0: from the environment",
  "distributed.process_id": "number of this process; -1: from the environment",
  "distributed.timeout_seconds": "seconds without a sign of life, after which a process counts as lost",
  "distributed.start_timeout_seconds": "seconds within which all processes must have started",
  "checkpoint.every_steps": "steps between checkpoints",
  "checkpoint.keep_last": "how many of the newest checkpoints are kept",
  "checkpoint.keep_best": "how many of the best checkpoints are kept",
  "checkpoint.best_metric": "the metric that decides: of the training step, or of an evaluation, such as "
  '"mine/image_to_text/recall@1"',
  "checkpoint.best_mode": '"min" or "max" of it is best; "auto": the largest of recall, accuracy, mean average '
  "precision and top-k, the smallest of anything else",
  "checkpoint.changed_data": 'whether a run may continue with other data than it started with: "refuse" or "accept"',
  "evaluation.sets": "the sets that are evaluated, by name: [evaluation](evaluation.md)",
  "evaluation.train_sets": "the sets that probes train on; (): those of `sets` that the run trains on",
  "evaluation.optional_sets": "sets that may be missing",
  "evaluation.data": "your own sets, by name, below",
  "evaluation.evaluators": "evaluators, by name, below",
  "evaluation.image": "the image head that is used for retrieval, zero-shot and export",
  "evaluation.text": "the text head that is used for retrieval, zero-shot and export",
  "evaluation.video": "the video head that is used for retrieval and zero-shot",
  "evaluation.graph": "the head of graphs that is used for retrieval and zero-shot",
  "evaluation.points": "the head of point clouds that is used for retrieval and zero-shot",
  "evaluation.series": "the head of series that is used for retrieval and zero-shot",
  "evaluation.written": "the head of written texts that is used for retrieval and zero-shot",
  "evaluation.audio": "the audio head that is used for retrieval and zero-shot",
  "evaluation.width": "how many numbers of the joint space are compared, a width that `matryoshka` trained; 0: all",
  "evaluation.features": "the tower whose features k-NN and probes use",
  "evaluation.batch_size": "examples that are encoded at once",
  "evaluation.every_steps": "steps between evaluations during training; 0: none",
  "log.every_steps": "steps between lines of metrics",
  "log.watchdog_seconds": "seconds after which a read or a step that has not ended ends the process; 0: never",
}
"""What each key of the program means; a section that is no table of keys has one line."""

SHARED = {
  "every_epochs": "epochs from one time to the next",
  "first_epoch": "the first epoch, from 0, before which it is computed",
  "set": 'what it embeds: "" the training set, or a name of `evaluation.data`',
  "width": "width of the tokens, or of the first stage",
  "depth": "how many blocks or layers",
  "heads": "attention heads; they must divide the width",
  "mlp_ratio": "hidden width of an MLP divided by the width",
  "dropout": "probability",
  "drop_path": "probability of leaving out the last block, rising linearly from zero",
  "norm_epsilon": "epsilon of the norms",
  "dtype": "type of the computation; parameters are float32",
  "activation": "activation of the MLPs",
  "vocab_size": "number of tokens; by default the tokenizer's",
  "pool": "how tokens, or cells of the last map, become one vector",
  "bn_momentum": "momentum of the running statistics",
  "bn_epsilon": "epsilon of batch normalisation",
  "mlp": '"plain" or "swiglu"',
  "patch_bias": "whether the patches' projection has a bias",
  "pool_queries": 'of pool="queries"',
  "pool_heads": 'of pool="queries" and "map"',
  "pool_dim": 'width of pool="queries"; None: the tower\'s',
  "attention": "how attention is computed; changes no output",
  "dim": "length of the embedding",
  "bias": "whether there is a bias",
  "margin": "by how much a positive must score above a negative",
  "eps": "smallest value of a stored denominator",
  "multiply_tau": "whether the loss is multiplied by the temperature",
  "label": "name of the label",
  "threshold": "overlap from which on examples are positives",
  "t": "how fast the potential falls with the squared distance",
  "name": "which one",
  "modality": 'of its inputs, "image" or "text"; None: its name',
  "tower": "the tower that it projects",
  "of": "the head that it reads instead of a tower",
  "module": "which, and its options",
  "stop_gradient": "those of the embeddings that get no gradient",
  "shared": "submodule -> the head whose parameters it uses",
  "query": 'the embedding of the anchors, "VIEW/HEAD", or a list',
  "key": "the embedding that they are compared with, or a list",
  "score": "how two embeddings are compared",
  "target": "which pairs are positive, and how much",
  "criterion": "the loss of the scores",
  "negatives": '"batch", "queue:K", "batch+queue:K", "permuted" or "combined"',
  "negative_keys": "more keys for every query, which are negatives",
  "negative_queries": "more queries for every key, which are negatives",
  "negative_weights": "(w, v): a hard negative counts w times for its own example, v times for others; (1, 0): its own "
  "example alone sees it",
  "token_keys": "each token of a key is a key",
  "prototypes": "learned vectors that every anchor sees",
  "direction": '"rows" (queries are anchors), "columns" (keys are), or "both"',
  "temperature": "a number, options (below), or another term's name; None: the criterion's",
  "balance": "whether the weight is learned, exp(-s) L + s of a learned s, as MultiMAE may balance its maps",
  "matryoshka": "widths of the embeddings that are trained at once, such as (64, 128, 512); or options (below)",
  "weight": "weight of the loss: a number or a schedule",
  "regularizer": "which, and its options",
  "embeddings": "the embeddings that it takes",
  "dataset": "NAME or KIND:PATH; left out: that of config.data",
  "source": "its options",
  "split": "of the dataset",
  "style": "which of several images of a thing; None: the first",
  "sets": "the sets that it evaluates; (): all of evaluation.sets",
  "baselines": '"untrained", "pixels": the same without training, [evaluation](evaluation.md)',
  "templates": "prompts with {} for the class name",
  "names": "the names of the classes, other than the data's",
  "k": "how many neighbours vote",
  "test_splits": "splits whose examples are tested",
  "node": 'what is looked at: a tower or a head, or several, such as ("audio", "image.tokens"); by default the tower '
  "`evaluation.features`",
  "directions": 'such as ("text_to_audio", "audio_to_text"); by default all that the run compares',
  "l2_grid": "L2 penalties among which the probe chooses",
  "steps": "steps of the probe's training",
  "base": "the recipe that the options change",
  "init": "the number it starts at",
  "learned": "whether it is trained",
  "flip": "probability of mirroring",
  "brightness": "strength",
  "contrast": "strength",
  "saturation": "strength",
  "hue": "shift, in turns",
  "jitter_probability": "of the four above",
  "grey": "probability",
  "blur": "probability",
  "blur_sigma": "(least, most), pixels",
  "blur_kernel": "taps; None: a tenth of the height",
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
  rows = [
    f"| `{name}` | {cell(default)} | {(words.get(name) or SHARED[name]).replace('|', chr(92) + '|')} |"
    for name, default in options.items()
  ]
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
    options = {
      key: default
      for key, default in section(path, {"name": name}, base).options.items()
      if key not in ("name", "modality", "tower", "of", "shared")
    }
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
    keys = [key for key in options[names[0]] if key not in ("name", "modality", "reads", "same_as")]
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
    "# All keys of a config",
    "",
    *wrapped(
      "Made by `python docs/make_pages.py`. Each can be given on the command line, as `--config.KEY=VALUE`, "
      "whether or not a config mentions it. A value is read as Python; text needs no quotation marks. A term, "
      "tower, head or set is named by the config; a new one is given whole: "
      "`--config.evaluation.data.mine=\"{'split': 'validation'}\"`. In one stage only: "
      "`--config.stages.NAME.KEY=VALUE`."
    ),
    "## Config files",
    "",
    *wrapped(
      "`--config NAME` is a config of the package, `quickstart` or `methods/clip` (or `clip`), of those that "
      "`mmcontrast configs` lists; `--config FILE.py` is one of your own, in any folder. What follows a colon "
      "is its argument: `clip:smoke` is a version that takes seconds, `own_data:size=tiny,image_size=64` "
      "sets two "
      "numbers. A file has a function `get_config(arg=None)` that returns the config. It may import files "
      "of its folder (a file of the same name in another folder is a different one), and the configs of "
      "the package: `from mmcontrast.configs.methods import clip`. `mmcontrast.config.arguments` reads "
      "arguments, and `sized` takes `smoke` only."
    ),
    "## Keys of the program",
    "",
    *table(program_keys(base), MEANINGS, "key"),
    "## Sections whose options go by a name",
    "",
    *wrapped(
      'Where an option is itself such a mapping, the name is short for it: `criterion="softmax"` is '
      '`criterion=dict(name="softmax")`, and `temperature=0.1` is '
      "`temperature=dict(init=0.1, learned=False)`."
    ),
    "### `towers.NAME`",
    "",
    *wrapped(
      '`name`: the encoder. `modality`: "image" or "text"; left out, the tower\'s name says it. `reads`: the towers '
      "whose tokens a `fusion_transformer` reads, instead of a view ([nodes](nodes.md)). A default "
      '"by the size" is that of the published model of that name: [encoders](encoders.md).'
    ),
    *towers(),
    *of_room(
      "`heads.NAME`",
      HEADS,
      ("heads", "x"),
      "`name`: the head. `tower`: what it projects; or `of`: the head that it reads (a predictor). `shared`: "
      "submodule -> the head whose parameters it uses.",
    ),
    "### `objective.NAME`, a term",
    "",
    *table(options(("objective", "x"), {}), {}),
    "### `objective.NAME`, a regularizer",
    "",
    *table(options(("objective", "x"), {"regularizer": ""}), {}),
    "### `objective.NAME`, a module",
    "",
    *table(options(("objective", "x"), {"module": ""}), {}),
    "### `temperature` of a term",
    "",
    *table(options(("objective", "x", "temperature"), {}), words_of(Temperature)),
    "### `bias` of a term",
    "",
    *table(options(("objective", "x", "bias"), {}), {}),
    "### `matryoshka` of a term, a regularizer or a module",
    "",
    *wrapped("[Short embeddings](methods/matryoshka.md); the widths alone are short for it."),
    *table(options(("objective", "x", "matryoshka"), {}), MATRYOSHKA_WORDS),
  ]
  for key, registry, intro in (
    ("score", SCORES, "How a query and a key are compared."),
    ("target", TARGETS, "Which pairs are positive."),
    ("criterion", CRITERIA, "The loss of the scores."),
    ("regularizer", REGULARIZERS, "A loss of the embeddings themselves."),
    ("module", MODULES, "A loss with parameters or state of its own."),
  ):
    title = f"`{key}`" if key in KINDS else f"`{key}` of a term"
    lines += of_room(title, registry, ("objective", "x", key), intro)
  intro = "What is computed on the host before the first step of some epochs, and written into the state of terms."
  lines += of_room("`epoch_hooks.NAME`", HOOKS, ("epoch_hooks", "x"), intro)
  lines += of_room("`update_rule`", RULES, ("update_rule",), "How the gradients of several terms are combined.")
  names = ", ".join(f"`{name}`" for name in (*image_augmentation.RECIPES, *image_augmentation.PAIRS))
  lines += [
    "### A recipe, `augment.image` and `augment.image_small`",
    "",
    *wrapped(f"By name, one of {names}, or by options; [augmentation](augmentation.md)."),
    *table(options(("augment", "image"), {"base": "none"}), {}),
  ]
  lines += [
    "### `evaluation.data.NAME`",
    "",
    *table(options(("evaluation", "data", "x"), {}), {}),
    "### `evaluation.evaluators.NAME`",
    "",
  ]
  for name, function in EVALUATORS.items():
    lines += [f"**`{name}`**", "", *table(options(("evaluation", "evaluators", name), {}), words_of(function))]
  return "\n".join(lines).rstrip() + "\n"


MATRYOSHKA_WORDS = {
  "widths": "in ascending order, the last that of the whole embedding",
  "weights": "of each width in the sum; (): all 1; one of 0 is not trained",
}
SCHEDULE_WORDS = {
  "value": "the number",
  "init": "the first number; of a warm-up, where it starts",
  "end": "the last number",
  "peak": "the number after the warm-up",
  "begin_steps": "steps during which the first value is kept",
  "begin_epochs": "the same in passes over the data",
  "steps": "from begin to end, warm-up included; None: the rest of the run",
  "epochs": "the same in epochs",
  "warmup_steps": "from `init` to `peak`",
  "warmup_epochs": "the same in epochs",
}
OPTIMIZER_WORDS = {
  "name": "which optimizer",
  "learning_rate": "a number or a schedule",
  "weight_decay": "a number, which spares biases, norms, layer scales and "
  "the numbers of terms; or rules (regex, number) that cover every parameter",
  "learning_rate_multipliers": "rules (regex, number); 1 where none matches",
  "layer_decay": "factor of the learning rate from one layer to the one before it; or a number for each tower: "
  "[fine-tuning](fine_tuning.md)",
  "frozen": "regexes of parameters that are not trained",
  "clip_norm": "largest norm of all gradients; None: no clipping",
  "b1": "decay of the mean of gradients",
  "b2": "decay of the mean of their squares",
  "eps": "added to the root",
  "mu_dtype": "type in which the mean of gradients is kept; None: that of the parameters",
  "momentum": "share of the last direction that is kept; 0: none",
  "nesterov": "whether it looks ahead",
  "trust_coefficient": "factor of the trust ratio",
  "decay_rate": "how the decay of the mean of squares grows with the step: 1 - step^-rate",
  "clipping_threshold": "largest root mean square of an array's direction; None: no clipping",
  "multiply_by_parameter_scale": "whether a direction is multiplied by the root mean square of its weights",
  "min_dim_size_to_factor": "arrays with two axes of this length or more keep their squares by rows and by columns",
  "beta": "decay of the mean of gradients",
  "ns_steps": "rounds of Newton and Schulz's iteration",
  "consistent_rms": "root mean square of a matrix's direction, whatever its shape (0.2: about AdamW's); None: "
  "sqrt(max(1, outputs / inputs)) times a matrix of singular values 1",
  "adam_b1": "`b1` of Adam, for what is no matrix",
  "adam_b2": "its `b2`",
  "adam_on": "regexes of further parameters that Adam moves",
}


def optimizer_tables() -> dict[str, str]:
  """The generated parts of docs/optimizers.md, by name."""
  shared = optim.options_of("")
  own = {
    name: {key: value for key, value in optim.options_of(name).items() if shared.get(key, ...) != value}
    for name in optim.OPTIMIZERS
  }
  parts = {"shared": "\n".join(table(shared, OPTIMIZER_WORDS))}
  parts |= {name: "\n".join(table(options, OPTIMIZER_WORDS)) for name, options in own.items()}
  rows = ["| schedule | options and defaults |", "|---|---|"]
  for name in schedules.SCHEDULES:
    options = [
      f"`{key}`" if value is REQUIRED else f"`{key}={value!r}`" for key, value in schedules.options_of(name).items()
    ]
    rows.append(f"| `{name}` | {', '.join(options)} |")
  every = dict.fromkeys(key for name in schedules.SCHEDULES for key in schedules.options_of(name))
  words = ["| option | meaning |", "|---|---|", *(f"| `{key}` | {SCHEDULE_WORDS[key]} |" for key in every)]
  return parts | {"schedules": "\n".join([*rows, "", *words, ""])}


def optimizers_page(text: str) -> str:
  """The text of docs/optimizers.md, with its generated parts as the code has them."""
  for name, part in optimizer_tables().items():
    text = re.sub(
      rf"(<!-- {name} -->\n).*?(?=<!-- end -->)", lambda match, part=part: match[1] + part, text, flags=re.DOTALL
    )
  return text


PAGES: dict[str, Callable[[str], str]] = {"config.md": lambda _: config_page(), "optimizers.md": optimizers_page}
"""Page -> from its text now to what it should be."""

if __name__ == "__main__":
  for page, make in PAGES.items():
    path = DOCS / page
    path.write_text(make(path.read_text() if path.exists() else ""))
