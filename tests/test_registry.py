"""The one builder of what configs name: what it makes, and what it says of what it cannot make."""

from __future__ import annotations

import dataclasses
import functools
import importlib
from typing import Any, ClassVar

import pytest
from flax import linen as nn

from mmcontrast.encoders import ENCODERS, HEADS
from mmcontrast.errors import UserError
from mmcontrast.objectives.criteria import CRITERIA
from mmcontrast.objectives.module_term import MODULES
from mmcontrast.objectives.regularizers import REGULARIZERS
from mmcontrast.objectives.scores import SCORES
from mmcontrast.objectives.targets import TARGETS
from mmcontrast.registry import REQUIRED, build, check_options, options_of, vary


@dataclasses.dataclass(frozen=True)
class Ladder:
  steps: int
  height: float = 2.0
  colour: str = "red"
  folds: bool = False
  rungs: tuple[float, ...] = ()
  span: tuple[float, float] | None = None
  owner: Any = None
  tags: dict = dataclasses.field(default_factory=dict)
  CHOICES: ClassVar = {"colour": ("red", "blue")}

  def __post_init__(self):
    if self.height <= 0:
      raise UserError(f"height: {self.height} is not above 0")
    if self.folds and self.steps > 9:
      raise UserError("a ladder of so many steps does not fold")


@dataclasses.dataclass(frozen=True)
class Stair(Ladder):
  steps: int = 3


class Layer(nn.Module):
  width: int = 4
  depth: int | None = None


def lamp(watts: float, cold: bool = False):
  return watts, cold


THINGS = {"ladder": Ladder, "stair": Stair, "layer": Layer, "tall": functools.partial(Ladder, height=5.0), "lamp": lamp}


def test_a_name_or_a_name_with_options():
  assert build(THINGS, "stair", "x") == build(THINGS, {"name": "stair"}, "x") == Stair()
  assert build(THINGS, {"name": "ladder", "steps": 4, "height": 3, "rungs": [1, 2.5]}, "x").height == 3
  assert build(THINGS, {"name": "tall", "steps": 2}, "x") == Ladder(2, 5.0)
  assert build(THINGS, {"name": "layer", "depth": None}, "x").width == 4
  assert build(THINGS, {"name": "lamp", "watts": 2}, "x") == (2, False)


def test_options_and_their_defaults():
  assert options_of(Ladder)["steps"] is REQUIRED and options_of(Stair)["steps"] == 3
  assert options_of(Ladder)["tags"] == {} and options_of(THINGS["tall"])["height"] == 5.0
  assert options_of(Layer) == {"width": 4, "depth": None}  # without those of Flax itself


@pytest.mark.parametrize(
  ("config", "message"),
  [
    ("stare", r"^a\.b: no such choice 'stare'; did you mean 'stair'\?"),
    ({"name": "stare"}, r"^a\.b\.name: no such choice 'stare'; did you mean 'stair'\?"),
    ({"steps": 3}, r"^a\.b: 'name' is missing; \(one of: ladder, "),
    (3, r"^a\.b: 3 is not a name, nor a dict\(name=\.\.\.\)"),
    (None, r"^a\.b: None is not a name, nor"),
    ({"name": "stair", "stepz": 3}, r"^a\.b: no option 'stepz'; did you mean 'steps'\?"),
    ({"name": "ladder"}, r"^a\.b\.steps: 'ladder' needs it; add steps=\.\.\."),
    ({"name": "stair", "steps": "many"}, r"^a\.b\.steps: 'many' is not a whole number; the default is 3"),
    ({"name": "stair", "steps": 2.5}, r"steps: 2\.5 is not a whole number"),
    ({"name": "stair", "steps": True}, r"steps: True is not a whole number"),
    ({"name": "ladder", "steps": "x"}, r"steps: 'x' is not a whole number$"),
    ({"name": "stair", "height": "high"}, r"height: 'high' is not a number; the default is 2\.0"),
    ({"name": "stair", "folds": 1}, r"folds: 1 is not True or False; the default is False"),
    ({"name": "stair", "rungs": 1.0}, r"rungs: 1\.0 is not a list"),
    ({"name": "stair", "rungs": ("x",)}, r"rungs: \('x',\) is not a list"),
    ({"name": "stair", "span": (1, 2, 3)}, r"span: \(1, 2, 3\) is not a list of 2 or None; the default is None"),
    ({"name": "stair", "colour": "rad"}, r"^a\.b\.colour: no such choice 'rad'; did you mean 'red'"),
    ({"name": "stair", "height": -1}, r"^a\.b\.height: -1 is not above 0"),
    ({"name": "ladder", "steps": 10, "folds": True}, r"^a\.b: a ladder of so many steps does not fold"),
    ({"name": "layer", "width": None}, r"width: None is not a whole number; the default is 4"),
    ({"name": "lamp", "watts": "bright"}, r"watts: 'bright' is not a number$"),
  ],
  ids=str,
)
def test_what_cannot_be_made_is_one_line(config, message):
  with pytest.raises(UserError, match=message) as error:
    build(THINGS, config, "a.b")
  assert "\n" not in str(error.value)


def test_a_value_of_any_type_is_not_checked():
  assert build(THINGS, {"name": "stair", "owner": {"name": "x"}, "span": [1, 2]}, "x").owner == {"name": "x"}


def test_recipes_are_varied():
  recipes = {"none": Stair(), "high": Stair(height=9.0)}
  assert vary(recipes, "high", "r").height == 9.0
  assert vary(recipes, {"base": "high", "steps": 4}, "r") == Stair(4, 9.0)
  assert vary(recipes, {"rungs": [1.0]}, "r").rungs == (1.0,)
  for config, message in (
    ({"base": "hi"}, r"r\.base: no such"),
    ({"stepz": 1}, "r: no option 'stepz'"),
    (3, "r: 3 is"),
  ):
    with pytest.raises(UserError, match=message):
      vary(recipes, config, "r")


def test_options_checked_elsewhere():
  check_options({"a": 1}, ("a", "b"), "x")
  with pytest.raises(UserError, match="x: no option 'module2'; did you mean 'module'"):
    check_options({"module2": 1}, ("a",), "x", others=("module",))


def test_the_types_of_every_option_can_be_read():
  """None is left unchecked because a name in its annotation is not there where it is read."""
  hints = importlib.import_module("mmcontrast.registry")._hints
  for registry in (ENCODERS, HEADS, SCORES, TARGETS, CRITERIA, REGULARIZERS, MODULES):
    for name, kind in registry.items():
      kind = kind.func if isinstance(kind, functools.partial) else kind
      found = hints(kind)
      assert all(key in found for key in options_of(kind)), name
