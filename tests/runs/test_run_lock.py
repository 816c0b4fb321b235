"""One training at a time in a folder, and no lock that outlives a process."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap

import pytest

from mmcontrast import folders
from mmcontrast.errors import UserError
from mmcontrast.parallel import distributed
from mmcontrast.runs import run_lock

HOLDS = textwrap.dedent("""
    import pathlib, sys, time
    from mmcontrast.runs import run_lock
    with run_lock.held(pathlib.Path(sys.argv[1])):
      print("held", flush=True)
      time.sleep(600)
""")


def test_a_second_one_is_refused_by_pid_and_host_and_nothing_stays(tmp_path):
  with run_lock.held(tmp_path):
    with pytest.raises(UserError, match="another training writes into this folder") as error, run_lock.held(tmp_path):
      raise AssertionError("two at once")
    assert f"process {os.getpid()} on {socket.gethostname()}, since 2" in str(error.value)
    assert "\n" not in str(error.value) and json.loads((tmp_path / run_lock.NAME).read_text())["pid"] == os.getpid()
  assert not list(tmp_path.iterdir())
  with run_lock.held(tmp_path), run_lock.held(tmp_path.parent):  # a stage's folder and that of the run
    pass


def test_a_killed_process_leaves_no_lock(tmp_path):
  child = subprocess.Popen([sys.executable, "-c", HOLDS, tmp_path], stdout=subprocess.PIPE, text=True)
  assert child.stdout.readline() == "held\n"
  with pytest.raises(UserError, match=f"process {child.pid} on "), run_lock.held(tmp_path):
    raise AssertionError("two at once")
  child.send_signal(signal.SIGKILL)
  child.wait()
  assert (tmp_path / run_lock.NAME).exists()  # its file does stay, and means nothing
  with run_lock.held(tmp_path):
    pass


def test_processes_of_one_run_share_it(tmp_path, monkeypatch):
  with run_lock.held(tmp_path):
    monkeypatch.setattr(distributed, "is_first", lambda: False)
    monkeypatch.setattr(distributed, "first_says", lambda value: True)  # as the first one, which holds it, says
    with run_lock.held(tmp_path):
      pass
    assert (tmp_path / run_lock.NAME).exists()
    monkeypatch.setattr(distributed, "first_says", lambda value: False)
    with pytest.raises(UserError, match=f"process {os.getpid()} on "), run_lock.held(tmp_path):
      raise AssertionError("refused in one process alone")


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, capsys):
  def none(file, how):
    raise OSError(38, "Function not implemented")

  monkeypatch.setattr(folders.fcntl, "flock", none)
  with run_lock.held(tmp_path):
    pass
  assert "has no locks (Function not implemented)" in capsys.readouterr().out
