"""Writes docs/config.md and the tables of docs/optimizers.md from the code: python docs/make_pages.py

Keys and defaults are those of `base_config` and of the rooms (mmcontrast/config/options.py); what an option of a room
means is its docstring's words, what a key of the program means stands in option_words.py. tests/test_pages.py holds the
pages to the code.
"""

from __future__ import annotations

import functools
import inspect
import pathlib
import re
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

from option_words import MATRYOSHKA_WORDS, MEANINGS, OPTIMIZER_WORDS, SCHEDULE_WORDS, SHARED

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
