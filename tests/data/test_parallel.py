"""Work by several processes."""

import os

import pytest

from mmcontrast.data import parallel
from mmcontrast.errors import UserError


def test_a_process_that_is_killed_is_said_so():
  with pytest.raises(UserError, match=r"one of 2 processes was killed.*run the same command again"):
    list(parallel.each(os._exit, [9, 9, 9], 2, "dying"))


def test_each_item_once():
  assert sorted(parallel.each(abs, [-3, 1, 2], 2, "taking")) == [(-3, 3), (1, 1), (2, 2)]
  assert list(parallel.each(abs, [-3, 1], 1, "taking")) == [(-3, 3), (1, 1)]
