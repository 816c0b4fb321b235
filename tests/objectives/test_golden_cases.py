"""Every case of the golden files is read by a test, or named here with the reason why not."""

import json
import pathlib
import re

import pytest

TESTS = pathlib.Path(__file__).parents[1]
FILES = ("addition", "image_text", "multimodal")
MADE_UP = {"tcl_g2l_{part}": ("tcl_g2l_image", "tcl_g2l_text")}
"""Names that tests put together, as they write them -> the cases."""
NOT_READ: dict[str, str] = {}
"""Case -> why no test reads it."""


@pytest.fixture(scope="module")
def code():
  return "".join(file.read_text() for file in TESTS.rglob("test_*.py") if file != pathlib.Path(__file__))


@pytest.mark.parametrize("name", FILES)
def test_every_case_is_read(name, code):
  cases = json.loads((TESTS / "golden" / f"{name}.json").read_text())
  put_together = {case for written, named in MADE_UP.items() if written in code for case in named}
  quoted = set(re.findall(r"""["']([a-z0-9_]+)["']""", code))
  assert sorted(set(cases) - quoted - put_together - set(NOT_READ)) == []


def test_what_is_not_read_is_a_case_and_is_not():
  cases = {case for name in FILES for case in json.loads((TESTS / "golden" / f"{name}.json").read_text())}
  assert set(NOT_READ) <= cases and {case for named in MADE_UP.values() for case in named} <= cases
