"""Files of JSON next to weights, which are copied, cut short and edited by hand."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from mmcontrast.errors import UserError, one_line


def read_json(file: pathlib.Path, kind: type = dict) -> Any:
  """The dict, or list, of a file of JSON. Raises UserError when it is not there, damaged, or of another kind."""
  try:
    found = json.loads(file.read_text())
  except FileNotFoundError:
    raise UserError(f"{file}: no such file; copy it from where the weights come from") from None
  except (OSError, ValueError) as error:
    raise UserError(
      f"{file}: damaged ({one_line(error, most=120)}); copy it again from where the weights come from"
    ) from None
  if not isinstance(found, kind):
    raise UserError(
      f"{file}: holds a {type(found).__name__}, where a {kind.__name__} is needed; copy it again from "
      "where the weights come from"
    )
  return found
