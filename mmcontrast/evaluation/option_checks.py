"""What options of evaluators must be, whatever the evaluator: numbers that are large enough, lists that hold something.

Without data or model, so that what is wrong stops before a set is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmcontrast.errors import UserError, choose

LEAST = {"k": 1, "most": 1, "beams": 1, "length": 0, "shots": 1, "steps": 1, "std": 0}
ABOVE_ZERO = ("temperature", "learning_rate")
SPLITS = ("train", "validation", "test")
LISTS = ("templates", "strengths", "corruptions", "changes", "mention", "test_splits")
"""Options that hold one thing at least; of the first and the last several, in a list."""


def check(options: Mapping[str, Any], where: str) -> None:
  """Raises UserError, which begins with `where` and the option, for a value that no evaluator can use."""
  for key, value in options.items():
    at = f"{where}.{key}"
    if key in LEAST and value < LEAST[key]:
      raise UserError(f"{at}: {value:g}; give {LEAST[key]} or more")
    if key in ABOVE_ZERO and value <= 0:
      raise UserError(f"{at}: {value:g}; give a number above 0")
    if key in LISTS and not len(value):
      raise UserError(f"{at}: is empty; name one at least, or leave the option out for the usual ones")
  if "templates" in options:
    _check_templates(options["templates"], f"{where}.templates")
  if "template" in options:
    _check_template(options["template"], f"{where}.template")
  if "test_splits" in options:
    splits = options["test_splits"]
    for one in (splits,) if isinstance(splits, str) else splits:
      choose(f"{one}", SPLITS, f"{where}.test_splits")


def _check_templates(templates: Any, where: str) -> None:
  if isinstance(templates, str):
    raise UserError(f"{where}: {templates!r} is a text; give a list of them, such as ({templates!r},)")
  for one in templates:
    _check_template(one, where)


def _check_template(template: Any, where: str) -> None:
  if not isinstance(template, str) or template.count("{}") != 1:
    raise UserError(f"{where}: {template!r} must hold '{{}}' once, for the name of the class")
