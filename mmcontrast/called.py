"""Modules that can be called: `mmcontrast.train(config, workdir)` is `mmcontrast.train.train(config, workdir)`.

The package has a module for each of its commands, and the name of a module that was imported is that module. So that
both `mmcontrast.train(...)` and `from mmcontrast.train import train` work, in whatever order, the module is called.
"""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable


class _Called(types.ModuleType):
  """A module that is called as its `__function__`."""

  def __call__(self, *arguments, **options):
    return self.__function__(*arguments, **options)

  @property
  def __signature__(self) -> inspect.Signature:
    return inspect.signature(self.__function__)


def call_as(name: str, function: Callable) -> None:
  """Makes the module `name` callable as `function`."""
  module = sys.modules[name]
  module.__class__, module.__function__ = _Called, function
