"""The pages that are made from the code say what the code is."""

import importlib.util
import pathlib
import re

import pytest

from mmcontrast.config import base_config

DOCS = pathlib.Path(__file__).parent.parent / "docs"


@pytest.fixture(scope="module")
def maker():
  spec = importlib.util.spec_from_file_location("make_pages", DOCS / "make_pages.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@pytest.mark.parametrize("page", ["config.md", "optimizers.md"])
def test_a_page_is_as_the_code(maker, page):
  """A difference shows a key or a default that changed. To renew: python docs/make_pages.py"""
  assert maker.PAGES[page]((DOCS / page).read_text()) == (DOCS / page).read_text()


def test_every_key_of_the_program_is_explained_and_no_other(maker):
  assert set(maker.MEANINGS) == set(maker.program_keys(base_config().to_dict())), (
      "docs/make_pages.py: MEANINGS says what each key of base_config means")


def test_a_default_that_changes_is_seen(maker, monkeypatch):
  monkeypatch.setitem(maker.optim.OPTIMIZERS, "sgd", {"momentum": 0.9, "nesterov": False})
  text = (DOCS / "optimizers.md").read_text()
  assert maker.optimizers_page(text) != text


def test_links_of_the_pages_lead_somewhere():
  for page in ("config.md", "optimizers.md", "python.md"):
    for link in re.findall(r"\]\(([^)#:]+)\)", (DOCS / page).read_text()):
      assert (DOCS / link).exists(), (page, link)
