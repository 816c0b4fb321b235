"""Published trainings at their real size, each for a slice of TPUs: docs/results/tpu.md has what they would cost."""
