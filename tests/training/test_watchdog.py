"""The watchdog: what makes no progress ends, what says what it does goes on."""

import subprocess
import sys
import textwrap
import threading
import time

import pytest
from test_cli import config_file
from tiny import tiny_config

from mmcontrast.errors import UserError
from mmcontrast.training import watchdog
from mmcontrast.training.watchdog import EXIT_CODE, PATIENCE, Watchdog


class Ends:
  """Stands in for os._exit."""

  def __init__(self):
    self.code, self.came = None, threading.Event()

  def __call__(self, code):
    self.code = code
    self.came.set()


def test_it_says_who_waits_on_what_with_all_stacks(capfd):
  ends, release = Ends(), threading.Event()
  thread = threading.Thread(target=release.wait, name="reader")
  thread.start()
  with Watchdog(0.2, ends) as dog:
    dog.doing("reading batch 7")
    assert ends.came.wait(30)
  release.set()
  error = capfd.readouterr().err
  assert ends.code == EXIT_CODE
  assert "process 0 of 1 on " in error and "makes no progress: reading batch 7, for " in error
  assert "run the same command again" in error
  assert error.count("most recent call first") >= 3 and "test_watchdog.py" in error  # this thread, its own, the reader


def test_progress_patience_and_leaving_keep_it_quiet(capfd):
  ends = Ends()
  with Watchdog(0.4, ends) as dog:
    for step in range(12):  # longer than its seconds in all, each step shorter
      dog.doing(f"step {step}")
      time.sleep(0.05)
    dog.doing("evaluating", PATIENCE)
    time.sleep(0.8)
  time.sleep(0.5)
  with Watchdog(0, ends) as dog:
    dog.doing("nothing is watched")
    time.sleep(0.1)
  assert ends.code is None and not capfd.readouterr().err


def test_a_suspended_process_was_not_waiting(monkeypatch):
  ends, late = Ends(), time.monotonic
  with Watchdog(5, ends) as dog:
    dog.doing("step 1")
    monkeypatch.setattr(watchdog.time, "monotonic", lambda: late() + 3600)  # as after SIGSTOP and SIGCONT
    assert not ends.came.wait(1.2)


HOLDS_THE_LOCK = textwrap.dedent("""
    import ctypes, os, signal, sys, threading, time
    from mmcontrast.training.watchdog import Watchdog
    with Watchdog(0.1) as dog:
      dog.doing("step 3", 10)
      if sys.argv[1] == "hang":
        ctypes.PyDLL(None).sleep(30)  # with the interpreter's lock
      elif sys.argv[1] == "work":
        ctypes.PyDLL(None).usleep(500_000)
      else:  # suspended for longer than anything is waited for
        shell = f"sleep 4; kill -CONT {os.getpid()}"
        __import__("subprocess").Popen(["sh", "-c", shell], start_new_session=True)
        os.kill(os.getpid(), signal.SIGTSTP)
    print("ended well")
""")


@pytest.mark.parametrize("what, code", [("hang", 1), ("work", 0), ("suspend", 0)])
def test_what_holds_the_interpreters_lock(what, code):
  start = time.monotonic()
  found = subprocess.run(
    [sys.executable, "-c", HOLDS_THE_LOCK, what], capture_output=True, text=True, timeout=60, check=False
  )
  assert found.returncode == code, found.stderr
  assert ("Timeout (0:00:03" in found.stderr and "most recent call first" in found.stderr) == (what == "hang")
  assert ("ended well" in found.stdout) == (what != "hang") and time.monotonic() - start < 25


def test_mistake():
  with pytest.raises(UserError, match=r"config\.log\.watchdog_seconds=-1: give seconds"):
    Watchdog(-1)


def test_a_source_that_hangs_ends_the_run(tmp_path, data_dir):
  config = tiny_config()
  config["log"]["watchdog_seconds"] = 1.5
  config["data"]["cache"] = "none"
  file = config_file(tmp_path / "mine.py", log=config["log"], data=config["data"], steps=100_000)
  code = textwrap.dedent("""
      import sys, threading
      from mmcontrast.data.sources import emoji
      read, count = emoji.EmojiSource.__getitem__, iter(range(10**9))
      def hanging(self, index):
        if next(count) > 3000:  # beyond what is read before the first batch
          threading.Event().wait()
        return read(self, index)
      emoji.EmojiSource.__getitem__ = hanging
      from mmcontrast.cli import main
      sys.exit(main(sys.argv[1:]))
  """)
  found = subprocess.run(
    [sys.executable, "-c", code, "train", "--config", file, "--workdir", tmp_path / "run", "--data_dir", data_dir],
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )
  assert found.returncode == EXIT_CODE, found.stderr
  assert "makes no progress: reading batch " in found.stderr and "in hanging" in found.stderr
  assert "first step done" in found.stdout
