"""Double precision where a test asks for it."""

import jax
import pytest


@pytest.fixture
def float64():
  """Runs a test in double precision."""
  with jax.enable_x64(True):
    yield
