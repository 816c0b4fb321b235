"""The demo in Chromium: a picture is uploaded and the first result read, words, a mixture, classes, what is wrong."""

import pytest
from conftest import complaints, demo_of, opened, requests, wait
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from mmcontrast.data.sources.emoji import open_built

RECORD = 17


@pytest.fixture(scope="module")
def address(run, data_dir):
  process = demo_of(run, data_dir, "--port", "0")
  line = process.stdout.readline()
  assert line.startswith("http://127.0.0.1:"), process.stderr.read()
  yield line.split()[0]
  process.terminate()
  process.wait(30)


@pytest.fixture(scope="module")
def record(data_dir):
  return open_built("emoji_views", "all", str(data_dir))[RECORD]


@pytest.fixture(scope="module")
def picture(record, tmp_path_factory):
  path = tmp_path_factory.mktemp("upload") / "mine.png"
  path.write_bytes(record["images"]["twemoji"])
  Image.open(path).verify()
  return str(path)


@pytest.fixture
def shown(browser, address):
  opened(browser, address)
  return browser


def results(browser):
  return wait(browser, lambda one: one.find_elements(By.CSS_SELECTOR, "#results li"))


def texts(browser):
  """Of the results, in one look: the next answer replaces them."""
  return browser.execute_script(
    "return [...document.querySelectorAll('#results li')].map((one) => one.innerText.trim())"
  )


def test_an_uploaded_picture_is_the_first_result(shown, address, picture, record):
  shown.find_element(By.ID, "file").send_keys(picture)
  assert shown.find_element(By.ID, "preview").is_displayed()
  shown.find_element(By.ID, "go").click()
  first = results(shown)[0]
  assert first.find_element(By.CLASS_NAME, "score").text == "1.000"
  assert first.find_element(By.CLASS_NAME, "text").text in [
    text for texts in record["captions"].values() for text in texts
  ]
  image = first.find_element(By.TAG_NAME, "img")
  wait(shown, lambda one: one.execute_script("return arguments[0].naturalWidth", image) > 0)
  assert "encoding" in shown.find_element(By.ID, "time").text and "ms in all" in shown.find_element(By.ID, "time").text
  assert complaints(shown) == []
  assert all(one.startswith((address, "data:", f"blob:{address}")) for one in requests(shown))


def test_words_and_a_mixture_by_the_keyboard(shown, picture):
  words, slider = shown.find_element(By.ID, "text"), shown.find_element(By.ID, "mix")
  assert not slider.is_enabled()
  words.send_keys("red heart", Keys.ENTER)
  by_words = wait(shown, texts)
  assert len(by_words) == 12
  shown.find_element(By.ID, "file").send_keys(picture)
  assert slider.is_enabled()
  slider.send_keys(Keys.END)
  wait(shown, lambda one: texts(one)[0].endswith("1.000"))
  assert shown.find_element(By.ID, "share").text == "100 % file"
  slider.send_keys(Keys.HOME)
  wait(shown, lambda one: texts(one) == by_words)


def test_classes_of_ones_choice(shown, picture):
  shown.find_element(By.ID, "file").send_keys(picture)
  shown.find_element(By.ID, "classes").send_keys("heart\nsmiling face\nhouse")
  shown.find_element(By.CSS_SELECTOR, "#classify button").click()
  found = wait(shown, lambda one: one.find_elements(By.CSS_SELECTOR, "#probabilities .score"))
  assert len(found) == 3 and abs(sum(float(one.text.split()[0]) for one in found) - 100) < 0.3


def test_what_is_no_picture_is_said_in_the_page(shown, tmp_path):
  (tmp_path / "notes.png").write_text("no picture")
  shown.find_element(By.ID, "file").send_keys(str(tmp_path / "notes.png"))
  shown.find_element(By.ID, "go").click()
  error = shown.find_element(By.ID, "error")
  wait(shown, lambda one: error.is_displayed())
  assert error.text.startswith("notes.png: ") and "\n" not in error.text
  shown.find_element(By.ID, "clear").click()
  shown.find_element(By.ID, "go").click()
  wait(shown, lambda one: "type some words, or choose a file" in error.text)
  shown.find_element(By.ID, "text").send_keys("dog", Keys.ENTER)
  assert results(shown) and not error.is_displayed()


def test_two_demos_on_one_port(run, data_dir, address):
  port = address.rsplit(":", 1)[1].strip("/")
  out, err = (other := demo_of(run, data_dir, "--port", port)).communicate(timeout=120)
  assert (
    other.returncode == 2 and out == "" and err.startswith(f"error: --port {port}: is in use") and err.count("\n") == 1
  )
