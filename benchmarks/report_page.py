"""How long `mmcontrast report` takes, how large its page is, and when a browser can use it.

    python benchmarks/report_page.py --workdir runs/quickstart --out docs/results/report_page.json --images docs/images

The command runs in a process of its own, start included. A Chromium (Debian: chromium, chromium-driver; the extra
`browser`) opens the page from the disk, with a cache of its own each time: `ready_ms` is from the start of the
navigation until all of the page can be used, `hover_ms` from a move of the mouse to the picture under it. `load` is
that of the machine: on one that is busy with other work `processor_seconds`, and `main_thread_ms`, the time of the
processor that the page's main thread took until it was ready, say more than the others. `--images` also writes
report.png and demo.png.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import record
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

_READY = "return document.documentElement.dataset.ready"
_HOVER = """
const began = performance.now(), n = Math.floor(plane.count / 3);
const box = plane.canvas.getBoundingClientRect();
const [clientX, clientY] = [box.left + plane.px[n], box.top + plane.py[n]];
plane.canvas.dispatchEvent(new PointerEvent("pointermove", { clientX, clientY }));
const shown = document.getElementById("shown").getBoundingClientRect();
return shown.width > 0 ? performance.now() - began : null;
"""


def main() -> None:
  """Measures, prints and writes."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--workdir", required=True, help="a run whose evaluation set has some 2,000 examples")
  parser.add_argument("--projection", default="pca", help="pca or umap")
  parser.add_argument("--rounds", type=int, default=3)
  parser.add_argument("--out", help="where the numbers go, as JSON")
  parser.add_argument("--images", help="a folder for pictures of report and demo")
  options = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    page, rows = pathlib.Path(folder) / "report.html", []
    for number in range(options.rounds):
      row = {"round": number, **made(options.workdir, page, options.projection), **opened(page)}
      rows.append(row | {"load": round(os.getloadavg()[0], 1)})
    medians = {key: statistics.median(row[key] for row in rows) for key in rows[0] if key != "round"}
    record.record([*rows, {"round": "median", **medians}], options.out)
    if options.images:
      pictures(options.workdir, page, pathlib.Path(options.images))


def command(*words: str) -> list[str]:
  return [sys.executable, "-m", "mmcontrast", *words]


def made(workdir: str, page: pathlib.Path, projection: str) -> dict[str, float]:
  """Seconds, those of the processor, and megabytes, of a report."""
  began, before = time.perf_counter(), os.times()
  subprocess.run(
    command("report", "--workdir", workdir, "--out", str(page), "--projection", projection),
    check=True,
    stdout=subprocess.DEVNULL,
  )
  after = os.times()
  processor = after.children_user + after.children_system - before.children_user - before.children_system
  return {
    "seconds": round(time.perf_counter() - began, 2),
    "processor_seconds": round(processor, 2),
    "megabytes": round(page.stat().st_size / 1e6, 2),
  }


def browser(width: int = 1280, height: int = 900) -> webdriver.Chrome:
  options = Options()
  options.binary_location = shutil.which("chromium")
  for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", f"--window-size={width},{height}"):
    options.add_argument(word)
  return webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))


def opened(page: pathlib.Path, times: int = 5) -> dict[str, float]:
  """What a browser says of the page: medians, and the least `ready_ms`, which other work has delayed least."""
  rows = [opened_once(page) for _ in range(times)]
  least = min(row["ready_ms"] for row in rows)
  return {key: statistics.median(row[key] for row in rows) for key in rows[0]} | {"least_ready_ms": least}


def opened_once(page: pathlib.Path) -> dict[str, float]:
  """The same of one browser, with an empty cache."""
  driver = browser()
  try:
    driver.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    driver.get(page.as_uri())
    WebDriverWait(driver, 60).until(lambda one: one.execute_script(_READY))
    spent = {one["name"]: one["value"] for one in driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]}
    painted = driver.execute_script(
      "return performance.getEntriesByType('paint').find((one) => one.name === 'first-contentful-paint')?.startTime"
    )
    return {
      "points": int(driver.find_element(By.CSS_SELECTOR, "#plane canvas").get_attribute("data-drawn")),
      "first_paint_ms": round(painted or 0),
      "ready_ms": int(driver.execute_script(_READY)),
      "main_thread_ms": round(1000 * spent["TaskDuration"]),
      "hover_ms": round(driver.execute_script(_HOVER), 1),
    }
  finally:
    driver.quit()


def pictures(workdir: str, page: pathlib.Path, folder: pathlib.Path) -> None:
  """report.png and demo.png: small, in few colours."""
  driver = browser(1100, 1900)
  try:
    driver.get(page.as_uri())
    WebDriverWait(driver, 60).until(lambda one: one.execute_script(_READY))
    parts = []
    for chosen, height in (
      (".charts", 235),
      ("#mixture svg", 300),
      ('[data-way="text_to_image"] .misses', 300),
      ("#plane", 560),
    ):
      element = driver.find_element(By.CSS_SELECTOR, chosen)
      driver.execute_script("arguments[0].scrollIntoView()", element)
      if chosen == "#plane":
        driver.execute_script(_HOVER)
      time.sleep(1)
      box = element.rect
      top = box["y"] - driver.execute_script("return scrollY")
      found = _shot(driver, folder / "part.png")
      height = min(height, round(box["height"]))
      parts.append(found.crop((20, max(0, round(top) - 4), found.width - 20, round(top) + height + 4)))
    sheet = Image.new("RGB", (parts[0].width, sum(part.height + 12 for part in parts)), "white")
    down = 0
    for part in parts:
      sheet.paste(part, (0, down))
      down += part.height + 12
    _save(sheet, folder / "report.png")
    for address in demo(workdir):
      driver.set_window_size(1000, 1300)
      driver.get(address)
      WebDriverWait(driver, 60).until(lambda one: one.execute_script(_READY) is not None)
      driver.find_element(By.ID, "text").send_keys("red heart")
      driver.find_element(By.ID, "go").click()
      WebDriverWait(driver, 60).until(lambda one: one.find_elements(By.CSS_SELECTOR, "#results img"))
      time.sleep(1)
      shot = _shot(driver, folder / "demo.png")
      _save(shot.crop((0, 0, shot.width, 980)), folder / "demo.png")
  finally:
    driver.quit()


def demo(workdir: str) -> Iterator[str]:
  """The address of a demo, which ends when it has been used."""
  process = subprocess.Popen(command("demo", "--workdir", workdir, "--port", "0"), stdout=subprocess.PIPE, text=True)
  try:
    yield process.stdout.readline().split()[0]
  finally:
    process.terminate()
    process.wait(30)


def _shot(driver: webdriver.Chrome, path: pathlib.Path) -> Image.Image:
  path.parent.mkdir(parents=True, exist_ok=True)
  driver.save_screenshot(str(path))
  image = Image.open(path).convert("RGB")
  path.unlink()
  return image


def _save(image: Image.Image, path: pathlib.Path) -> None:
  image.thumbnail((760, 4000))
  image.quantize(256, Image.Quantize.MAXCOVERAGE).save(path, optimize=True)


if __name__ == "__main__":
  main()
