"""A trained run, and Debian's Chromium without a network but this machine's own. `make browser`."""

import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from shape_things import RUNS, changes, write_things

from mmcontrast.cli import main

# Names of other hosts are not found; --no-sandbox: as root there is none.
_ARGUMENTS = (
  *("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,1000"),
  "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


@pytest.fixture(scope="session")
def run(tmp_path_factory, data_dir):
  """The folder of a run, trained for some steps on the smallest version of the quickstart."""
  folder = tmp_path_factory.mktemp("browser") / "run"
  words = ["--config", "quickstart:smoke", "--workdir", str(folder), "--data_dir", str(data_dir)]
  words += ["--config.log.every_steps=1", "--config.evaluation.sets=('emoji_views:twemoji',)"]
  assert main(["train", *words]) == 0
  return folder


@pytest.fixture(scope="session")
def things(tmp_path_factory):
  """A folder of things of all modalities, and a table of them."""
  folder = tmp_path_factory.mktemp("things")
  write_things(folder)
  return folder


@pytest.fixture(scope="session")
def run_of(tmp_path_factory, things, data_dir):
  """run_of("filip"): the folder of a run of things.RUNS, trained when it is first asked for."""
  made = {}

  def run_of(name):
    if name not in made:
      made[name] = tmp_path_factory.mktemp("run") / name.replace(" ", "_")
      words = ["--config", f"{RUNS[name][0]}:smoke", "--workdir", str(made[name]), "--data_dir", str(data_dir)]
      assert main(["train", *words, "--config.log.every_steps=1", *changes(name, things)]) == 0
    return made[name]

  return run_of


@pytest.fixture
def browser():
  """Chromium, driven; what it requests and what it says on its console are kept."""
  program, driver = shutil.which("chromium"), shutil.which("chromedriver")
  assert program and driver, "apt-get install chromium chromium-driver"
  options = Options()
  options.binary_location = program
  for word in _ARGUMENTS:
    options.add_argument(word)
  options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
  made = webdriver.Chrome(options=options, service=Service(driver))
  made.set_page_load_timeout(60)
  yield made
  made.quit()


def opened(browser, address):
  """Opens a page and waits until it says that it is ready."""
  browser.get(address)
  WebDriverWait(browser, 30).until(
    lambda one: one.execute_script("return document.documentElement.dataset.ready") is not None
  )


def requests(browser):
  """The addresses that the page has asked for since the last call."""
  events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
  return [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]


def complaints(browser):
  """What the console says since the last call, warnings and worse."""
  return [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("WARNING", "SEVERE")]


def hover(browser, point):
  """Moves the mouse to a point of a report's map."""
  canvas = browser.find_element(By.CSS_SELECTOR, "#plane canvas")
  browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
  x, y, width, height = browser.execute_script(
    "const box = plane.canvas.getBoundingClientRect();"
    "return [plane.px[arguments[0]], plane.py[arguments[0]], box.width, box.height]", point)  # fmt: skip
  ActionChains(browser).move_to_element_with_offset(canvas, round(x - width / 2), round(y - height / 2)).perform()


def tooltip(browser):
  """What the map shows of a point; None while it shows nothing."""
  found = browser.find_element(By.ID, "shown")
  return found if found.is_displayed() else None


def ink(element):
  """How much the pixels of an element differ."""
  return np.asarray(Image.open(io.BytesIO(element.screenshot_as_png)).convert("L"), float).std()


def demo_of(run, data_dir, *words):
  """The process of a demo; its first line has the address."""
  command = [sys.executable, "-m", "mmcontrast", "demo", "--workdir", str(run), "--data_dir", str(data_dir), *words]
  words = [] if "--port" in words else ["--port", "0"]
  return subprocess.Popen(
    [*command, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
  )


def wait(browser, what):
  """Waits for a minute until `what` of the browser is true; gives it."""
  return WebDriverWait(browser, 60).until(what)
