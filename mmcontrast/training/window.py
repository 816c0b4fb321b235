"""The metrics of the steps since the last report."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import numpy as np

from mmcontrast.training import observe
from mmcontrast.training.divergence import Diverged


class Window:
  """Metrics since the last report: kept on the device, so that the loop does not wait for them.

  It does wait for those of AHEAD steps before: further ahead, it would fill the device with batches, and
  hide from the watchdog which step hangs.
  """

  AHEAD = 2

  def __init__(self, steps: int, batch_size: int):
    """`steps`: how many make a report."""
    self._steps, self._batch_size, self._entries, self._examples = steps, batch_size, [], 0
    self._idle: set[str] = set()
    self.watch = observe.Stopwatch()

  def add(self, step: int, metrics: Mapping[str, jax.Array], examples: int | None = None) -> None:
    """Keeps the metrics of `step`, of so many examples (None: of a whole batch)."""
    self._entries.append((step, metrics))
    self._examples += self._batch_size if examples is None else examples
    if len(self._entries) > self.AHEAD:
      jax.block_until_ready(self._entries[-1 - self.AHEAD])

  @property
  def full(self) -> bool:
    """Whether a report is due."""
    return bool(self._entries) and self._entries[-1][0] % self._steps == 0

  def restart(self) -> float:
    """Seconds since the window began; the clock starts anew."""
    return self.watch.lap(1, self._batch_size)["seconds_per_step"]

  def summary(self) -> dict[str, float]:
    """Means over the window and its rates; empties it. Waits for the device.

    Raises Diverged naming the step and the terms when a loss is not finite.
    """
    entries = [(step, observe.as_floats(metrics)) for step, metrics in self._entries]
    for step, metrics in entries:
      if bad := observe.check_finite(metrics):
        terms = [name for name in bad if name.endswith("/loss")] or bad
        raise Diverged(f"step {step}: {', '.join(terms)} not finite")
    means = {name: float(np.mean([metrics[name] for _, metrics in entries])) for name in entries[0][1]}
    rates = self.watch.lap(len(entries), self._examples)
    self._entries, self._examples = [], 0
    return means | rates

  def remarks(self, summary: Mapping[str, float]) -> list[str]:
    """A line for each term in which no example of the window of `summary` took part, unless it was so in the last."""
    idle = observe.idle_terms(summary)
    new, self._idle = [name for name in idle if name not in self._idle], set(idle)
    return [
      f"objective.{name}: no example since the last report took part in it, so nothing is learned from it: none "
      "has all that it compares (data.missing), or none has a positive (its target)"
      for name in new
    ]
