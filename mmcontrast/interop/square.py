"""Images and patches whose side a config says as one number, as two, or by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmcontrast.errors import UserError


def square(given: int | Sequence[int] | Mapping[str, int], where: object) -> int:
  """The side of a square: 16, [16, 16] or {"height": 16, "width": 16}.

  Raises UserError for one of two sides; `where`: the file and the field, for its message.
  """
  named = isinstance(given, Mapping)
  sides = (given["height"], given["width"]) if named else (given,) if isinstance(given, int) else tuple(given)
  if len(set(sides)) != 1:
    shown = dict(given) if named else list(sides)
    raise UserError(f"{where}: {shown} is not square, and only squares are supported")
  return sides[0]
