"""Report and demo of runs that differ in their structure, in Chromium: tokens, images alone, a fusion with a momentum
branch, texts as pictures, sounds, clips, points, graphs."""

from typing import NamedTuple

import numpy as np
import pytest
from conftest import complaints, demo_of, hover, ink, opened, requests, tooltip, wait
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from shape_things import COUNT

from mmcontrast.run_report import report


class Expected(NamedTuple):
  """What the pages of a run show: the modalities of the map, how many ways of retrieval, whether classes, what is said;
  the suffix of a file that the demo is asked by, "" for none; whether it has a demo."""

  shows: tuple[str, ...]
  ways: int = 0
  classes: bool = False
  says: tuple[str, ...] = ()
  suffix: str = ""
  asks: bool = True


ALONE = ("This run has no text tower. Nothing of", "is classified by prompts")
KINDS = {
  "filip": Expected(("image", "text"), 2, says=("compares tokens: the map shows the mean",), asks=False),
  "simclr": Expected(("image",), says=ALONE, suffix="png"),
  "albef": Expected(("image", "text"), 2, True, suffix="png"),
  "clippo": Expected(("image", "written"), 2, says=("This run has no text tower. Nothing of",), suffix="png"),
  "sounds": Expected(("image", "text", "audio"), 6, True, suffix="wav"),
  "clips": Expected(("text", "video"), 2, True),
  "points": Expected(("image", "text", "points"), 6, True, suffix="png"),
  "graphs": Expected(("text", "graph"), 2, True),
  "graphs alone": Expected(("graph",), says=ALONE),
}


@pytest.fixture(scope="module")
def page_of(run_of, data_dir, tmp_path_factory):
  folder, made = tmp_path_factory.mktemp("pages"), {}

  def page_of(name):
    if name not in made:
      made[name] = report(run_of(name), folder / f"{name}.html", examples=100, data_dir=str(data_dir))
    return made[name]

  return page_of


@pytest.mark.parametrize("name", KINDS)
def test_the_report_of(name, browser, page_of):
  expected = KINDS[name]
  opened(browser, page_of(name).as_uri())
  canvas = browser.find_element(By.CSS_SELECTOR, "#plane canvas")
  count = int(canvas.get_attribute("data-points"))
  assert count == int(canvas.get_attribute("data-drawn")) == len(expected.shows) * (COUNT if count < 100 else 100)
  assert sorted(browser.execute_script("return data.map.modalities")) == sorted(expected.shows)
  for modality in expected.shows:
    alone = browser.execute_script(
      "let best = [-1, 0]; for (let n = 0; n < plane.count; n++) {"
      "  if (data.map.modalities[data.map.modality[n]] !== arguments[0]) continue;"
      "  const [, far] = plane.nearest(plane.px[n], plane.py[n], (m) => m !== n); if (far > best[1]) best = [n, far]; }"
      "return best[0]", modality)  # fmt: skip
    hover(browser, alone)
    found = tooltip(browser)
    assert found.get_attribute("data-point") == str(alone) and modality in found.text
    tile = found.find_element(By.CLASS_NAME, "tile")
    assert tile.is_displayed() and ink(tile) > 5
  assert len(browser.find_elements(By.CSS_SELECTOR, ".direction")) == expected.ways
  for part in ("hits", "misses"):
    assert len(browser.find_elements(By.CSS_SELECTOR, f".queries.{part}")) == expected.ways
  assert bool(browser.find_elements(By.CSS_SELECTOR, ".confusion")) == expected.classes
  text = browser.find_element(By.TAG_NAME, "main").text
  assert all(one in text for one in expected.says)
  for section in browser.find_elements(By.CSS_SELECTOR, "main > section"):
    assert len(section.text) > len(section.find_element(By.TAG_NAME, "h2").text) + 10  # nothing is left empty
  graph = browser.find_elements(By.CSS_SELECTOR, "#mixture g.node-term")
  assert graph and browser.find_elements(By.CSS_SELECTOR, "#mixture path.edge")
  assert browser.execute_script("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
  assert complaints(browser) == []
  assert all(address.startswith(("file://", "data:")) for address in requests(browser))


@pytest.mark.parametrize("name", KINDS)
def test_the_demo_of(name, browser, run_of, things, data_dir):
  expected = KINDS[name]
  if not expected.asks:
    found = demo_of(run_of(name), data_dir)
    out, error = found.communicate(timeout=120)
    assert found.returncode == 2 and "this run compares tokens" in error and error.count("\n") == 1 and not out
    return
  process = demo_of(run_of(name), data_dir)
  try:
    address = process.stdout.readline().split()[0]
    opened(browser, address)
    words = browser.find_element(By.ID, "words").is_displayed()
    assert words == any(one in ("text", "written") for one in expected.shows)
    assert browser.find_element(By.ID, "zero_shot").is_displayed() == expected.classes
    seen = [one for one in expected.shows if one not in ("text", "written")]
    if words:
      browser.find_element(By.ID, "text").send_keys("a red circle", Keys.ENTER)
      check_results(browser, seen[0])
      forget_results(browser)
    if expected.suffix:
      browser.find_element(By.ID, "file").send_keys(str(things / f"0.{expected.suffix}"))
      browser.find_element(By.ID, "go").click()
      check_results(browser, seen[0])
      forget_results(browser)
    for kind in seen[1:]:
      browser.find_element(By.CSS_SELECTOR, f"#kind option[value={kind}]").click()
      browser.find_element(By.ID, "go").click()
      check_results(browser, kind)
      forget_results(browser)
    assert browser.execute_script("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert complaints(browser) == []
    assert all(one.startswith((address, "data:", f"blob:{address}")) for one in requests(browser))
  finally:
    process.terminate()
    process.wait(30)


def forget_results(browser):
  """So that those of the next question are waited for."""
  browser.execute_script("document.getElementById('results').replaceChildren()")


def check_results(browser, kind):
  """Results of a kind have come, each with its picture; a sound can be played, and nothing else."""
  wait(browser, lambda one: one.find_elements(By.CSS_SELECTOR, f'#results img[src^="picture/{kind}/"]'))
  images = browser.find_elements(By.CSS_SELECTOR, "#results img")
  wait(browser, lambda one: one.execute_script("return arguments[0].naturalWidth", images[0]) > 0)
  assert len(images) == len(browser.find_elements(By.CSS_SELECTOR, "#results li"))
  scores = [float(one.text) for one in browser.find_elements(By.CSS_SELECTOR, "#results .score")]
  assert (np.diff(scores) <= 0).all()
  assert bool(browser.find_elements(By.CSS_SELECTOR, "#results audio")) == (kind == "audio")
