"""The pages that are made from the code say what the code is."""

import importlib
import json
import pathlib
import re

import pytest

from mmcontrast.config import base_config
from mmcontrast.config.config_files import shipped

ROOT = pathlib.Path(__file__).parent.parent
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def maker():
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(DOCS)
    return importlib.import_module("make_pages")


@pytest.mark.parametrize("page", ["config.md", "optimizers.md"])
def test_a_page_is_as_the_code(maker, page):
  """A difference shows a key or a default that changed. To renew: python docs/make_pages.py"""
  assert maker.PAGES[page]((DOCS / page).read_text()) == (DOCS / page).read_text()


def test_every_key_of_the_program_is_explained_and_no_other(maker):
  assert set(maker.MEANINGS) == set(maker.program_keys(base_config().to_dict())), (
    "docs/option_words.py: MEANINGS says what each key of base_config means"
  )


def test_a_default_that_changes_is_seen(maker, monkeypatch):
  monkeypatch.setitem(maker.optim.OPTIMIZERS, "sgd", {"momentum": 0.9, "nesterov": False})
  text = (DOCS / "optimizers.md").read_text()
  assert maker.optimizers_page(text) != text


PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")])


def links(page):
  """Each link of a page to a file or a heading: its path and its anchor. What is in code is none."""
  text = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(), flags=re.DOTALL)
  for path, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", text):
    if not re.match(r"\w+:", path):
      yield (page.parent / path).resolve() if path else page, anchor


def anchors(page):
  """Anchors of headings, as GitHub makes them."""
  headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE)
  return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_somewhere(page):
  for path, anchor in links(page):
    assert path.exists(), (page, path)
    assert not anchor or anchor in anchors(path), (page, path, anchor)


def test_the_index_has_every_page():
  index = DOCS / "README.md"
  listed = {path for path, _ in links(index)}
  assert {page for page in PAGES if DOCS in page.parents and page != index} <= listed


def test_the_index_names_every_method_and_the_page_on_choosing_no_other():
  methods = {pathlib.Path(name).stem for name in shipped() if name.startswith("methods/")}
  assert methods <= set(re.findall(r"`(\w+)`", (DOCS / "README.md").read_text()))
  chosen = set(re.findall(r"`(\w+)`", (DOCS / "choosing_a_method.md").read_text()))
  assert len(chosen & methods) > 25
  assert {name for name in chosen if "_" in name} <= {pathlib.Path(name).stem for name in shipped()}


def test_numbers_of_the_page_on_choosing_are_those_measured():
  """R@1 after the name of a method is that of its row in results/methods.json."""
  rows = {row["method"]: row for row in json.loads((DOCS / "results" / "methods.json").read_text())["rows"]}
  text = (DOCS / "choosing_a_method.md").read_text()
  said = re.findall(r"`(\w+)`(?: had the best R@1 at 250 steps \(|'s | )(\d+\.\d)\b(?! times)", text)
  assert {"clip", "siglip", "fastclip", "albef_itc"} <= {name for name, _ in said}
  for name, value in said:
    assert float(value) == rows[name]["i2t R@1"], name
