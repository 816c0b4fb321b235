"""A trained run, and Debian's Chromium without a network but this machine's own. `make browser`."""

import json
import shutil

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

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
