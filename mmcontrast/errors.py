"""Errors that a user is meant to read, one line that says what is wrong, where, and what to do; and how runs end."""

from __future__ import annotations

import difflib
import functools
import sys
from collections.abc import Iterable


class UserError(ValueError):
  """A mistake that the user can fix: a config key, a path, a shape, a checkpoint.

  The message is one line that says what is wrong, where, and the nearest valid
  choice or the command that fixes it. The command line prints it without a
  traceback and exits with 2.
  """


class MissingData(UserError):
  """Data that is not on this machine, as it should be named in the message."""


class Preempted(SystemExit):
  """A run was asked to end and has saved its checkpoint: uncaught, the process exits with 0."""

  def __init__(self, message: str):
    super().__init__(0)
    self.message = message

  def __str__(self) -> str:
    return self.message


def one_line(error: object, most: int = 200) -> str:
  """What an error of another library says, as one line of at most so many characters; its type if it is silent."""
  return " ".join(str(error).split())[:most] or type(error).__name__


@functools.cache
def note(line: str) -> None:
  """Says on stderr what a user should know, but need not act on; a process says the same line once."""
  print(line, file=sys.stderr)


def nearest(value: object, choices: Iterable[object]) -> str:
  """Says which of `choices` was probably meant: "did you mean 'x'? (one of: x, y)"; of many only the near ones."""
  names = sorted(str(choice) for choice in choices)
  if not names:
    return "there is none to choose from"
  many = len(names) > 12
  close = difflib.get_close_matches(str(value), names, n=3 if many else 1, cutoff=0.5)
  if many and close:
    return f"did you mean {' or '.join(map(repr, close))}?"
  hint = f"did you mean {close[0]!r}? " if close else ""
  shown = [*names[:12], f"... {len(names) - 12} more"] if many else names
  return f"{hint}(one of: {', '.join(shown)})"


def choose(value: str, choices: Iterable[str], where: str) -> str:
  """Returns `value` when it is one of `choices`, else raises UserError naming the nearest."""
  choices = list(choices)
  if value not in choices:
    raise UserError(f"{where}: no such choice {value!r}; {nearest(value, choices)}")
  return value
