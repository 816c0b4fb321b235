"""A run on disk: its state, checkpoints and lock."""
