"""The page of a run in Chromium, opened from the disk without a network: by the mouse, by the keyboard, in the dark."""

import pytest
from conftest import complaints, hover, ink, opened, requests, tooltip
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from mmcontrast.run_report import report


@pytest.fixture(scope="module")
def page(run, data_dir, tmp_path_factory):
  folder = tmp_path_factory.mktemp("pages")
  return report(run, folder / "a page.html", compare=[run], examples=300, projection="pca", data_dir=str(data_dir))


@pytest.fixture
def shown(browser, page):
  opened(browser, page.as_uri())
  return browser


def test_it_needs_no_other_host_and_says_nothing_on_the_console(shown):
  assert complaints(shown) == []
  asked = requests(shown)
  assert asked and all(address.startswith(("file://", "data:")) for address in asked)


def test_the_map_shows_every_point(shown):
  canvas = shown.find_element(By.CSS_SELECTOR, "#plane canvas")
  assert canvas.get_attribute("data-points") == canvas.get_attribute("data-drawn") == "600"
  assert "300 images and 300 captions" in shown.find_element(By.ID, "map").text
  inside = shown.execute_script(
    "const box = plane.canvas.getBoundingClientRect();"
    "return [...plane.px].every((x) => x > 0 && x < box.width) &&"
    "  [...plane.py].every((y) => y > 0 && y < box.height)")  # fmt: skip
  shown.execute_script("arguments[0].scrollIntoView()", canvas)
  assert inside and ink(canvas) > 5


def test_hovering_shows_the_picture_and_the_caption(shown):
  # A point that stands apart, so that no other is nearer to the mouse.
  alone = shown.execute_script(
    "let best = [-1, 0]; for (let n = 0; n < plane.count; n++) {"
    "  const [, far] = plane.nearest(plane.px[n], plane.py[n], (m) => m !== n); if (far > best[1]) best = [n, far]; }"
    "return best[0]")  # fmt: skip
  assert tooltip(shown) is None
  hover(shown, alone)
  found, words = tooltip(shown), shown.execute_script(f"return data.map.words[{alone}]")
  assert found.get_attribute("data-point") == str(alone) and words and words in found.text
  tile = found.find_element(By.CLASS_NAME, "tile")
  assert tile.is_displayed() and tile.size["width"] == 56 and ink(tile) > 5
  ActionChains(shown).move_to_element(shown.find_element(By.ID, "map-title")).perform()
  assert tooltip(shown) is None


def test_the_keyboard_alone_goes_over_the_map(shown):
  canvas = shown.find_element(By.CSS_SELECTOR, "#plane canvas")
  shown.find_element(By.ID, "whole").send_keys(Keys.TAB)
  assert shown.switch_to.active_element == canvas
  first = int(tooltip(shown).get_attribute("data-point"))
  canvas.send_keys(Keys.ARROW_LEFT)
  second = int(tooltip(shown).get_attribute("data-point"))
  assert shown.execute_script(f"return plane.px[{second}] < plane.px[{first}]")
  assert shown.execute_script("return data.map.words[arguments[0]]", second) in shown.find_element(
    By.ID, "spoken").get_attribute("textContent")  # fmt: skip
  canvas.send_keys(Keys.ENTER)
  third = int(tooltip(shown).get_attribute("data-point"))
  assert third != second and shown.execute_script(f"return data.map.concept[{second}] === data.map.concept[{third}]")
  canvas.send_keys("+")
  assert shown.execute_script("return plane.scale") > 1
  canvas.send_keys(Keys.ESCAPE)
  assert tooltip(shown) is None


def test_captions_are_found(shown):
  shown.find_element(By.ID, "find").send_keys("face")
  count = shown.execute_script("return data.map.words.filter((words) => words.includes('face')).length")
  assert count > 0 and shown.find_element(By.ID, "matched").text == f"{count} points"


def test_curves_of_both_runs_are_drawn_and_read_by_keys(shown):
  chart = shown.find_element(By.CSS_SELECTOR, ".chart")
  shown.execute_script("arguments[0].scrollIntoView()", chart)
  svg, said = chart.find_element(By.TAG_NAME, "svg"), chart.find_element(By.TAG_NAME, "output")
  assert len(svg.find_elements(By.CSS_SELECTOR, "path.line")) == 2 and "at the end" in svg.get_attribute("aria-label")
  last = said.text
  svg.send_keys(Keys.ARROW_LEFT)
  assert said.text != last and said.text.startswith("step ")
  titles = {one.text for one in shown.find_elements(By.CSS_SELECTOR, ".chart figcaption")}
  assert {"loss", "image_to_text/loss", "temperatures", "learning rate", "examples a second"} <= titles


def test_hits_and_misses_show_their_pictures(shown):
  tiles = shown.find_elements(By.CSS_SELECTOR, ".queries .tile")
  shown.execute_script("arguments[0].scrollIntoView({block: 'center'})", tiles[0])
  assert len(tiles) > 8 and ink(tiles[0]) > 5
  assert (
    shown.find_elements(By.CSS_SELECTOR, ".misses .query") and "rank" in shown.find_element(By.ID, "retrieval").text
  )


def test_it_is_dark_where_the_reader_likes_it_dark(browser, page):
  grounds = []
  for scheme in ("light", "dark"):
    browser.execute_cdp_cmd(
      "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    opened(browser, page.as_uri())
    grounds.append(browser.find_element(By.TAG_NAME, "body").value_of_css_property("background-color"))
  assert grounds == ["rgba(255, 255, 255, 1)", "rgba(20, 23, 27, 1)"]


def test_a_narrow_window_does_not_run_over(browser, page):
  browser.set_window_size(500, 900)
  opened(browser, page.as_uri())
  assert browser.execute_script("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
